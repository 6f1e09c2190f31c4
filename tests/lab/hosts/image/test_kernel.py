"""Extracting a kernel from a bzImage, with each kind of compression."""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable

import pytest
import zstandard

from lab.errors import BuildError
from lab.hosts.image.kernel import unpacked

ELF = b"\x7fELF" + bytes(range(256)) * 40
LENGTH = struct.pack("<I", len(ELF))  # appended to the payload by the kernel's build


def bzimage(payload: bytes, setup_sects: int = 2) -> bytes:
    setup = bytearray((setup_sects + 1) * 512)
    setup[0x1F1] = setup_sects
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", setup, 0x248, 100, len(payload))
    return bytes(setup) + b"\x90" * 100 + payload + b"what follows it"


@pytest.mark.parametrize("compress", [lzma.compress, gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_packed_kernel_is_unpacked(compress: Callable[[bytes], bytes]) -> None:
    assert unpacked(bzimage(compress(ELF) + (b"" if compress is gzip.compress else LENGTH))) == ELF


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"MZ" + bytes(2000),
        bzimage(b"LZO?" + bytes(50)),
        bzimage(lzma.compress(b"no ELF") + LENGTH),
        bzimage(lzma.compress(ELF)[:40]),
    ],
)
def test_a_file_that_is_not_a_kernel_is_one_error(image: bytes) -> None:
    with pytest.raises(BuildError, match="cannot be unpacked"):
        unpacked(image)
