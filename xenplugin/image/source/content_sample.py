"""A sample of an image's content, to find out quickly that two images differ: equal samples prove nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from xenplugin.geometry import CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.source.raw import Source

#: Chunks that are read, spread evenly from the first to the last: 48 MiB at most.
_CHUNKS = 48


def sample(source: Source) -> str:
    """Return a digest of some chunks of `source`, in hex. Raises ImageError."""
    last = source.chunks - 1
    spread = {number * last // (_CHUNKS - 1) for number in range(_CHUNKS)} if source.chunks else ()
    return digest_of(source, sorted(spread))


def digest_of(source: Source, indexes: Iterable[int]) -> str:
    """Return the SHA-256 of the chunks `indexes` of `source`, in hex. Raises ImageError."""
    digest, buffer = hashlib.sha256(), Buffer(CHUNK)
    for index in indexes:
        digest.update(source.read(index, buffer))
    return digest.hexdigest()
