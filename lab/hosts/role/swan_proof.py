"""What crosses the router between the hosts, seen by a capture taken there: ESP and IKE only, or plain packets.

The same check judges both ways, so that it is known to be able to fail. In a lab of namespaces the router is an
emulator; there the link's own device in host-a shows what crosses it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import shlex
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lab.errors import CheckError, CommandError
from lab.hosts.provider.base import Node, Provider
from lab.hosts.role.swan import ends
from lab.hosts.spec import Spec, Suite
from lab.verify.capture import reading

_ETHERNET, _IPV4 = 1, b"\x08\x00"
_ESP, _UDP = 50, 17
_IKE, _IKE_NATT = 500, 4500
_PATIENCE = 120.0  # seconds for tcpdump to start or to end
# On the device that leads to an address, on Linux or FreeBSD. Each packet at once (else the last second is lost at
# the end); written as root, not as a user of tcpdump's.
_RECORD = """
if command -v ip >/dev/null; then
    device=$(ip -o route get "$0" | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p')
else
    device=$(route -n get "$0" | sed -n 's/.*interface: //p')
fi
echo $$ >"$1".pid && exec tcpdump -i "$device" -n -U --immediate-mode -s 65549 -B 32768 -Z root -w "$1"
"""
# The number is used once: later it may be another process's.
_END = 'pid=$(cat "$0".pid) && rm "$0".pid && kill -INT $pid'


def count(path: Path, a: set[str], b: set[str]) -> dict[str, int]:
    """Packets of the capture at `path` by kind: "esp", "ike" and "plain" between an address of `a` and one of `b`,
    "other" for the rest. Raises lab.verify.capture.reading.CaptureError."""
    kinds = Counter[str](esp=0, ike=0, plain=0, other=0)
    for captured in reading.read(path):
        kinds[_kind(captured, a, b)] += 1
    return dict(kinds)


def _kind(captured: reading.Captured, a: set[str], b: set[str]) -> str:
    data = captured.data
    if captured.link == _ETHERNET:
        if data[12:14] != _IPV4:
            return "other"
        data = data[14:]
    if len(data) < 20 or data[0] >> 4 != 4:
        return "other"
    source, target = (str(ipaddress.IPv4Address(data[at : at + 4])) for at in (12, 16))
    if not ((source in a and target in b) or (source in b and target in a)):
        return "other"
    if data[9] == _ESP:  # a fragment of ESP is ESP as well
        return "esp"
    inside = data[(data[0] & 15) * 4 :]
    if data[9] == _UDP and not int.from_bytes(data[6:8], "big") & 0x1FFF:
        ports = {int.from_bytes(inside[at : at + 2], "big") for at in (0, 2)}
        if ports == {_IKE}:
            return "ike"
        # RFC 3948: four zero bytes where ESP has its SPI; or one byte that keeps NAT awake
        if ports == {_IKE_NATT}:
            return "ike" if inside[8:12] == bytes(4) or inside[8:] == b"\xff" else "esp"
    return "plain"


@contextlib.contextmanager
def recording(provider: Provider, path: Path) -> Iterator[dict[str, int]]:
    """What crosses the router on host-a's side while the block runs is in the pcap `path` afterwards, and the dict
    then has "packets" and "dropped". Raises CommandError."""
    a, b = ends(provider.abilities.esp)
    nodes = provider.nodes()
    node, towards = (nodes["router"], a.endpoint) if "router" in nodes else (nodes[a.name], b.endpoint)
    # Where there is room; a namespace has only its /run to itself.
    capture = f"{'/var/tmp' if node.name == 'router' else '/run'}/xenlab.pcap"
    recorder = node.popen(
        ["sh", "-c", _RECORD, towards, capture],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    counts: dict[str, int] = {}
    try:
        _hear(node, recorder, "listening on")
        yield counts
        node.check(["sh", "-c", _END, capture])
        said = _hear(node, recorder, "dropped by kernel")
        node.get(capture, path)
        for number, what in re.findall(r"^(\d+) packets? (captured|dropped)", said, re.MULTILINE):
            counts["packets" if what == "captured" else what] = int(number)
    finally:
        with contextlib.suppress(CommandError):  # the node may be gone
            node.run(["sh", "-c", f'[ ! -e "$0".pid ] || {{ {_END}; }}; rm -f "$0"', capture])
        if recorder.poll() is None:
            recorder.terminate()
        recorder.wait()
        assert recorder.stderr is not None
        recorder.stderr.close()


def _hear(node: Node, recorder: subprocess.Popen[bytes], wanted: str) -> str:
    """What tcpdump says, until it says `wanted`."""
    assert recorder.stderr is not None
    alarm = threading.Timer(_PATIENCE, recorder.terminate)
    alarm.start()
    said = ""
    try:
        for line in recorder.stderr:
            said += line.decode(errors="replace")
            if wanted in said:
                return said
    finally:
        alarm.cancel()
    raise CommandError(f"{node.name}: no capture: {'; '.join(said.splitlines()) or 'tcpdump ended'}")


def prove(provider: Provider, spec: Spec) -> dict[str, int]:
    """Sends a few packets between the hosts and counts what crosses the router (as `count`). Raises CheckError
    unless that is ESP and IKE only with IPsec, plain and no ESP without; CommandError."""
    a, b = ends(provider.abilities.esp)
    nodes = provider.nodes()
    with tempfile.TemporaryDirectory(prefix="xenlab-") as folder:
        path = Path(folder, "proof.pcap")
        with recording(provider, path):
            for here, there in ((a, b), (b, a)):
                exchange(nodes[here.name], there.address)
        try:
            counts = count(path, {a.address, a.endpoint}, {b.address, b.endpoint})
        except reading.CaptureError as error:
            raise CheckError(f"what crosses the router cannot be judged: {error}") from error
    if spec.ipsec is Suite.OFF:
        if counts["esp"] or not counts["plain"]:
            raise CheckError(f"IPsec is off, but the router did not see plain packets only: {counts}")
    elif counts["plain"]:
        raise CheckError(f"packets in the clear between the hosts, with IPsec on: {counts}")
    elif not counts["esp"]:
        raise CheckError(f"no ESP crossed the router: {counts}")
    return counts


def exchange(node: Node, address: str) -> None:
    """Packets from `node` to `address` and back, small and large ones. Raises CheckError when none returns."""
    words = ["-n", "-q", "-c", "3", "-i", "0.05", "-W", "20"]
    script = " && ".join(shlex.join(["ping", *words, "-s", size, address]) for size in ("56", "1200"))
    done = node.run(["sh", "-c", script], timeout=120)
    if done.code:
        raise CheckError(f"{node.name} does not reach {address}: {done.error_text}")
