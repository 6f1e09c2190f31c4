"""A domain's memory stream in both directions, good and bad."""

from __future__ import annotations

from collections.abc import Sequence

from tests.vectors.by_hand import (
    BLOCK,
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
    sha,
    welcome_,
    zstd,
)
from tests.vectors.vector import C0, CONN, DATA1, IMAGE_ERROR, LINK, PEER, TAMPER, Z1, Stream, Vectors, flip


def domain(vectors: Vectors) -> None:
    """Segments, notes and answers, and the frames that this kind of session forbids."""
    add = vectors.add
    stream = [b"Xen saved domain", bytes(70000), noise("pages", 4000), b"\n"]
    zeros = zstd([bytes(BLOCK), bytes(70000 - BLOCK)])
    parts = [image_(0), segment_(0, stream[0]), segment_(1, zeros, 70000, 1), segment_(2, stream[2])]
    last = segment_(3, stream[3])
    digest = sha(b"".join(stream))
    ended = end_(digest, 4)
    told = "sha256:" + digest.hex()

    def good(name: str, plains: Sequence[bytes], outcome: str | None = told, head: bytes = CONN) -> None:
        add(f"domain: {name}", Stream(plains, head=head), outcome=outcome, kind="domain", size=0)

    def bad(name: str, plain: bytes, before: Sequence[bytes] = parts[:2], head: bytes = CONN) -> None:
        frames = Stream([*before, plain], head=head)
        add(f"domain: {name}", frames, good=len(before), error=PEER, kind="domain", size=0)

    good("a whole session", [*parts, last, ended])
    good(
        "out of order, twice, with notes and pings",
        [
            parts[0],
            *parts[:1:-1],
            PING_,
            parts[1],
            parts[2],
            note_(b'{"state":"handing"}'),
            last,
            ended,
            note_(b"{}"),
            PING_,
        ],
    )
    good("a segment after END", [*parts, ended, last])
    good("nothing at all", [parts[0], end_(sha(b""), 0)], "sha256:" + sha(b"").hex())
    good("data connection", [*parts, last], None, DATA1)
    good("an error, told", [*parts, error_(14, b"gone")], LINK)
    good("END with another digest", [*parts, last, end_(flip(digest, 0), 4)], TAMPER)
    good("a segment is missing", [*parts[:2], *parts[3:], last, ended], LINK)
    good("more segments than END counts", [*parts, last, segment_(4, b"x"), ended], PEER)
    good("a segment beyond the window", [*parts[:2], segment_(129, b"x")], PEER)
    good("a segment that cannot be unpacked", [parts[0], segment_(0, zeros[:-1], 70000, 1)], IMAGE_ERROR)
    good("a segment that unpacks to more", [parts[0], segment_(0, zeros, 69999, 1)], PEER)
    good("a note that is no JSON", [parts[0], note_(b"{")], PEER)
    good("a note that is a list", [parts[0], note_(b"[]")], PEER)
    good("a note of 16384 bytes", [*parts, note_(b'{"x":"' + b"y" * 16376 + b'"}'), last, ended])
    bad("SEGMENT before IMAGE", parts[1], ())
    bad("an image of some size", image_(1), ())
    bad("CHUNK of another kind of session", C0)
    bad("ZEROS of another kind of session", Z1)
    bad("SEGMENT without a payload", segment_(1, b"", 1))
    bad("SEGMENT of nothing", segment_(1, b"x", 0, 1))
    bad("SEGMENT of more than a MiB", segment_(1, b"x", CHUNK + 1, 1))
    bad("SEGMENT: codec 2", segment_(1, b"x", 1, 2))
    bad("SEGMENT: stored, a byte short", segment_(1, b"x", 2))
    bad("SEGMENT of 12 bytes", segment_(1, b"")[:-1])
    bad("NOTE of 16385 bytes", note_(b" " * 16385))
    bad("NOTE is not UTF-8", note_(b"\xff"))
    bad("NOTE on a data connection", note_(b"{}"), head=DATA1)
    bad("ANSWER from the wrong side", answer_(b"x"))

    def back(name: str, plains: Sequence[bytes], good: int | None = None, head: bytes = CONN) -> None:
        frames = Stream(plains, head=head, direction="backward")
        add(
            f"domain, backward: {name}",
            frames,
            good=good,
            error=None if good is None else PEER,
            kind="domain",
            size=0,
        )

    hello = welcome_(b'{"port":0}')
    back(
        "a whole session",
        [hello, answer_(b"ready\n"), ack_(3), note_(b"{}"), PING_, answer_(b"x" * 16384), done_(digest)],
    )
    back("ANSWER of nothing", [hello, answer_(b"")], 1)
    back("ANSWER of 16385 bytes", [hello, answer_(b"x" * 16385)], 1)
    back("ANSWER before WELCOME", [answer_(b"x")], 0)
    back("ANSWER after DONE", [hello, done_(digest), answer_(b"x")], 2)
    back("ANSWER on a data connection", [welcome_(b"{}"), answer_(b"x")], 1, DATA1)
    back("NOTE on a data connection", [welcome_(b"{}"), note_(b"{}")], 1, DATA1)
    back("INDEX-RUN of another kind of session", [hello, run_(0, 1)], 1)
    back("SEGMENT from the wrong side", [hello, parts[1]], 1)
