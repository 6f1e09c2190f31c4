"""Extracts the kernel, an ELF file, from a bzImage.

This is done once here, because under software emulation it takes ten seconds at each start of a host or a guest.

Source: Linux, Documentation/arch/x86/boot.rst (setup_sects, payload_offset, payload_length).
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable

import zstandard

from lab.errors import BuildError


def _unxz(data: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(data)


def _unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def _gunzip(data: bytes) -> bytes:
    return zlib.decompressobj(31).decompress(data)


# Each must stop at the end of its stream: the last four bytes of the payload are the uncompressed length, written
# by gzip or by the kernel's build.
_FORMATS: list[tuple[bytes, Callable[[bytes], bytes]]] = [
    (b"\xfd7zXZ\0", _unxz),
    (b"\x28\xb5\x2f\xfd", _unzstd),
    (b"\x1f\x8b", _gunzip),
]


def unpacked(image: bytes) -> bytes:
    """Return the ELF file in the bzImage `image`. Raises BuildError."""
    try:
        if image[0x202:0x206] != b"HdrS":
            raise ValueError("it is not a bzImage")
        offset, length = struct.unpack_from("<II", image, 0x248)
        start = ((image[0x1F1] or 4) + 1) * 512 + offset
        payload = image[start : start + length]
        for magic, unpack in _FORMATS:
            if payload.startswith(magic):
                elf = unpack(payload)
                if elf.startswith(b"\x7fELF") and len(elf) == int.from_bytes(payload[-4:], "little"):
                    return elf
                raise ValueError("its payload is not a complete ELF file")
        raise ValueError(f"its payload begins with {payload[:4].hex()}")
    except (
        ValueError,
        IndexError,
        struct.error,
        lzma.LZMAError,
        zlib.error,
        zstandard.ZstdError,
        OSError,
    ) as error:
        raise BuildError(f"the kernel cannot be unpacked: {error}") from error
