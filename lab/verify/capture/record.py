"""Records every packet of an interface: `python -m lab.verify.capture.record IFACE FILE` (root; until SIGTERM or
SIGINT).

What is in it is read by `xenlab verify-wire` (lab.verify).
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import struct
import sys
import time
from pathlib import Path

from lab.verify.capture.reading import CaptureError

_SOL_PACKET, _PACKET_STATISTICS, _SO_RCVBUFFORCE, _ETH_P_ALL = 263, 6, 33, 3
_ARPHRD_ETHERNET = (1, 772)  # Ethernet, loopback; anything else here has no link header


def record(interface: str, path: Path) -> dict[str, int]:
    """Write every packet of `interface` to a pcap until SIGTERM or SIGINT; {"packets", "dropped"}.

    Segments that the kernel has not cut yet are written as they are, up to 64 KiB each.
    """
    ended = float("inf")  # seconds of the monotonic clock

    def end(*_: object) -> None:
        nonlocal ended
        ended = time.monotonic()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # nothing before bind
        tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 26)
        tap.bind((interface, _ETH_P_ALL))
        link = 1 if tap.getsockname()[3] in _ARPHRD_ETHERNET else 101
    except OSError as error:
        raise CaptureError(f"cannot record {interface}: {error.strerror}") from error
    tap.settimeout(0.2)
    room = bytearray(1 << 17)
    view = memoryview(room)
    packets = 0
    with tap, path.open("wb", buffering=1 << 20) as out:
        out.write(struct.pack("=LHHlLLL", 0xA1B23C4D, 2, 4, 0, 0, 1 << 17, link))
        out.flush()
        print("recording", flush=True)
        while time.monotonic() < ended + 2:
            try:
                length = tap.recv_into(room)
            except TimeoutError:  # silence: everything from before the signal is written
                if time.monotonic() >= ended:
                    break
                continue
            seconds, nanoseconds = divmod(time.time_ns(), 10**9)
            out.write(struct.pack("=LLLL", seconds, nanoseconds, length, length))
            out.write(view[:length])
            packets += 1
        _, dropped = struct.unpack("=LL", tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    return {"packets": packets, "dropped": dropped}


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lab.verify.capture.record", description=__doc__.split("\n", 1)[0]
    )
    parser.add_argument("interface")
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    try:
        print(json.dumps(record(options.interface, options.file)))
    except (CaptureError, OSError) as error:
        print(f"capture: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main())
