"""Every vector through the reader of frames, cut into pieces in different ways."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterable, Iterator
from typing import Any

from tests.helpers.reader import read_frames
from tests.vectors.reading import VECTORS, compact, each, outcome, reader_of
from xenplugin import errors
from xenplugin.errors import XenpluginError
from xenplugin.wire.body import Type


def read(vector: dict[str, Any], pieces: Iterable[bytes]) -> tuple[list[Any], dict[str, Any] | None]:
    reader = reader_of(vector)
    events: list[Any] = []
    try:
        for piece in pieces:
            for frame in read_frames(reader, piece):
                events.append(compact(frame))
        if vector["carrier"] == "file":
            reader.finish()
    except XenpluginError as exc:
        return events, outcome(exc)
    return events, None


def cuts(stream: bytes, seed: str) -> Iterator[bytes]:
    dice = random.Random(seed)
    while stream:
        count = dice.choice((1, 2, 4, 5, 17, 64, 100, 1000))
        yield stream[:count]
        stream = stream[count:]


@each(VECTORS)
def test_the_result_does_not_depend_on_how_the_stream_is_cut(vector: dict[str, Any]) -> None:
    stream = base64.b64decode(vector["stream"])
    expected = (vector["events"], vector["error"])
    assert read(vector, [stream] if stream else []) == expected
    assert read(vector, cuts(stream, vector["name"])) == expected
    assert read(vector, (stream[at : at + 1] for at in range(len(stream)))) == expected


def test_the_vectors_cover_all_frames_and_error_classes() -> None:
    seen = {event[0] for vector in VECTORS for event in vector["events"]}
    assert seen == {name.lower().replace("_", "-") for name in Type.__members__}
    ends = {(v["outcome"] or {}).get("class") for v in VECTORS if not isinstance(v["outcome"], str)}
    assert ends >= {"PeerError", "TamperError", "ImageError", "LinkError", "RefusedError"}
    for vector in VECTORS:
        for end in (vector["error"], vector["outcome"]):
            assert not isinstance(end, dict) or getattr(errors, end["class"]).code == end["code"]
