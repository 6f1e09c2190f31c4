"""Streams that were changed, cut or put together wrongly on the way."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tests.vectors.by_hand import (
    ACCEPTOR,
    AES128,
    AES256,
    CHACHA,
    CONNECTION,
    FILE,
    SECRET,
    Seal,
    derive,
    noise,
    preamble,
)
from tests.vectors.vector import BODY, CONN, LINK, PEER, TAMPER, WHOLE, Stream, Vectors, flip


def preambles(vectors: Vectors) -> None:
    """Preambles with flipped bits, and preambles that do not fit the job."""
    add = vectors.add
    for carrier, head in ((FILE, preamble()), (CONNECTION, CONN)):
        where = "file" if carrier == FILE else "control channel"
        stream = Stream(WHOLE, head=head)
        whole = stream.bytes()
        conn = carrier == CONNECTION
        for at, bit, field, error in (
            (0, 7, "magic, first byte", TAMPER),
            (4, 5, "magic, the carriage return", TAMPER),
            (7, 0, "magic, last byte", TAMPER),
            (8, 1, "version", PEER),
            (9, 1, "cipher, another known", PEER if conn else TAMPER),
            (9, 6, "cipher, unknown", PEER),
            (10, 2, "carrier, unknown", PEER),
            (11, 0, "reserved", PEER),
            (12, 7, "number, first bit", PEER),
            (15, 0, "number, last bit", PEER),
            (16, 0, "session, first byte", PEER if conn else TAMPER),
            (31, 7, "session, last byte", PEER if conn else TAMPER),
            (32, 0, "random, first byte", TAMPER),
            (63, 7, "random, last byte", TAMPER),
        ):
            add(
                f"{where}: flipped bit in the preamble: {field}",
                stream,
                data=flip(whole, at, bit),
                good=0,
                error=error,
            )
        other = bytearray(whole)
        other[10] = FILE if conn else CONNECTION
        add(f"{where}: the other carrier in the preamble", stream, data=bytes(other), good=0, error=PEER)
        for version in (0, 1, 3, 255):
            other = bytearray(whole)
            other[8] = version
            add(f"{where}: version {version}", stream, data=bytes(other), good=0, error=PEER)
        for cipher in (0, 4):
            other = bytearray(whole)
            other[9] = cipher
            add(f"{where}: cipher {cipher}", stream, data=bytes(other), good=0, error=PEER)
        add(f"{where}: wrong secret", stream, good=0, error=TAMPER, secret=noise("another", 32))
        add(f"{where}: secret with one bit changed", stream, good=0, error=TAMPER, secret=flip(SECRET, 31))
        strange = Stream(WHOLE, head=head, acceptor=noise("someone else", 32))
        strange.acceptor = bytes(32) if carrier == FILE else ACCEPTOR
        add(f"{where}: sealed for another acceptor's random", strange, good=0, error=TAMPER)
    # sealed like that by somebody who has the secret: what a reader must refuse all the same
    add("a file with a number", Stream(WHOLE, head=preamble(number=1)), good=0, error=PEER)
    add(
        "another cipher than the job's",
        Stream(WHOLE, head=preamble(CHACHA, CONNECTION)),
        cipher=AES128,
        good=0,
        error=PEER,
    )
    other_session = preamble(carrier=CONNECTION, session=noise("other session", 16))
    add("another session than the job's", Stream(WHOLE, head=other_session), good=0, error=PEER)
    add("gzip, not a sealed stream", Stream([]), data=bytes.fromhex("1f8b0800") + bytes(100), good=0, error=TAMPER)
    # \r\n became \n, as a transfer in text mode does
    data = Stream(WHOLE).bytes().replace(b"\r\n", b"\n", 1)
    add("damaged by a transfer in text mode", Stream(WHOLE), data=data, good=0, error=TAMPER)


def damage(vectors: Vectors) -> None:
    """Frames with flipped bits, cut, exchanged, repeated, or sealed with another key."""
    add = vectors.add
    for where, head in (("file", preamble(AES256)), ("control channel", preamble(CHACHA, CONNECTION))):
        conn = head[10] == CONNECTION
        stream = Stream(WHOLE, head=head)
        whole = stream.bytes()
        starts = [64]
        for frame in stream.frames:
            starts.append(starts[-1] + len(frame))
        names = ("IMAGE", "CHUNK", "ZEROS", "CHUNK 2", "END")
        for place, name in enumerate(names):
            start, stop = starts[place], starts[place + 1]
            for at, what in (
                (start + 4, "ciphertext, the type"),
                ((start + 4 + stop - 16) // 2, "ciphertext, the middle"),
                (stop - 16, "tag, first byte"),
                (stop - 1, "tag, last byte"),
            ):
                add(
                    f"{where}: flipped bit in {name}: {what}",
                    stream,
                    data=flip(whole, at, at % 8),
                    good=place,
                    error=TAMPER,
                )
            add(
                f"{where}: flipped bit in {name}: length, impossible",
                stream,
                data=flip(whole, start, 7),
                good=place,
                error=TAMPER,
            )
            shorter = flip(whole, start + 3, (whole[start + 3] & -whole[start + 3]).bit_length() - 1)
            add(f"{where}: flipped bit in {name}: length, shorter", stream, data=shorter, good=place, error=TAMPER)
        # longer than what follows: a file ends too early, a connection is waited for
        longer = flip(whole, starts[1] + 1, 3)
        if conn:
            add(f"{where}: flipped bit in CHUNK: length, longer", stream, data=longer, good=1, outcome=LINK)
        else:
            add(f"{where}: flipped bit in CHUNK: length, longer", stream, data=longer, good=1, error=TAMPER)
        cuts = {0: "nothing", 1: "one byte", 8: "the magic", 63: "most of the preamble", 64: "the preamble"}
        for place, name in enumerate(names):
            start, stop = starts[place], starts[place + 1]
            cuts[start + 1] = f"one byte of {name}"
            cuts[start + 4] = f"the length of {name}"
            cuts[(start + stop) // 2] = f"half of {name}"
            cuts[stop - 1] = f"all but the last byte of {name}"
            if place < 4:
                cuts[stop] = f"all up to {name}"
        for cut, what in sorted(cuts.items()):
            good = sum(stop <= cut for stop in starts[1:])
            if conn:
                add(f"{where}: cut to {what}", stream, data=whole[:cut], good=good, outcome=LINK)
            else:
                add(f"{where}: cut to {what}", stream, data=whole[:cut], good=good, error=TAMPER)
        frames = stream.frames

        def mixed(order: Sequence[int], head: bytes = head, frames: list[bytes] = frames) -> bytes:
            return head + b"".join(frames[i] for i in order)

        add(f"{where}: frames 1 and 2 exchanged", stream, data=mixed((0, 2, 1, 3, 4)), good=1, error=TAMPER)
        add(f"{where}: frame 1 repeated", stream, data=mixed((0, 1, 1, 2, 3, 4)), good=2, error=TAMPER)
        add(f"{where}: frame 2 left out", stream, data=mixed((0, 1, 3, 4)), good=2, error=TAMPER)
        add(f"{where}: first frame left out", stream, data=mixed((1, 2, 3, 4)), good=0, error=TAMPER)
        add(f"{where}: only the END", stream, data=mixed((4,)), good=0, error=TAMPER)
        foreign = Stream(WHOLE, head=head[:32] + noise("another stream", 32))
        data = mixed((0,)) + foreign.frames[1] + mixed((2, 3, 4))[64:]
        add(f"{where}: a frame of another stream in its place", stream, data=data, good=1, error=TAMPER)
        reflected = Stream(WHOLE, head=head, direction="backward")
        data = mixed((0,)) + reflected.frames[1]
        add(f"{where}: a frame sealed with the backward key", stream, data=data, good=1, error=TAMPER)
        for length in (0, 16, (1 << 20) + (16 << 10) + 17, 0xFFFFFFFF):
            data = mixed((0,)) + struct.pack(">I", length) + bytes(40)
            add(f"{where}: length {length}", stream, data=data, good=1, error=TAMPER)
        sealer = Seal(derive(SECRET, stream.acceptor, "forward", head), head[9])
        sealer.counter = 1
        add(f"{where}: counter begins at 1", stream, data=head + b"".join(map(sealer, WHOLE)), good=0, error=TAMPER)
        empty = Stream([BODY[0], b""], head=head)
        add(f"{where}: a frame without a type", empty, good=1, error=TAMPER)
        sealer.counter = 0
        plain = sealer.aead.encrypt(bytes(12), WHOLE[0], None)
        data = head + struct.pack(">I", len(plain)) + plain
        add(f"{where}: length not authenticated", stream, data=data, good=0, error=TAMPER)
        little = sealer.aead.encrypt(bytes(12), WHOLE[0], header := struct.pack("<I", 25)) + b""
        add(f"{where}: length in the other byte order", stream, data=head + header + little, good=0, error=TAMPER)
