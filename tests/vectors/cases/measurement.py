"""A measurement in both directions, good and bad. The acceptor has nothing of the image, whose size is SIZE."""

from __future__ import annotations

from collections.abc import Sequence

from tests.vectors.by_hand import (
    CHUNK,
    PING_,
    ack_,
    answer_,
    done_,
    end_,
    error_,
    image_,
    noise,
    note_,
    run_,
    segment_,
    welcome_,
    zstd,
)
from tests.vectors.vector import C0, CONN, DATA1, LINK, PEER, Z1, Stream, Vectors

MEASURED = "measured"


def measurement(vectors: Vectors) -> None:
    """Questions and noise, their answers, and the frames that this kind of session forbids."""
    begin = [image_(0), note_(b'{"image":0,"chunks":[0,2,1]}'), segment_(0, noise("noise", 4000))]
    ended = end_(bytes(32), 0)

    def forward(name: str, plains: Sequence[bytes], outcome: str | None, head: bytes = CONN) -> None:
        vectors.add(f"measurement: {name}", Stream(plains, head=head), outcome=outcome, kind="measurement", size=0)

    def refused(name: str, plain: bytes, head: bytes = CONN) -> None:
        frames = Stream([*begin, plain], head=head)
        vectors.add(f"measurement: {name}", frames, good=len(begin), error=PEER, kind="measurement", size=0)

    forward("a whole session", [*begin, PING_, note_(b'{"image":0,"chunks":[]}'), ended], MEASURED)
    forward("nothing is asked", [image_(0), ended], MEASURED)
    forward("segments are not numbered", [*begin, segment_(77, b"x"), segment_(0, b"y"), ended], MEASURED)
    forward("data connection", [image_(0), segment_(0, b"noise")], None, DATA1)
    forward("an error, told", [*begin, error_(14, b"gone")], LINK)
    forward("its end is missing", begin, LINK)
    forward("a packed segment", [image_(0), segment_(0, zstd([bytes(4096)]), 4096, 1)], PEER)
    for what, text in {
        "a note that is no JSON": b"{",
        "a note that is no question": b'{"disks":[]}',
        "another image": b'{"image":1,"chunks":[0]}',
        "an image before the first": b'{"image":-1,"chunks":[0]}',
        "an image that is true": b'{"image":true,"chunks":[0]}',
        "a chunk beyond the image": b'{"image":0,"chunks":[3]}',
        "a chunk before the image": b'{"image":0,"chunks":[-1]}',
        "a chunk that is text": b'{"image":0,"chunks":["0"]}',
        "chunks that are no list": b'{"image":0,"chunks":{}}',
        "32 chunks": b'{"image":0,"chunks":[' + b"0," * 31 + b"0]}",
    }.items():
        forward(f"a question: {what}", [image_(0), note_(text)], PEER)
    refused("CHUNK of another kind of session", C0)
    refused("ZEROS of another kind of session", Z1)
    refused("SEGMENT of more than a MiB", segment_(1, b"x", CHUNK + 1, 1))
    refused("ANSWER from the wrong side", answer_(b"x"))

    def back(name: str, plains: Sequence[bytes], good: int | None = None) -> None:
        frames = Stream(plains, head=CONN, direction="backward")
        error = None if good is None else PEER
        vectors.add(f"measurement, backward: {name}", frames, good=good, error=error, kind="measurement", size=0)

    hello = welcome_(b'{"port":0}')
    about = note_(b'{"boot":"x","hash_seconds":0.001,"running":0.5,"steal":0,"hidden":[]}')
    back("a whole session", [hello, about, answer_(bytes(7)), ack_(1), PING_, done_(bytes(32))])
    back("INDEX-RUN of another kind of session", [hello, run_(0, 1)], 1)
