"""Asks the other host what became of a guest: `ssh HOST xenplugin recover --answer ID`, and reads the answer.

The destination first settles its own side, if it can alone, then prints its record's state in one marked line of
JSON, so that the output of the shell's start-up files does no harm. Only a final state decides anything. No answer,
another host's answer and a missing record are each a NoAnswer, and are never taken for a state.
"""

from __future__ import annotations

import json
import os
import selectors
import shlex
import subprocess
import time
from typing import Any

from xenplugin.migrate.ownership import TRANSITIONS, NoAnswer, OwnershipState, PeerAnswer, Role
from xenplugin.migrate.records import PeerNote, Record

MARK = "XENPLUGIN-OWNER 1 "
UNKNOWN, FORGOTTEN = "unknown", "forgotten"
#: Seconds for an answer: the far side may wait for its xl to end (local_host.AT_WORK), and destroy a domain.
PATIENCE = 240.0
#: Bytes of each output that are kept.
_LONGEST = 1 << 16


def line(id: str, state: str) -> str:
    """Return the line that answers about migration `id`, without a line feed."""
    return MARK + json.dumps({"id": id, "state": state})


def command(peer: PeerNote, *words: str) -> list[str] | None:
    """Return the command that runs `xenplugin WORDS` on the other host, or None if the record does not say how to
    reach it."""
    if not peer.ssh.strip() or not peer.host or peer.host.startswith("-"):
        return None
    try:
        program = shlex.split(peer.program)
    except ValueError:
        return None
    return ["sh", "-c", f'exec {peer.ssh} "$@"', "sh", peer.host, *program, *words]


def ask(record: Record, patience: float = PATIENCE) -> tuple[PeerAnswer, str]:
    """Ask the other host for the state of its record. Returns the state, or why there is none, and a sentence."""
    answer, why = _run(record, patience, "--answer", record.id)
    if answer is None:
        return NoAnswer.UNREACHABLE, why
    if answer == UNKNOWN:
        return NoAnswer.UNKNOWN, f"{record.peer.host} knows nothing of this migration"
    if answer in TRANSITIONS[Role.DESTINATION]:
        return OwnershipState(answer), f"{record.peer.host} says {answer}"
    return NoAnswer.UNREACHABLE, f"{record.peer.host} gave an answer that this version does not understand"


def forget(record: Record, patience: float = PATIENCE) -> bool:
    """Have the other host remove its record of this migration. Returns whether it has none now."""
    return _run(record, patience, "--answer", record.id, "--settled")[0] in (FORGOTTEN, UNKNOWN)


def _run(record: Record, patience: float, *words: str) -> tuple[str | None, str]:
    """Return the state in the answer, or None and the reason."""
    host = record.peer.host
    vector = command(record.peer, "recover", *words)
    if vector is None:
        return None, f"the record does not say how to reach {host}"
    try:
        status, out, err = _run_bounded(vector, patience)
    except OSError as error:
        return None, f"cannot start {vector[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return None, f"{host} did not answer within {patience:.0f} s"
    state = parse(out, record.id)
    if status == 0 and state is not None:
        return state, ""
    complaint = err.strip().splitlines()
    return None, f"{host} did not answer (status {status})" + (f": {complaint[-1]}" if complaint else "")


def _run_bounded(vector: list[str], patience: float) -> tuple[int, str, str]:
    """Run a command. Returns its exit status and the last 64 KiB of each output. Raises OSError, TimeoutExpired."""
    deadline = time.monotonic() + patience
    pipe = subprocess.PIPE
    with subprocess.Popen(vector, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, bufsize=0) as child:
        try:
            with selectors.DefaultSelector() as selector:
                kept = []
                for stream in (child.stdout, child.stderr):
                    assert stream is not None
                    kept.append(bytearray())
                    selector.register(stream, selectors.EVENT_READ, kept[-1])
                while selector.get_map():
                    if not (ready := selector.select(max(0.0, deadline - time.monotonic()))):
                        raise subprocess.TimeoutExpired(vector, patience)
                    for key, _ in ready:
                        if not (data := os.read(key.fd, _LONGEST)):
                            selector.unregister(key.fileobj)
                        key.data[:] = (key.data + data)[-_LONGEST:]
            status = child.wait(max(0.0, deadline - time.monotonic()))
        except BaseException:
            child.kill()
            raise
    out, err = (text.decode(errors="replace") for text in kept)
    return status, out, err


def parse(text: str, id: str) -> str | None:
    """Return the state in the line about migration `id`; None if there is no such line, or more than one."""
    found: list[Any] = []
    for row in text.splitlines():
        if row.startswith(MARK):
            try:
                found.append(json.loads(row[len(MARK) :]))
            except (ValueError, RecursionError):
                return None
    match found:
        case [{"id": about, "state": str(state)}] if about == id:
            return state
    return None
