"""Makes vectors.json: sealed streams, good and bad, and what a reader must make of each.

Written from docs/wire-format.md alone: nothing of xenplugin is imported, so that the text and the program
are checked against each other. Everything is derived from fixed seeds and zstd frames are put together by
hand, so the output is the same everywhere.

    python3 -m tests.vectors.make > tests/vectors/vectors.json
"""

from __future__ import annotations

import json
import sys

from tests.vectors.by_hand import ACCEPTOR, CONNECTION, FILE, LABELS, SECRET, derive, preamble
from tests.vectors.cases.backward import backward
from tests.vectors.cases.connection_damage import connection_damage
from tests.vectors.cases.damaged import damage, preambles
from tests.vectors.cases.domain import domain
from tests.vectors.cases.good import good_streams
from tests.vectors.cases.live import live
from tests.vectors.cases.malformed import after_end, contents, orders
from tests.vectors.vector import Vectors


def key_vectors() -> list[dict[str, str]]:
    """The keys that follow from a secret, the acceptor's random and a preamble."""
    out = []
    for cipher in LABELS:
        for carrier, number, salt in ((FILE, 0, bytes(32)), (CONNECTION, 0, ACCEPTOR), (CONNECTION, 3, ACCEPTOR)):
            head = preamble(cipher, carrier, number)
            out.append(
                {
                    "secret": SECRET.hex(),
                    "random": salt.hex(),
                    "preamble": head.hex(),
                    "forward": derive(SECRET, salt, "forward", head).hex(),
                    "backward": derive(SECRET, salt, "backward", head).hex(),
                }
            )
    return out


def make() -> str:
    """Return the whole of vectors.json."""
    vectors = Vectors()
    for part in (
        good_streams,
        preambles,
        damage,
        connection_damage,
        after_end,
        orders,
        contents,
        backward,
        live,
        domain,
    ):
        part(vectors)
    names = [vector["name"] for vector in vectors.rows]
    assert len(names) == len(set(names)), [name for name in names if names.count(name) > 1]
    rows = ",\n".join(json.dumps(vector) for vector in vectors.rows)
    keys = ",\n".join(json.dumps(key) for key in key_vectors())
    return f'{{"format": 1, "keys": [\n{keys}\n],\n"vectors": [\n{rows}\n]}}\n'


if __name__ == "__main__":
    sys.stdout.write(make())
