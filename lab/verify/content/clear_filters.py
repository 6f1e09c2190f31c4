"""Filters that take out of a stream or packet what its protocol sends in the clear by design. What is left must
look like noise.

Each filter follows the protocol's framing. It takes nothing out any more once the framing is invalid (`broken`),
nor after a hole in which a frame may have begun (`lost`). The clear bytes are counted here; the whole stream is
searched for canaries elsewhere.
"""

from __future__ import annotations

import struct
from typing import Protocol

from lab.verify.content.message_formats import ESP_HEAD, error_head, ike_head
from xenplugin.wire.preamble import LENGTH as PREAMBLE
from xenplugin.wire.preamble import MAGIC

_LENGTH = struct.Struct(">L")
_FRAMES = range(17, (1 << 20) + (1 << 14) + 16 + 1)  # docs/wire-format.md, section 5
_SSH = b"SSH-2.0-"
_SSH_PACKETS = range(2, 1 << 18)
_BANNER = 255  # bytes (RFC 4253, section 4.2)
_NEWKEYS = 21
_EXCHANGE = frozenset({*range(1, 5), 20, _NEWKEYS, *range(30, 50)})  # RFC 4253, sections 7 and 12
_GCM_TAG = 16
_MAX_OPENING = 1 << 15  # bytes of a key exchange that may be in the clear, per direction
_MAX_QUOTED = 1 << 12  # bytes quoted by ICMP errors that may be clear, because they may be of a key exchange


def begins_sealed(data: bytes) -> bool:
    """Return whether a stream with this beginning is the sending direction of a sealed stream of the plugin."""
    return data.startswith(MAGIC)


def begins_ssh(data: bytes) -> bool:
    """Return whether a stream begins as ssh does (RFC 4253, section 4.2)."""
    return data.startswith(_SSH)


class Filter(Protocol):
    """Takes the clear bytes out of one flow. `clear`: bytes taken out so far."""

    clear: int
    broken: bool
    lost: bool

    def sealed(self, data: bytes) -> bytes:
        """Return the part of the next bytes (without a stream: of the next packet) that must look like noise."""
        ...

    def skip(self, count: int) -> None:
        """Note that the next `count` bytes of the stream are missing."""


class _Unframed:
    """Base of filters for packets, and for streams without known framing."""

    broken = False
    lost = False

    def skip(self, count: int) -> None:
        pass


class NothingClear(_Unframed):
    """Filter that takes nothing out: all bytes must look like noise."""

    clear = 0

    def sealed(self, data: bytes) -> bytes:
        return data


class AllClear(_Unframed):
    """Filter for messages that are in the clear by design and whose format has been checked
    (lab.verify.content.message_formats): ARP, neighbour discovery, ping."""

    def __init__(self) -> None:
        self.clear = 0

    def sealed(self, data: bytes) -> bytes:
        self.clear += len(data)
        return b""


class EspFilter(_Unframed):
    """Filter for ESP packets (RFC 4303): takes the header out."""

    def __init__(self) -> None:
        self.clear = 0

    def sealed(self, data: bytes) -> bytes:
        self.clear += min(len(data), ESP_HEAD)
        return data[ESP_HEAD:]


class _WithAllowance(_Unframed):
    """Base of filters for packets whose content may be clear, too, until `allowance` bytes of it have been seen."""

    def __init__(self, allowance: int) -> None:
        self.clear = 0
        self._allowance = allowance

    def _part(self, data: bytes, head: int, may_be_clear: bool) -> bytes:
        """Take out the first `head` bytes and, if `may_be_clear`, as much of the rest as the allowance permits."""
        if may_be_clear:
            allowed = min(self._allowance, len(data) - head)
            self._allowance -= allowed
            head += allowed
        self.clear += head
        return data[head:]


class IkeFilter(_WithAllowance):
    """Filter for IKE messages: takes out the headers, and the messages that are not encrypted: the first
    exchange."""

    def __init__(self) -> None:
        super().__init__(_MAX_OPENING)

    def sealed(self, data: bytes) -> bytes:
        mark = 0 if any(data[:4]) else 4  # in UDP 4500 (RFC 3948)
        head = ike_head(data[mark:]) if len(data) > 1 else 1
        return self._part(data, mark + (head or 0), head is None)


