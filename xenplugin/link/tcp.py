"""TCP for long fat links: socket options, what the kernel measured, how many connections to use.

A connection's window is limited by the kernel's buffers, and slow start doubles from ten segments per round trip,
so a long path needs several connections to be filled soon. At the far side each connection is a thread that
receives and opens frames, so even a short path uses two.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xenplugin.errors import ConfigError

MAX_STREAMS = 32
#: Largest segments that are tried one after the other, in bytes; 0: the path decides. A path that has a smaller MTU
#: than its ends know, and drops what is larger in silence, takes at least IPv6's least MTU, or IPv4's usual one.
SEGMENTS = (0, 1220, 536)
_TCP_NOTSENT_LOWAT = 25
#: Bytes that may wait unsent in the kernel for one connection. UNSENT: enough to keep it busy, too few to hide the
#: queue. UNSENT_IN_ORDER: for a stream, because all later bytes wait at the far side for those of a slow
#: connection. UNSENT_LAST: when little is left to send, so that a slow connection does not take much of it.
UNSENT, UNSENT_IN_ORDER, UNSENT_LAST = 512 << 10, 128 << 10, 32 << 10
#: (least RTT in seconds, number of connections), and the number below all of these.
_RTT_STREAMS = ((0.090, 32), (0.040, 16), (0.010, 8), (0.002, 4))
_FEW = 2
#: Most connections to begin with if a side has a single core, which their threads take from the other work.
_ONE_CORE = 4
#: A path is lossy if more than this share of segments is retransmitted while RTT / least RTT is below this.
_LOSS = 0.003
_NO_QUEUE = 1.15
#: Number of segments that are needed to decide.
_SAMPLE = 500


def measure(sock: socket.socket) -> tuple[float, int]:
    """Return (RTT in seconds, segment size in bytes) as the kernel measured them (Linux, struct tcp_info)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    (mss,) = struct.unpack_from("=I", info, 16)
    (rtt,) = struct.unpack_from("=I", info, 68)
    return rtt / 1e6, mss


def connect(address: str, port: int, timeout: float, segment: int) -> socket.socket:
    """Return a connection; `timeout` in seconds. `segment`: the largest segment in bytes, in both directions; 0:
    the path decides. Raises OSError."""
    failure = OSError(f"{address} has no address")
    for family, kind, protocol, _, where in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            if segment:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
            sock.settimeout(timeout)
            sock.connect(where)
            return sock
        except OSError as error:
            failure = error
            sock.close()
    raise failure


def acknowledged(sock: socket.socket) -> int:
    """Return the bytes that the far host's kernel has acknowledged (Linux 4.1, struct tcp_info). Raises OSError."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
    (count,) = struct.unpack_from("=Q", info, 120)
    return max(0, int(count) - 1)  # the kernel counts the SYN


def arrived(sock: socket.socket) -> int:
    """Return the bytes that have come to the far host's kernel: those acknowledged, and those after a gap (SACK).
    After a loss the former stand still for some round trips, then leap; these grow as the path carries them. Raises
    OSError."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
    mss, _, _, after_gap = struct.unpack_from("=IIII", info, 16)
    (count,) = struct.unpack_from("=Q", info, 120)
    return max(0, int(count - 1 + mss * after_gap))


def checksum_errors(path: Path = Path("/proc/net/snmp")) -> int:
    """Return the number of packets with a wrong TCP checksum that have come to this host; 0 if that is unknown."""
    try:
        names, values = (line.split() for line in path.read_text().splitlines() if line.startswith("Tcp:"))
        return int(values[names.index("InCsumErrors")])
    except (OSError, ValueError, IndexError):
        return 0


