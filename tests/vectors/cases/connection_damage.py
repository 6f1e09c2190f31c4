"""Data connections that are damaged on the way: each is lost, and the session goes on."""

from __future__ import annotations

from collections.abc import Sequence

from tests.vectors.by_hand import CONNECTION, ack_, error_, image_, preamble, segment_, welcome_
from tests.vectors.vector import BODY, CONN, DATA1, LOST, TAMPER, Stream, Vectors, flip


def connection_damage(vectors: Vectors) -> None:
    """Frames of data connections that do not open, in both directions; authentic ones follow, and are not used."""
    add = vectors.add

    def damaged(where: str, plains: Sequence[bytes], second: bytes, **more: object) -> None:
        """Add what can become of the frame after the first, which is authentic; more follow."""
        direction = "backward" if where.startswith("backward") else "forward"
        stream = Stream(plains, head=DATA1, direction=direction)
        head, frames = stream.bytes()[: 64 if direction == "forward" else 0], stream.frames
        start = len(head) + len(frames[0])
        stop = start + len(frames[1])
        whole = stream.bytes()
        other = Stream([plains[0], second], head=preamble(carrier=CONNECTION, number=2), direction=direction)
        shorter = flip(whole, start + 3, (whole[start + 3] & -whole[start + 3]).bit_length() - 1)
        for what, data in (
            ("flipped bit in the type", flip(whole, start + 4, 3)),
            ("flipped bit in the middle", flip(whole, (start + stop) // 2, 6)),
            ("flipped bit in the tag", flip(whole, stop - 1, 0)),
            ("length, impossible", flip(whole, start, 7)),
            ("length, shorter", shorter),
            ("a frame repeated", head + frames[0] + b"".join(frames)),
            ("two frames exchanged", head + frames[0] + frames[2] + frames[1]),
            ("a frame left out", head + frames[0] + b"".join(frames[2:])),
            ("a frame of another connection", head + frames[0] + other.frames[1] + b"".join(frames[2:])),
        ):
            add(f"{where}: {what}", stream, data=data, good=1, error=TAMPER, outcome=LOST, **more)  # type: ignore[arg-type]

    damaged("data connection", BODY, BODY[1])
    segments = [image_(0), segment_(0, b"first"), segment_(1, b"second"), segment_(2, b"third")]
    damaged("domain, data connection", segments, segments[1], kind="domain", size=0)
    damaged("backward data connection", [welcome_(b"{}"), ack_(1), ack_(2), ack_(3)], ack_(1))
    add(
        "backward data connection: damage at the acceptor",
        Stream([welcome_(b"{}"), ack_(1), error_(12, b"a damaged record")], head=DATA1, direction="backward"),
        outcome=LOST,
    )
    add(
        "backward: an error of the same code on the control channel",
        Stream([welcome_(b"{}"), error_(12, b"changed")], head=CONN, direction="backward"),
        outcome=TAMPER,
    )
