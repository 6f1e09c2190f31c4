"""Other ways than the existing one to move a guest or its disk from host-a to host-b, measured alike.

- live, static, full: `xenplugin migrate` moves the guest with its disk, which host-b does not have.
- paper: the paper's way for the disk alone, a step after the other: gzip, AES-128 by openssl, scp, and back.
  Together with `existing` (lab.measure.xen.xl_ipsec) it is what a guest with a disk would take.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from lab.errors import CheckError, CommandError
from lab.hosts.guest import trace
from lab.hosts.lab import Lab
from lab.hosts.provider.base import Node, Say
from lab.hosts.role import clock
from lab.hosts.topology import HOST_A, HOST_B, ROUTER
from lab.measure.results import Result
from lab.measure.xen.xl_ipsec import (
    CONFIG,
    COPY,
    DISK,
    GUEST,
    MIGRATE,
    START,
    await_ticks,
    check_where,
    destroy,
    existing,
    log,
    log_size,
    router_bytes,
    sizes,
    versions,
    watching,
)

Way = Callable[[Lab, Say], Result]

# The key is a file; the steps are the paper's tools, each ended before the next begins.
_PAPER = """
set -e
work=$(mktemp -d /srv/paper.XXXXXX)
trap 'rm -rf "$work"; ssh "$2" rm -rf "$work"' EXIT
step() { now=$(date +%s.%N); echo "$1 $now"; }
(umask 077; head -c 32 /dev/urandom | base64 >"$work/key")
ssh "$2" mkdir -m 700 "$work"
scp -q "$work/key" "$2:$work/key"
step begin
gzip -c "$1" >"$work/gz"
step gzip
openssl enc -aes-128-cbc -pbkdf2 -pass "file:$work/key" -in "$work/gz" -out "$work/enc"
step encrypt
scp -q "$work/enc" "$2:$work/enc"
step scp
ssh "$2" openssl enc -d -aes-128-cbc -pbkdf2 -pass "file:$work/key" -in "$work/enc" -out "$work/gz"
step decrypt
ssh "$2" "gunzip -c '$work/gz' | cp --sparse=always /dev/stdin '$1'"
step gunzip
"""


def plugin(mode: str) -> Way:
    """The plugin's way in `mode`."""

    def run(lab: Lab, say: Say) -> Result:
        result = Result(mode, lab.spec)
        source, target, router = lab.node(HOST_A.name), lab.node(HOST_B.name), lab.node(ROUTER.name)
        result.versions = {**versions(lab), "xenplugin": source.check(["xenplugin", "--version"]).split()[-1]}
        for node in (source, target):
            destroy(node)
        try:
            with watching((source, target), say):
                result.figures = _move(source, target, router, mode, say)
        finally:
            for node in (source, target):
                destroy(node)
        return result

    return run


def _move(source: Node, target: Node, router: Node, mode: str, say: Say) -> dict[str, Any]:
    for node in (source, target):
        clock.set_right(node)
    begun = {node.name: log_size(node) for node in (source, target)}
    target.check(["sh", "-c", 'rm -f "$1" "${1%/*}/.${1##*/}.xenplugin-"*', "sh", DISK])
    say(f"{source.name}: starting {GUEST}")
    source.check(["xl", "create", "-q", CONFIG], timeout=START)
    await_ticks(source, begun[source.name], say)
    guest = sizes(source)
    say(f"{source.name}: xenplugin migrate --mode {mode} {GUEST} {target.name}")
    start, bytes_start = time.monotonic(), router_bytes(router)
    words = ["xenplugin", "migrate", "--json", "--mode", mode, GUEST, target.name]
    done = source.run(words, timeout=MIGRATE)
    seconds, moved = time.monotonic() - start, router_bytes(router) - bytes_start
    if done.code:
        raise CommandError(f"{source.name}: xenplugin migrate failed ({done.code}): {done.said[-400:]}")
    check_where(source, target)
    after = await_ticks(target, begun[target.name], say)
    seen = trace.parse("".join((log(source, begun[source.name]), after)))
    if seen.corrupt:
        raise CheckError(f"{GUEST} found corruption: {seen.corrupt[0]}")
    if seen.lost:
        raise CheckError(f"{GUEST} lost its ticks {seen.lost[:5]}")
    return {
        "seconds": round(seconds, 3),
        "router_bytes": moved,
        "downtime": round(seen.downtime, 3),
        "clocks_apart": round(clock.difference(source, target).ahead, 3),
        "ticks": len(seen.ticks),
        "result": json.loads(done.stdout),
        **guest,
    }


def paper(lab: Lab, say: Say) -> Result:
    """The paper's way for the guest's disk, the guest being stopped. Raises CommandError, CheckError."""
    result = Result("paper", lab.spec)
    source, target, router = lab.node(HOST_A.name), lab.node(HOST_B.name), lab.node(ROUTER.name)
    result.versions = versions(lab)
    for node in (source, target):
        destroy(node)
    target.check(["rm", "-f", DISK])
    say(f"{source.name}: the disk of {GUEST} by gzip, openssl, scp, openssl, gunzip")
    before = router_bytes(router)
    said = source.check(["bash", "-c", _PAPER, "paper", DISK, target.name], timeout=COPY)
    moved = router_bytes(router) - before
    times = [(name, float(at)) for name, at in (line.split() for line in said.splitlines())]
    steps = {name: round(at - times[i][1], 3) for i, (name, at) in enumerate(times[1:])}
    sums = [node.check(["sha256sum", DISK], timeout=COPY).split()[0] for node in (source, target)]
    if sums[0] != sums[1]:
        raise CheckError("what arrived is not the disk")
    seconds = round(sum(steps.values()), 3)
    result.figures = {"seconds": seconds, "router_bytes": moved, "steps": steps, **sizes(source)}
    return result


WAYS: dict[str, Way] = {
    "existing": existing,
    "existing-gcm": partial(existing, kind="existing-gcm"),
    "plain": partial(existing, kind="plain"),
    "paper": paper,
    **{mode: plugin(mode) for mode in ("live", "static", "full")},
}
