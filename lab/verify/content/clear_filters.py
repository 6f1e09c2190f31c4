"""What a protocol sends in the clear by design, taken out of its bytes: what is left has to look like noise.

Each filter follows the framing, and where that leads nowhere says so (`broken`) and takes nothing out any more; nor
does it behind a hole in which a frame may have begun (`lost`).
What is taken out is counted, and searched for canaries like the rest.
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
_OPENING = 1 << 15  # bytes of a key exchange that may be in the clear, each direction
_QUOTED = 1 << 12  # bytes of what ICMP errors quote that may be: it may be of a key exchange


def begins_sealed(data: bytes) -> bool:
    """Whether a stream with this beginning is a sealed one, forward; what comes back is sealed then, too."""
    return data.startswith(MAGIC)


def begins_ssh(data: bytes) -> bool:
    """Whether a stream begins as ssh does (RFC 4253, section 4.2)."""
    return data.startswith(_SSH)


class Filter(Protocol):
    """`clear`: bytes taken out so far."""

    clear: int
    broken: bool
    lost: bool

    def sealed(self, data: bytes) -> bytes:
        """Of the next bytes (of the next packet, where there is no stream) those that are to be noise."""
        ...

    def skip(self, count: int) -> None:
        """The next `count` bytes of the stream are missing."""


class _Frameless:
    """Where there are no frames, or each packet is one."""

    broken = False
    lost = False

    def skip(self, count: int) -> None:
        pass


class Nothing(_Frameless):
    """All is to be noise."""

    clear = 0

    def sealed(self, data: bytes) -> bytes:
        return data


class Everything(_Frameless):
    """All is in the clear by design, for it has the form (lab.verify.content.message_formats): ARP,
    neighbour discovery, ping."""

    def __init__(self) -> None:
        self.clear = 0

    def sealed(self, data: bytes) -> bytes:
        self.clear += len(data)
        return b""


class Esp(_Frameless):
    """RFC 4303: what stands in front of each packet."""

    def __init__(self) -> None:
        self.clear = 0

    def sealed(self, data: bytes) -> bytes:
        self.clear += min(len(data), ESP_HEAD)
        return data[ESP_HEAD:]


class _Spared(_Frameless):
    """Packets with a part that is clear, and a part that may be until `spared` bytes of it came."""

    def __init__(self, spared: int) -> None:
        self.clear = 0
        self._spared = spared

    def _part(self, data: bytes, head: int, spare: bool) -> bytes:
        """What of a packet is to be noise, its first `head` bytes not; `spare`: nor the rest, as long as may be."""
        if spare:
            spared = min(self._spared, len(data) - head)
            self._spared -= spared
            head += spared
        self.clear += head
        return data[head:]


class Ike(_Spared):
    """IKE: the headers, and what is not encrypted, which is the first exchange."""

    def __init__(self) -> None:
        super().__init__(_OPENING)

    def sealed(self, data: bytes) -> bytes:
        mark = 0 if any(data[:4]) else 4  # in UDP 4500 (RFC 3948)
        head = ike_head(data[mark:]) if len(data) > 1 else 1
        return self._part(data, mark + (head or 0), head is None)


class Quotes(_Spared):
    """ICMP errors: up to the content of the packet that is quoted, and a little of that."""

    def __init__(self) -> None:
        super().__init__(_QUOTED)

    def sealed(self, data: bytes) -> bytes:
        return self._part(data, error_head(data), True)


class _Framed:
    """Streams of frames, a length in front of each. A subclass says what a frame is."""

    def __init__(self) -> None:
        self.clear = 0
        self.broken = False
        self.lost = False
        self._skip = 0  # bytes of what comes that are in the clear
        self._body = 0  # bytes of what comes after them that are sealed
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
        """A head has come: set what follows; returns what of it is sealed."""
        raise NotImplementedError

    def _break(self, head: bytes) -> bytes:
        self.broken = True
        return head


class Sealed(_Framed):
    """The plugin's stream (docs/wire-format.md): the preamble, forward, and the length in front of each frame."""

    def __init__(self, answer: bool) -> None:
        super().__init__()
        self._skip = 0 if answer else PREAMBLE

    def _begin(self, head: bytes) -> bytes:
        (self._body,) = _LENGTH.unpack(head)
        if self._body not in _FRAMES:
            return self._break(head)
        self.clear += len(head)
        return b""


class Ssh(_Framed):
    """ssh: the banner and the key exchange up to NEWKEYS, neither of them without a bound; after it, with AES-GCM,
    the length in front of each packet (RFC 5647). ChaCha20-Poly1305, OpenSSH's first choice, hides the lengths."""

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
        elif self._state == "exchange":  # length, length of the padding, what it is
            length = int(_LENGTH.unpack_from(head)[0])
            fits = length in _SSH_PACKETS and self.clear + _LENGTH.size + length <= _OPENING
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
                self._body = 1 << 62  # to its end
                return head
            if not framed:
                return self._break(head)
            self._state, self._body = "framed", length + _GCM_TAG
        self.clear += len(head)
        return b""
