"""TCP as a long fat link needs it: options, what the kernel measured, how many connections.

How many: a connection's window is bounded by the kernel's buffers, and slow start doubles from ten
segments per round trip, so a long path needs several connections to fill soon; and at the far side each
connection is a thread that unpacks and writes, so even a short path wants two.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

MAX_STREAMS = 32
_TCP_NOTSENT_LOWAT = 25
#: Bytes that may wait in the kernel unsent: enough to keep a connection busy, too few to hide the queue.
_NOTSENT = 128 << 10
_RTT_STREAMS = ((0.090, 16), (0.040, 12), (0.010, 8), (0.002, 4))
_FEW = 2
#: RTT in seconds from which on a path is long.
_LONG = 0.010
#: Share of retransmissions that no queue explains, and the segments it takes to tell.
_LOSSY = 0.003
_SAMPLE = 500


def measure(sock: socket.socket) -> tuple[float, int]:
    """(RTT in seconds, segment size in bytes) as the kernel measured them (Linux, struct tcp_info)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    (mss,) = struct.unpack_from("=I", info, 16)
    (rtt,) = struct.unpack_from("=I", info, 68)
    return rtt / 1e6, mss


def choose_streams(rtt: float) -> int:
    """Connections to begin with at `rtt` seconds."""
    return next((count for floor, count in _RTT_STREAMS if rtt >= floor), _FEW)


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


def choose_congestion(rtt: float) -> str | None:
    """Congestion control to begin with at `rtt` seconds: CUBIC on a long path, which fills a clean link evenly
    also on a busy host (BBR's estimate can stay low for many round trips there); None: the system's."""
    return "cubic" if rtt >= _LONG else None


def is_lossy(sent: int, again: int) -> bool:
    """Whether `again` retransmitted of `sent` segments are more than a full queue explains. On such a path
    CUBIC takes every loss for congestion, and BBR does not."""
    return sent >= _SAMPLE and again > _LOSSY * sent


def losses(sock: socket.socket) -> tuple[int, int]:
    """(segments sent, of these again) on a connection so far (Linux, struct tcp_info)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
    (again,) = struct.unpack_from("=I", info, 100)
    (sent,) = struct.unpack_from("=I", info, 136)
    return sent, again


def set_congestion(sock: socket.socket, name: str) -> None:
    """Change the congestion control, also while it is in use; left as it is if this host does not allow it."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())


def tune(sock: socket.socket, dead_after: float, congestion: str | None) -> None:
    """Set what each data connection needs. `dead_after` seconds without an acknowledgement it is lost.
    A congestion control that this host does not allow is left out."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(dead_after * 1000))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _NOTSENT)
    if congestion:
        set_congestion(sock, congestion)


def congestion_of(sock: socket.socket) -> str:
    """The congestion control in force."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
