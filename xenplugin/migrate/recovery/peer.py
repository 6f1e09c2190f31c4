"""Asks the other host what became of a guest: `ssh HOST xenplugin recover --answer ID --guest UUID`.

The destination first settles its own side, if it can alone, then prints its record's state in one marked line of
JSON, so that the output of the shell's start-up files does no harm. Only a final state decides by itself. Without a
valid record it says whether a domain with the guest's uuid is there. The answer carries the machine's identity; if
HOST leads to another machine now, its answer is not used.

A host counts as unreachable only if no connection to it could be made. Whatever was printed on the way back, an
sshd that refused the login, or a machine that refused the connection, is a sign of life. ssh's exit status 255 is
no proof: a program over there that is killed gives it too.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import shlex
import subprocess
import time
from dataclasses import asdict, dataclass
from typing import Any

from xenplugin.migrate.ownership import host_identity
from xenplugin.migrate.ownership.records import PeerNote, Record
from xenplugin.migrate.ownership.states import (
    TRANSITIONS,
    GuestPresence,
    NoAnswer,
    OwnershipState,
    PeerAnswer,
    Role,
)

MARK = "XENPLUGIN-OWNER 2 "
#: States of an answer about a migration of which there is no valid record (any more).
UNKNOWN, UNREADABLE, FORGOTTEN = "unknown", "unreadable", "forgotten"
#: Seconds for an answer: the far side may wait for its xl to end (local_host.AT_WORK), and destroy a domain.
PATIENCE = 240.0
#: Bytes of each output that are kept.
_LONGEST = 1 << 16
#: What OpenSSH prints if it makes no connection: by itself, or as told by the host that it jumps over.
_NO_CONNECTION = re.compile(
    r"^(ssh: connect to host .* port \d+|ssh: Could not resolve hostname .*"
    r"|channel \d+: open failed: connect failed): (?!.*refused)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class OwnerAnswer:
    """The destination's answer. `state`: its record's, or UNKNOWN, UNREADABLE, FORGOTTEN; `guest`: what there is of
    the guest, as the name of a GuestPresence, empty if it was not looked for or is not known; `machine` and `key`:
    its identity."""

    state: str
    guest: str = ""
    machine: str = ""
    key: str = ""


def line(id: str, answer: OwnerAnswer) -> str:
    """Return the line that answers about migration `id`, without a line feed."""
    return MARK + json.dumps({"id": id, **asdict(answer)})


def command(peer: PeerNote, *verb: str, words: tuple[str, ...] = ()) -> list[str] | None:
    """Return the command that runs `xenplugin VERB`, or else WORDS, on the other host; None if the record does not
    say how to reach it."""
    if not peer.ssh.strip() or not peer.host or peer.host.startswith("-"):
        return None
    try:
        program = shlex.split(peer.program)
    except ValueError:
        return None
    return ["sh", "-c", f'exec {peer.ssh} "$@"', "sh", peer.host, *(words or (*program, *verb))]


def ask(record: Record, patience: float = PATIENCE) -> tuple[PeerAnswer, str]:
    """Ask the other host for the state of its record. Returns the state, or why there is none, and a sentence."""
    answer, why = _run(record, patience, "--answer", record.id, "--guest", record.peer.guest or record.uuid)
    if isinstance(answer, NoAnswer):
        return answer, why
    host, state, guest = record.peer.host, answer.state, answer.guest
    if state in TRANSITIONS[Role.DESTINATION]:
        return OwnershipState(state), f"{host} says {state}"
    if state not in (UNKNOWN, UNREADABLE):
        return NoAnswer.UNCLEAR, f"{host} gave an answer that this version does not understand"
    lacks = f"{host} has no record of this migration" if state == UNKNOWN else f"{host} cannot read its record"
    if guest == GuestPresence.LIVE.name:
        return NoAnswer.PRESENT, f"{lacks}, but a domain with the guest's uuid runs there"
    if guest == GuestPresence.NONE.name:
        return NoAnswer.ABSENT, f"{lacks}, and no domain of the guest"
    there = "a domain of the guest is there that does not run" if guest else "its domains cannot be listed"
    return NoAnswer.UNCLEAR, f"{lacks}, and {there}"


def forget(record: Record, patience: float = PATIENCE) -> bool:
    """Have the other host remove its record of this migration. Returns whether it has none now."""
    uuid = record.peer.guest or record.uuid
    answer, _ = _run(record, patience, "--answer", record.id, "--guest", uuid, "--settled")
    return isinstance(answer, OwnerAnswer) and answer.state in (FORGOTTEN, UNKNOWN)


def answers(record: Record, patience: float = PATIENCE) -> bool:
    """Return whether the other host shows any sign of life: its shell runs `echo`, or anything but the failure to
    connect comes back. False too if the record does not say how to reach it."""
    vector = command(record.peer, words=("echo", MARK.strip()))
    if vector is None:
        return False
    try:
        return not _unreached(record.peer, *_run_bounded(vector, patience))
    except (OSError, subprocess.TimeoutExpired):
        return True


def _run(record: Record, patience: float, *words: str) -> tuple[OwnerAnswer | NoAnswer, str]:
    """Return the answer of the machine that the record means, or why there is none, and the reason."""
    host = record.peer.host
    vector = command(record.peer, "recover", *words)
    if vector is None:
        return NoAnswer.UNREACHABLE, f"the record does not say how to reach {host}"
    try:
        status, out, err = _run_bounded(vector, patience)
    except OSError as error:
        return NoAnswer.UNCLEAR, f"cannot start {vector[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return NoAnswer.UNCLEAR, f"{host} did not answer within {patience:.0f} s"
    answer = parse(out, record.id)
    if status == 0 and answer is not None:
        return _identified(record, answer)
    complaint = err.strip().splitlines()
    tail = f": {complaint[-1]}" if complaint else ""
    if _unreached(record.peer, status, out, err) and (_is_openssh(record.peer) or not answers(record, patience)):
        return NoAnswer.UNREACHABLE, f"{host} cannot be reached{tail}"
    return NoAnswer.UNCLEAR, f"{host} gave no answer (status {status}){tail}"


def _identified(record: Record, answer: OwnerAnswer) -> tuple[OwnerAnswer | NoAnswer, str]:
    same = record.peer.identity.same(host_identity.of_fields(asdict(answer)))
    host = record.peer.host
    if same:
        return answer, ""
    if same is None:
        return (
            NoAnswer.UNCLEAR,
            f"{host} has another machine id or ssh host key than before, so it may be another",
        )
    if answer.guest == GuestPresence.NONE.name:
        return NoAnswer.ELSEWHERE, f"{host} is another machine now, not the one that the guest was sent to"
    return NoAnswer.UNCLEAR, f"{host} is another machine now, but may have a domain of the guest"


def _unreached(peer: PeerNote, status: int, out: str, err: str) -> bool:
    """Return whether a command failed as if no connection was made."""
    if out or status == 0:
        return False
    return not _is_openssh(peer) or _NO_CONNECTION.search(err) is not None


def _is_openssh(peer: PeerNote) -> bool:
    return any(os.path.basename(word) == "ssh" for word in peer.ssh.split())


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


def parse(text: str, id: str) -> OwnerAnswer | None:
    """Return the answer in the line about migration `id`; None if there is no such line, or more than one."""
    found: list[Any] = []
    for row in text.splitlines():
        if row.startswith(MARK):
            try:
                found.append(json.loads(row[len(MARK) :]))
            except (ValueError, RecursionError):
                return None
    match found:
        case [{"id": about, "state": str(state), "guest": str(guest), "machine": str(machine), "key": str(key)}]:
            return OwnerAnswer(state, guest, machine, key) if about == id else None
    return None
