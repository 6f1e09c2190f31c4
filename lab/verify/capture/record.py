"""Record every packet of an interface: `python -m lab.verify.capture.record IFACE FILE`, until SIGTERM or SIGINT.

`xenlab verify-wire` (lab.verify) reads the file. Needs CAP_NET_RAW in the interface's network namespace. The kernel
writes the packets into a ring of memory (TPACKET_V3) that both sides map. A socket's own buffer usually holds 20 ms
of a 200 Mbit/s link; only root of the machine could enlarge it enough (SO_RCVBUFFORCE), not root of a user
namespace. Source: Linux Documentation/networking/packet_mmap.rst, include/uapi/linux/if_packet.h.
"""

from __future__ import annotations

import argparse
import json
import mmap
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lab.verify.capture.reading import CaptureError

_SOL_PACKET, _PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION, _ETH_P_ALL = 263, 5, 6, 10, 3
_TPACKET_V3 = 2
_BLOCK, _BLOCKS = 1 << 20, 128  # bytes of a block, number of blocks of the ring
_RETIRE = 100  # ms after which the kernel hands over a block even if it is not full
_QUIET = 0.3  # seconds without a block after which everything has been handed over
_KERNEL = 0  # block status: the kernel may fill it
_ARPHRD_ETHERNET = (1, 772)  # Ethernet, loopback; anything else here has no link header


def record(interface: str, path: Path) -> dict[str, int]:
    """Write every packet of `interface` to a pcap until SIGTERM or SIGINT; return {"packets", "dropped"}.

    With segmentation offload, packets are captured before they are cut, up to 64 KiB each. Replaces the handlers of
    both signals. Raises CaptureError if the interface cannot be captured from, OSError if the file cannot be
    written.
    """
    ended = float("inf")  # seconds of the monotonic clock

    def end(*_: object) -> None:
        nonlocal ended
        ended = time.monotonic()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # captures nothing until bind
        tap.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        tap.setsockopt(
            _SOL_PACKET, _PACKET_RX_RING, struct.pack("=7I", _BLOCK, _BLOCKS, _BLOCK, _BLOCKS, _RETIRE, 0, 0)
        )
        ring = mmap.mmap(tap.fileno(), _BLOCK * _BLOCKS)
        tap.bind((interface, _ETH_P_ALL))
        link = 1 if tap.getsockname()[3] in _ARPHRD_ETHERNET else 101
    except OSError as error:
        raise CaptureError(f"cannot record {interface}: {error.strerror}") from error
    packets = 0
    with tap, ring, memoryview(ring) as memory, path.open("wb", buffering=1 << 20) as out:
        out.write(struct.pack("=LHHlLLL", 0xA1B23C4D, 2, 4, 0, 0, 1 << 17, link))
        out.flush()
        print("recording", flush=True)
        at = 0
        while time.monotonic() < ended + 2:
            if struct.unpack_from("=I", ring, at + 8)[0] == _KERNEL:
                # After the signal, no new block means that all packets from before it have been written.
                if not select.select([tap], [], [], _QUIET)[0] and time.monotonic() >= ended:
                    break
                continue
            for seconds, nanoseconds, start, length in _packets(ring, at):
                out.write(struct.pack("=LLLL", seconds, nanoseconds, length, length))
                out.write(memory[start : start + length])
                packets += 1
            struct.pack_into("=I", ring, at + 8, _KERNEL)
            at = (at + _BLOCK) % len(ring)
        _, dropped = struct.unpack("=LL", tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    return {"packets": packets, "dropped": dropped}


def _packets(ring: mmap.mmap, block: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (seconds, nanoseconds, offset in the ring, bytes) of each packet of the block at `block`."""
    count, first = struct.unpack_from("=II", ring, block + 12)
    at = block + first
    for _ in range(count):
        step, seconds, nanoseconds, length, _, _, data = struct.unpack_from("=6IH", ring, at)
        yield seconds, nanoseconds, at + data, length
        at += step


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
