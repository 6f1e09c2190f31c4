"""TCP as a long fat link needs it: options, what the kernel measured, how many connections.

How many: a connection's window is bounded by the kernel's buffers, and slow start doubles from ten
segments per round trip, so a long path needs several connections to fill soon; and at the far side each
connection is a thread that unpacks and writes, so even a short path wants two.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_STREAMS = 32
_TCP_NOTSENT_LOWAT = 25
#: Bytes that may wait in the kernel unsent: enough to keep a connection busy, too few to hide the queue. And where
#: all that comes later waits for them at the far side, while this connection may have slowed down. And where little
#: is left for many connections, of which a slow one is not to take much.
UNSENT, UNSENT_IN_ORDER, UNSENT_LAST = 512 << 10, 128 << 10, 32 << 10
_RTT_STREAMS = ((0.090, 32), (0.040, 16), (0.010, 8), (0.002, 4))
_FEW = 2
#: Connections to begin with where a side has a single core, which their threads would keep from the rest.
_ONE_CORE = 4
#: Share of segments sent again, and RTT over least RTT, that together no queue explains.
_LOSS = 0.003
_NO_QUEUE = 1.15
#: Segments it takes to tell.
_SAMPLE = 500


def measure(sock: socket.socket) -> tuple[float, int]:
    """(RTT in seconds, segment size in bytes) as the kernel measured them (Linux, struct tcp_info)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    (mss,) = struct.unpack_from("=I", info, 16)
    (rtt,) = struct.unpack_from("=I", info, 68)
    return rtt / 1e6, mss


def choose_streams(rtt: float, cores: int) -> int:
    """Connections to begin with at `rtt` seconds; `cores` of the side that has fewer."""
    count = next((count for floor, count in _RTT_STREAMS if rtt >= floor), _FEW)
    return min(count, _ONE_CORE) if cores < 2 else count


def more_streams(now: int, rate: float, rtt: float, window: int) -> int:
    """Connections to add to `now` when together they move `rate` bytes/s over `rtt` seconds, and `window`
    bytes may be under way on each: as many again when more than half of what they could hold is needed."""
    if rate * rtt < 0.5 * now * window:
        return 0
    return min(now, MAX_STREAMS - now)


def largest_window(path: Path = Path("/proc/sys/net/ipv4/tcp_wmem")) -> int:
    """Bytes that one connection may have under way: half of the largest send buffer, whose other half is the
    kernel's book-keeping (tcp(7))."""
    try:
        return int(path.read_text().split()[2]) // 2
    except (OSError, ValueError, IndexError):
        return 2 << 20


#: Congestion control to begin with: it fills a clean link evenly, and backs off before a short queue drops
#: much (BBR keeps 5 % of its packets dropped there).
CLEAN = "cubic"
#: Congestion control for a path that loses packets without being congested: it does not take every loss for
#: congestion.
LOSSY = "bbr"


@dataclass(frozen=True)
class Counters:
    """Of a connection so far: segments `sent`, of these `again`; `rtt` now and the least seen, seconds."""

    sent: int
    retransmitted: int
    rtt: float
    min_rtt: float


def is_lossy(before: Sequence[Counters], now: Sequence[Counters]) -> bool:
    """Whether the path loses packets that no queue dropped, from two looks at the same connections: many
    are sent again although the RTT said both times that the queue is short. (Once does not tell: connections that
    have just lost packets to a full queue all give way, and leave it short.)"""
    sent = sum(a.sent - b.sent for b, a in zip(before, now, strict=True))
    retransmitted = sum(a.retransmitted - b.retransmitted for b, a in zip(before, now, strict=True))
    if sent < _SAMPLE or retransmitted < _LOSS * sent:
        return False
    waits = sorted(max(b.rtt, a.rtt) / a.min_rtt for b, a in zip(before, now, strict=True) if a.min_rtt > 0)
    return bool(waits) and waits[len(waits) // 2] < _NO_QUEUE


def counters(sock: socket.socket) -> Counters:
    """How the connection fares (Linux, struct tcp_info). Raises OSError."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 152)
    (rtt,) = struct.unpack_from("=I", info, 68)
    (retransmitted,) = struct.unpack_from("=I", info, 100)
    (sent,) = struct.unpack_from("=I", info, 136)
    (min_rtt,) = struct.unpack_from("=I", info, 148)
    return Counters(sent, retransmitted, rtt / 1e6, min_rtt / 1e6)


def set_congestion(sock: socket.socket, name: str) -> None:
    """Change the congestion control, also while it is in use; left as it is if this host does not allow it."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())


def set_unsent(sock: socket.socket, count: int) -> None:
    """Let `count` bytes wait in the kernel unsent, if this host knows of such a limit."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, count)


def tune(sock: socket.socket, dead_after: float, congestion: str | None, unsent: int = UNSENT) -> None:
    """Set what each data connection needs. `dead_after` seconds without an acknowledgement it is lost; `unsent`
    bytes may wait in the kernel. A congestion control that this host does not allow is left out."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(dead_after * 1000))
    set_unsent(sock, unsent)
    if congestion:
        set_congestion(sock, congestion)


def congestion_of(sock: socket.socket) -> str:
    """The congestion control in force."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
