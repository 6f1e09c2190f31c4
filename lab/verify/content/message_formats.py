"""Checks of the format of messages that are in the clear by design: ARP, neighbour discovery, ping, ICMP errors,
IKE.

A port or a type alone is not enough: a message whose format is not exactly right is not recognised.
"""

from __future__ import annotations

import struct
from socket import AF_INET, AF_INET6, inet_ntop

_ARP = bytes((0, 1, 8, 0, 6, 4, 0))  # Ethernet, IPv4, their address lengths, and the first byte of the operation
_ARP_BEGINS = 32  # bytes of a frame within which ARP begins, whatever the link headers
_ARP_LENGTH = 28
_ICMP_HEAD = 8
_PINGS = {4: (0, 8), 6: (128, 129)}  # IP version: types of the answer and the request
_COUNTED = bytes(range(256)) * 256  # the pattern that ping fills its packets with
_ERRORS = {4: (3, 5, 11, 12), 6: (1, 2, 3, 4)}
_ERROR = {4: 576 - 20, 6: 1280 - 40}  # bytes of an ICMP error at most, which limits the quote (RFC 1812, RFC 4443)
#: type: bytes before its options, and the bytes that must be zero (RFC 2710, RFC 3810, RFC 4861).
_NEIGHBOURS = {
    **{kind: (24, range(6, 8)) for kind in (130, 131, 132)},
    133: (8, range(4, 8)),
    134: (16, range(0)),
    135: (24, range(4, 8)),
    136: (24, range(5, 8)),
    143: (8, range(4, 6)),
}
_OPTIONS = range(133, 137)  # types that have options
_NEIGHBOURS_MOST = 256  # bytes
_MEMBER = 20  # bytes of a group in a multicast listener report, without sources
_TCP, _ESP = 6, 50
ESP_HEAD = 16  # bytes: SPI, sequence number, and 8 bytes of IV (with GCM, a counter)
_IKE_HEAD = 28
#: version: known exchanges, and known flags.
_IKE = {0x10: ({*range(1, 7), 32, 33}, 0x07), 0x20: ({*range(34, 45)}, 0x38)}
_IKE_SEALED = {46: 4 + 8, 53: 8 + 8}  # encrypted payloads: bytes of their header and 8 bytes of IV


def is_arp(frame: bytes) -> bool:
    """Return whether a frame ends with ARP for IPv4, padded with zeros only."""
    at = frame.find(_ARP, 0, _ARP_BEGINS + len(_ARP))
    return at >= 0 and not frame[at + _ARP_LENGTH :].strip(b"\0")


def is_ping(message: bytes, version: int) -> bool:
    """Return whether an ICMP message (of IP's `version`) is a request or an answer of ping, filled with a time or
    nothing and then ping's counting pattern."""
    if len(message) < _ICMP_HEAD or message[0] not in _PINGS[version] or message[1]:
        return False
    data = message[_ICMP_HEAD:]
    return any(data[at:] == _COUNTED[at : len(data)] and _is_time(data[:at]) for at in (0, 8, 16))


def _is_time(data: bytes) -> bool:
    """Return whether `data` is empty or seconds and micro- or (FreeBSD) nanoseconds. Text is refused: its bytes are
    too large a number."""
    if len(data) == 16:
        seconds, part = struct.unpack("<QQ", data)
        return bool(seconds < 1 << 34 and part < 10**6)
    if len(data) == 8:
        return bool(struct.unpack("<LL", data)[1] < 10**6 or struct.unpack(">LL", data)[1] < 10**9)
    return not data


def is_icmp_error(message: bytes, version: int, target: str) -> bool:
    """Return whether an ICMP message is an error that quotes a packet sent by its receiver, `target`, and no more
    of the packet than allowed."""
    quote = message[_ICMP_HEAD:]
    kind, begin, end = (AF_INET, 12, 16) if version == 4 else (AF_INET6, 8, 24)
    if not end + 4 <= len(quote) <= _ERROR[version] - _ICMP_HEAD or message[0] not in _ERRORS[version]:
        return False
    return quote[0] >> 4 == version and inet_ntop(kind, quote[begin:end]) == target


def error_head(message: bytes) -> int:
    """Return the number of bytes of an ICMP error up to the content of the packet that it quotes."""
    quote = message[_ICMP_HEAD:]
    six = quote[0] >> 4 == 6
    at = 40 if six else (quote[0] & 15) * 4
    protocol = quote[6 if six else 9]
    if protocol == _TCP:
        at += (quote[at + 12] >> 4) * 4 if len(quote) > at + 12 else 20
    else:
        at += ESP_HEAD if protocol == _ESP else 8
    return min(_ICMP_HEAD + at, len(message))


def is_neighbour_discovery(message: bytes) -> bool:
    """Return whether an ICMPv6 message is neighbour discovery or multicast listener discovery."""
    if not message or message[0] not in _NEIGHBOURS:
        return False
    kind = message[0]
    at, zeros = _NEIGHBOURS[kind]
    if not at <= len(message) <= _NEIGHBOURS_MOST or message[1] or any(message[place] for place in zeros):
        return False
    if kind == 143:
        return len(message) == at + _MEMBER * int.from_bytes(message[6:8], "big")
    while kind in _OPTIONS and at + 1 < len(message) and message[at + 1]:
        at += message[at + 1] * 8
    return len(message) == at or (kind == 130 and len(message) == at + 4)


def is_ike(message: bytes) -> bool:
    """Return whether a UDP payload is exactly one IKE message (RFC 7296, section 3.1; RFC 2408)."""
    if len(message) < _IKE_HEAD or not any(message[:8]):
        return False
    exchanges, flags = _IKE.get(message[17], (set(), 0))
    fits = message[18] in exchanges and not message[19] & ~flags
    return fits and int.from_bytes(message[24:_IKE_HEAD], "big") == len(message)


def ike_head(message: bytes) -> int | None:
    """Return the number of bytes of an IKE message up to its encrypted part; None if nothing is encrypted."""
    if message[17] == 0x10:
        return _IKE_HEAD if message[19] & 1 else None
    sealed = _IKE_SEALED.get(message[16])
    return None if sealed is None else min(_IKE_HEAD + sealed, len(message))
