"""Count the wire packets and bytes of one read from a TUN device, and cut it at packet borders.

A read is a 10-byte virtio-net header (whether it is a GSO packet, how large its segments are, where TCP starts),
then an IP packet that may carry many segments. A real link would see each segment with headers of its own, so
that is what is counted, and what can be lost: `cut` takes a run of segments out of a GSO packet, as a smaller
one. Source: virtio 1.1 section 5.1.6; Linux tcp_gso_segment (sequence number, flags and ID of each segment).
"""

from __future__ import annotations

import struct

VNET = 10  # bytes of the virtio-net header
_GSO_NONE, _GSO_ECN = 0, 0x80
_FIN, _PSH, _CWR = 0x01, 0x08, 0x80


def measure(frame: bytes) -> tuple[int, int]:
    """Return (packets, bytes) on the wire of a frame read from TUN; bytes include all IP and TCP headers."""
    length = len(frame) - VNET
    if not frame[1]:
        return 1, length
    headers, size = _layout(frame)
    packets = -(-(length - headers) // size) or 1
    return packets, length + (packets - 1) * headers


def segment_bytes(frame: bytes) -> int:
    """Return the wire bytes of each packet of a frame except the last one."""
    if not frame[1]:
        return len(frame) - VNET
    return sum(_layout(frame))


def cut(frame: bytes, first: int, end: int) -> bytes:
    """Return a frame of only the packets first..end-1 of `frame`; the frame itself if that is all of them."""
    packets, _ = measure(frame)
    if first == 0 and end == packets:
        return frame
    headers, size = _layout(frame)
    tcp = headers - (frame[VNET + _tcp_offset(frame) + 12] >> 4) * 4
    old = len(frame) - VNET - headers
    data = frame[VNET + headers + first * size : VNET + headers + min(end * size, old)]
    head = bytearray(frame[: VNET + headers])

    if end - first == 1:
        head[1] = _GSO_NONE
        head[4:6] = b"\0\0"
    elif first:
        head[1] &= ~_GSO_ECN & 0xFF
    _set_ip_length(head, tcp, len(data) + headers, first)
    at = VNET + tcp
    sequence = int.from_bytes(head[at + 4 : at + 8], "big")
    head[at + 4 : at + 8] = ((sequence + first * size) & 0xFFFFFFFF).to_bytes(4, "big")
    if end < packets:
        head[at + 13] &= ~(_FIN | _PSH) & 0xFF
    if first:
        head[at + 13] &= ~_CWR & 0xFF
    # The checksum field holds the sum of the pseudo header, whose length has changed; the kernel adds the rest.
    offset = at + 16
    total = int.from_bytes(head[offset : offset + 2], "big") + (old - len(data) ^ 0xFFFF)
    head[offset : offset + 2] = _fold(total).to_bytes(2, "big")
    return bytes(head) + data


def _tcp_offset(frame: bytes) -> int:
    return int(struct.unpack_from("=H", frame, 6)[0])


def _layout(frame: bytes) -> tuple[int, int]:
    """Return (bytes of IP and TCP headers, bytes of data in each segment). hdr_len is only a hint: not used."""
    size, tcp = struct.unpack_from("=HH", frame, 4)
    return tcp + (frame[VNET + tcp + 12] >> 4) * 4, size


def _set_ip_length(head: bytearray, tcp: int, length: int, first: int) -> None:
    if head[VNET] >> 4 == 6:
        head[VNET + 4 : VNET + 6] = (length - 40).to_bytes(2, "big")
        return
    head[VNET + 2 : VNET + 4] = length.to_bytes(2, "big")
    identifier = int.from_bytes(head[VNET + 4 : VNET + 6], "big")
    head[VNET + 4 : VNET + 6] = ((identifier + first) & 0xFFFF).to_bytes(2, "big")
    head[VNET + 10 : VNET + 12] = b"\0\0"
    words = struct.unpack_from(f">{tcp // 2}H", head, VNET)
    head[VNET + 10 : VNET + 12] = (_fold(sum(words)) ^ 0xFFFF).to_bytes(2, "big")


def _fold(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
