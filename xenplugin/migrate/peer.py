"""Asking the other host what became of a guest: `ssh HOST xenplugin recover --answer ID`, and its answer.

Strategy: the destination settles its own side first, as far as it can alone, and then says its record's state in
one marked line of JSON (whatever the shell's start-up files print around it). Only a final state tells anything; no
answer, another host's answer, a record that is not there: each is a NoAnswer, never taken for a word.
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
#: Seconds for an answer: the far side may wait for its xl to end (local_host.AT_WORK) and destroy a domain.
PATIENCE = 240.0
_LONGEST = 1 << 16


def line(id: str, state: str) -> str:
    """The answer about migration `id`, without a line's end."""
    return MARK + json.dumps({"id": id, "state": state})


def command(peer: PeerNote, *words: str) -> list[str] | None:
    """The argument vector that runs `xenplugin WORDS` on the other host; None if it cannot be reached that way."""
    if not peer.ssh.strip() or not peer.host or peer.host.startswith("-"):
        return None
    try:
        program = shlex.split(peer.program)
    except ValueError:
        return None
    return ["sh", "-c", f'exec {peer.ssh} "$@"', "sh", peer.host, *program, *words]


def ask(record: Record, patience: float = PATIENCE) -> tuple[PeerAnswer, str]:
    """What the other host's record says, or why nothing is known, with the reason in words."""
    said, why = _run(record, patience, "--answer", record.id)
    if said is None:
        return NoAnswer.UNREACHABLE, why
    if said == UNKNOWN:
        return NoAnswer.UNKNOWN, f"{record.peer.host} knows nothing of this migration"
    if said in TRANSITIONS[Role.DESTINATION]:
        return OwnershipState(said), f"{record.peer.host} says {said}"
    return NoAnswer.UNREACHABLE, f"{record.peer.host} gave an answer that this version does not know"


def forget(record: Record, patience: float = PATIENCE) -> bool:
    """Let the other host forget this migration. Whether nothing of it is left there."""
    return _run(record, patience, "--answer", record.id, "--settled")[0] in (FORGOTTEN, UNKNOWN)


def _run(record: Record, patience: float, *words: str) -> tuple[str | None, str]:
    """The state that was answered, or None and why not."""
    host = record.peer.host
    vector = command(record.peer, "recover", *words)
    if vector is None:
        return None, f"it is not known how to reach {host}"
    try:
        status, out, err = _heard(vector, patience)
    except OSError as error:
        return None, f"cannot start {vector[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return None, f"{host} did not answer within {patience:.0f} s"
    state = parse(out, record.id)
    if status == 0 and state is not None:
        return state, ""
    said = err.strip().splitlines()
    return None, f"{host} did not answer (status {status})" + (f": {said[-1]}" if said else "")


def _heard(vector: list[str], patience: float) -> tuple[int, str, str]:
    """Exit status, and the last 64 KiB of either output, however much comes. Raises OSError, TimeoutExpired."""
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
    """The state in the one line about migration `id`; None if there is none, or there are several."""
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
