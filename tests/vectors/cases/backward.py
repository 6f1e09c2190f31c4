"""The acceptor's answers to a disk image, good and bad."""

from __future__ import annotations

from collections.abc import Sequence

from tests.vectors.by_hand import (
    BLOCK,
    CHUNK,
    CONNECTION,
    INDEX,
    LABELS,
    PING_,
    ack_,
    answer_,
    done_,
    end_,
    error_,
    index_,
    noise,
    note_,
    preamble,
    run_,
    sha,
    welcome_,
)
from tests.vectors.vector import (
    BODY,
    C0,
    CONN,
    DATA1,
    IMAGE_ERROR,
    IMG,
    PEER,
    REFUSED,
    ROOT,
    SIZE,
    TAIL,
    TAMPER,
    Z1,
    Stream,
    Vectors,
    flip,
)


def backward(vectors: Vectors) -> None:
    """Whole sessions, malformed frames, wrong fields, and damage."""
    add = vectors.add

    def make(plains: Sequence[bytes], head: bytes = CONN) -> Stream:
        return Stream(plains, head=head, direction="backward")

    hello = welcome_(b'{"port":49300,"addresses":["192.0.2.1","2001:db8::1"],"resumed":0}')
    leaves = b"".join(sha(IMG[at : at + BLOCK]) for at in range(0, 2 * BLOCK, BLOCK))
    full = (0xFFFC, leaves)
    zero_and_tail = (1, sha(TAIL))
    add(
        "backward: a whole session",
        make(
            [
                hello,
                index_(0, full),
                run_(1, 1),
                PING_,
                index_(2, zero_and_tail),
                ack_(2),
                ack_(3),
                done_(ROOT),
                PING_,
            ]
        ),
    )
    add("backward: no base", make([hello, run_(0, 3, 0), ack_(3), done_(ROOT)]))
    add("backward: index of all chunks in one frame", make([hello, index_(0, full, (0xFFFF, b""), zero_and_tail)]))
    add(
        "backward: a short last block that is zeros may be said to be",
        make([hello, index_(0, full, full, (3, b""))]),
    )
    add(
        "backward: data connection",
        make([welcome_(b"{}"), ack_(1), PING_, error_(13, b"disk full")], DATA1),
        outcome=IMAGE_ERROR,
    )
    add("backward: an error instead of a welcome", make([error_(15, b"in use")]), outcome=REFUSED)
    big = b'{"x":"' + b"y" * (16384 - 8) + b'"}'
    add("backward: a welcome of 16384 bytes", make([welcome_(big)]))
    for cipher, label in LABELS.items():
        add(f"backward: {label}", make([hello, run_(0, 3, 0), done_(ROOT)], preamble(cipher, CONNECTION)))

    def bad(
        name: str, plain: bytes, before: Sequence[bytes] = (hello,), head: bytes = CONN, size: int = SIZE
    ) -> None:
        add(f"backward: {name}", make([*before, plain], head), good=len(before), error=PEER, size=size)

    bad("INDEX before WELCOME", index_(0, full), ())
    bad("ACK before WELCOME", ack_(0), ())
    bad("PING before WELCOME", PING_, ())
    bad("WELCOME twice", hello)
    bad("WELCOME is not UTF-8", welcome_(b'{"\xff":1}'), ())
    bad("WELCOME of 16385 bytes", welcome_(big + b" "), ())
    bad("INDEX without a number", bytes((INDEX,)) + bytes(7))
    bad("INDEX without chunks", index_(0))
    bad("INDEX from beyond the end", index_(3, (0, leaves)))
    bad("INDEX from 2^64-1", index_((1 << 64) - 1, (0xFFFF, b"")))
    bad("INDEX beyond the end", index_(2, zero_and_tail, full))
    bad("INDEX: a zero block beyond the end", index_(2, (0b100, sha(TAIL))))
    bad("INDEX: half a map", index_(0, full) + b"\0")
    bad("INDEX: leaves are missing", index_(0, (0xFFFB, leaves)))
    bad("INDEX: a byte of a leaf is missing", index_(0, full)[:-1])
    bad("INDEX of 32 chunks", index_(0, *[(0xFFFF, b"")] * 32), size=40 * CHUNK)
    add("backward: INDEX of 31 chunks", make([hello, index_(0, *[(0xFFFF, b"")] * 31)]), size=40 * CHUNK)
    bad("INDEX on a data connection", index_(0, full), (welcome_(b"{}"),), DATA1)
    bad("INDEX-RUN on a data connection", run_(0, 3), (welcome_(b"{}"),), DATA1)
    bad("DONE on a data connection", done_(ROOT), (welcome_(b"{}"),), DATA1)
    bad("INDEX-RUN of kind 2", run_(0, 3, 2))
    bad("INDEX-RUN of none", run_(0, 0))
    bad("INDEX-RUN beyond the end", run_(1, 3))
    bad("INDEX-RUN that overflows", run_((1 << 64) - 1, 1))
    bad("INDEX-RUN of 16 bytes", run_(0, 3)[:-1])
    bad("INDEX-RUN of 18 bytes", run_(0, 3) + b"\0")
    bad("ACK of 7 bytes", ack_(0)[:-1])
    bad("ACK of 9 bytes", ack_(0) + b"\0")
    bad("DONE of 31 bytes", done_(ROOT)[:-1])
    bad("DONE twice", done_(ROOT), (hello, done_(ROOT)))
    bad("ACK after DONE", ack_(1), (hello, done_(ROOT)))
    bad("INDEX after DONE", index_(0, full), (hello, done_(ROOT)))
    for name, plain in (("IMAGE", BODY[0]), ("CHUNK", C0), ("ZEROS", Z1), ("END", end_(ROOT))):
        bad(f"{name} from the wrong side", plain)
    bad("type 0", bytes(9))
    bad("type 23", bytes((23,)))
    bad("ANSWER of another kind of session", answer_(b"x"))
    bad("NOTE of another kind of session", note_(b"{}"))

    def wrong(name: str, plains: Sequence[bytes]) -> None:
        add(f"backward: {name}", make(plains), outcome=PEER)

    wrong("WELCOME is no JSON", [welcome_(b"{")])
    wrong("WELCOME is empty", [welcome_(b"")])
    wrong("WELCOME is a list", [welcome_(b"[]")])
    wrong("WELCOME: port is a text", [welcome_(b'{"port":"49300"}')])
    wrong("WELCOME: port is true", [welcome_(b'{"port":true}')])
    wrong("WELCOME: port is 65536", [welcome_(b'{"port":65536}')])
    wrong("WELCOME: port is negative", [welcome_(b'{"port":-1}')])
    wrong("WELCOME: addresses is a number", [welcome_(b'{"port":1,"addresses":5}')])
    wrong("WELCOME: an address is a number", [welcome_(b'{"port":1,"addresses":[5]}')])
    wrong("WELCOME: an address is none", [welcome_(b'{"port":1,"addresses":["host.example"]}')])
    wrong("WELCOME: resumed is a text", [welcome_(b'{"port":1,"resumed":"all"}')])
    wrong("WELCOME: resumed is negative", [welcome_(b'{"port":1,"resumed":-1}')])
    wrong("WELCOME: resumed is more than an image", [welcome_(b'{"port":1,"resumed":%d}' % ((1 << 50) + 1))])
    wrong("WELCOME: resumed has 4000 digits", [welcome_(b'{"port":1,"resumed":1%b}' % (b"0" * 4000))])
    wrong("WELCOME: cores is negative", [welcome_(b'{"port":1,"cores":-1}')])
    wrong("WELCOME: cores is 10^9", [welcome_(b'{"port":1,"cores":1000000000}')])
    wrong("WELCOME is deep", [welcome_(b"[" * 16000)])
    wrong("INDEX begins with a gap", [hello, index_(1, full)])
    wrong("INDEX goes on with a gap", [hello, index_(0, full), index_(2, zero_and_tail)])
    wrong("INDEX goes back", [hello, index_(0, full), index_(0, full)])
    wrong("INDEX-RUN after a gap", [hello, run_(1, 1)])
    wrong("more acknowledged than sent", [hello, ack_(4)])
    stream = make([hello, run_(0, 3, 0), done_(ROOT)])
    whole = stream.bytes()
    add("backward: flipped bit", stream, data=flip(whole, 40), good=0, error=TAMPER)
    add("backward: repeated", stream, data=whole + stream.frames[-1], error=TAMPER)
    forward = Stream([hello, run_(0, 3, 0)], head=CONN)
    forward.direction = "backward"
    add("backward: sealed with the forward key", forward, good=0, error=TAMPER)
    other = make([hello], preamble(carrier=CONNECTION, random=noise("another", 32)))
    add("backward: of another connection", other, expected=CONN, good=0, error=TAMPER)
    for cut in (0, 3, 30, len(stream.frames[0]), len(whole) - 1):
        good = sum(len(b"".join(stream.frames[: n + 1])) <= cut for n in range(3))
        add(f"backward: cut to {cut} bytes", stream, data=whole[:cut], good=good)