class IcmpErrorFilter(_WithAllowance):
    """Filter for ICMP errors: takes out all headers, and a limited amount of the content of the quoted packets."""

    def __init__(self) -> None:
        super().__init__(_MAX_QUOTED)

    def sealed(self, data: bytes) -> bytes:
        return self._part(data, error_head(data), True)


class _Framed:
    """Base of filters for streams of frames with a length in front of each. Subclasses parse the heads."""

    def __init__(self) -> None:
        self.clear = 0
        self.broken = False
        self.lost = False
        self._skip = 0  # next bytes that are in the clear
        self._body = 0  # bytes after them that are sealed
        self._head = bytearray()
        self._wanted = _LENGTH.size  # bytes of the head

    def sealed(self, data: bytes) -> bytes:
        out = []
        at = 0
        while at < len(data):
            if self.broken or self.lost:
                out.append(data[at:])
                break
            if self._skip:
                taken = min(self._skip, len(data) - at)
                self._skip -= taken
                self.clear += taken
            elif self._body:
                taken = min(self._body, len(data) - at)
                self._body -= taken
                out.append(data[at : at + taken])
            else:
                taken = min(self._wanted - len(self._head), len(data) - at)
                self._head += data[at : at + taken]
                if len(self._head) == self._wanted:
                    head = bytes(self._head)
                    self._head.clear()
                    out.append(self._begin(head))
            at += taken
        return b"".join(out)

    def skip(self, count: int) -> None:
        if count <= self._skip:
            self._skip -= count
        elif not self._skip and count <= self._body:
            self._body -= count
        else:
            self.lost = True

    def _begin(self, head: bytes) -> bytes:
        """Parse the head of a frame: set the sizes of what follows, and return the sealed part of the head."""
        raise NotImplementedError

    def _break(self, head: bytes) -> bytes:
        self.broken = True
        return head


class SealedStreamFilter(_Framed):
    """Filter for the plugin's stream (docs/wire-format.md): takes out the preamble, which only the sending
    direction has, and the length in front of each frame. `answer`: this is the other direction."""

    def __init__(self, answer: bool) -> None:
        super().__init__()
        self._skip = 0 if answer else PREAMBLE

    def _begin(self, head: bytes) -> bytes:
        (self._body,) = _LENGTH.unpack(head)
        if self._body not in _FRAMES:
            return self._break(head)
        self.clear += len(head)
        return b""


class SshFilter(_Framed):
    """Filter for ssh: takes out the banner and the key exchange up to NEWKEYS, both of limited size, and after
    that, with AES-GCM, the length in front of each packet (RFC 5647). ChaCha20-Poly1305, OpenSSH's first choice,
    encrypts the lengths."""

    def __init__(self) -> None:
        super().__init__()
        self._wanted = 1
        self._state = "banner"

    def _begin(self, head: bytes) -> bytes:
        if self._state == "banner":
            if head == b"\n":
                self._state, self._wanted = "exchange", _LENGTH.size + 2
            elif self.clear + len(head) >= _BANNER:
                return self._break(head)
        elif self._state == "exchange":  # packet length, padding length, message number
            length = int(_LENGTH.unpack_from(head)[0])
            fits = length in _SSH_PACKETS and self.clear + _LENGTH.size + length <= _MAX_OPENING
            if not fits or head[5] not in _EXCHANGE:
                return self._break(head)
            self._skip = length - 2
            if head[5] == _NEWKEYS:
                self._state, self._wanted = "first", _LENGTH.size
        else:
            length = int(_LENGTH.unpack(head)[0])
            framed = length in _SSH_PACKETS and length % 16 == 0
            if self._state == "first" and not framed:
                self._state = "hidden"
                self._body = 1 << 62  # to the end of the stream
                return head
            if not framed:
                return self._break(head)
            self._state, self._body = "framed", length + _GCM_TAG
        self.clear += len(head)
        return b""