def timeouts(sock: socket.socket) -> int:
    """Return the retransmission time-outs in a row (Linux, struct tcp_info). Raises OSError."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[2]


def choose_streams(rtt: float, cores: int) -> int:
    """Return the number of connections to begin with at `rtt` seconds; `cores` are those of the side with fewer."""
    count = next((count for floor, count in _RTT_STREAMS if rtt >= floor), _FEW)
    return min(count, _ONE_CORE) if cores < 2 else count


def more_streams(now: int, rate: float, rtt: float, window: int) -> int:
    """Return how many connections to add to `now` connections that move `rate` bytes/s together at `rtt` seconds,
    with at most `window` bytes in flight on each: as many again if more than half of their windows is needed."""
    if rate * rtt < 0.5 * now * window:
        return 0
    return min(now, MAX_STREAMS - now)


def largest_window(path: Path = Path("/proc/sys/net/ipv4/tcp_wmem")) -> int:
    """Return the bytes that one connection may have in flight: half of the largest send buffer, because the kernel
    uses the other half for its own structures (tcp(7))."""
    try:
        return int(path.read_text().split()[2]) // 2
    except (OSError, ValueError, IndexError):
        return 2 << 20


#: Congestion control to begin with: it shares a clean link evenly, and backs off before a short queue drops much
#: (with BBR 5 % of the packets are dropped there).
CLEAN = "cubic"
#: Congestion control for a path that loses packets without congestion: it does not treat every loss as
#: congestion.
LOSSY = "bbr"


@dataclass(frozen=True)
class Counters:
    """Of a connection so far: segments sent and retransmitted; the present and the least RTT, in seconds."""

    sent: int
    retransmitted: int
    rtt: float
    min_rtt: float


def is_lossy(before: Sequence[Counters], now: Sequence[Counters]) -> bool:
    """Return whether the path loses packets that no queue dropped, from the counters of the same connections at two
    times: many segments were retransmitted although the RTT showed a short queue both times. (One time is not
    enough: connections that have just lost packets to a full queue all slow down, which leaves it short.)"""
    sent = sum(a.sent - b.sent for b, a in zip(before, now, strict=True))
    retransmitted = sum(a.retransmitted - b.retransmitted for b, a in zip(before, now, strict=True))
    if sent < _SAMPLE or retransmitted < _LOSS * sent:
        return False
    waits = sorted(max(b.rtt, a.rtt) / a.min_rtt for b, a in zip(before, now, strict=True) if a.min_rtt > 0)
    return bool(waits) and waits[len(waits) // 2] < _NO_QUEUE


def counters(sock: socket.socket) -> Counters:
    """Read the counters of a connection (Linux, struct tcp_info). Raises OSError."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 152)
    (rtt,) = struct.unpack_from("=I", info, 68)
    (retransmitted,) = struct.unpack_from("=I", info, 100)
    (sent,) = struct.unpack_from("=I", info, 136)
    (min_rtt,) = struct.unpack_from("=I", info, 148)
    return Counters(sent, retransmitted, rtt / 1e6, min_rtt / 1e6)


def set_congestion(sock: socket.socket, name: str) -> None:
    """Set the congestion control of an open connection; do nothing if this host does not allow it."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())


def check_congestion(name: str) -> None:
    """Raise ConfigError unless connections of this process can have the congestion control `name`. Asks the kernel
    for it as a connection does: for root it then loads the module."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
        except PermissionError:
            allowed = _names("tcp_allowed_congestion_control")
            raise ConfigError(
                f"only root may use the TCP congestion control {name} here", hint=f"use one of: {allowed}"
            ) from None
        except OSError:
            known = _names("tcp_available_congestion_control")
            raise ConfigError(
                f"this host's kernel has no TCP congestion control {name}", hint=f"use one of: {known}"
            ) from None


def _names(setting: str) -> str:
    try:
        return ", ".join(sorted(Path("/proc/sys/net/ipv4", setting).read_text().split()))
    except OSError:
        return "cubic"


def set_unsent(sock: socket.socket, count: int) -> None:
    """Limit the bytes that wait unsent in the kernel to `count`, if this host supports it."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, count)


def drop_unsent(sock: socket.socket) -> None:
    """Have the kernel drop what it has not sent when the connection is closed (socket(7), SO_LINGER)."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def tune(sock: socket.socket, dead_after: float, congestion: str | None, unsent: int = UNSENT) -> None:
    """Set the options of a data connection: it is lost after `dead_after` seconds without an acknowledgement, and
    `unsent` bytes may wait in the kernel. A congestion control that this host does not allow is ignored."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(dead_after * 1000))
    set_unsent(sock, unsent)
    if congestion:
        set_congestion(sock, congestion)


def congestion_of(sock: socket.socket) -> str:
    """Return the name of the congestion control in use."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
