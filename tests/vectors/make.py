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
from tests.vectors.cases.measurement import measurement
from tests.vectors.vector import PEER, Vectors


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


def path_vectors() -> list[dict[str, str | None]]:
    """The bytes of a path (in hex) that a JSON text in the job stands for, and the error if it stands for none."""
    good = {
        '"/disk"': b"/disk",
        '"/\u00e9"': b"/\xc3\xa9",
        '"/\\u00e9"': b"/\xc3\xa9",
        '"/\\ud83d\\ude00"': b"/\xf0\x9f\x98\x80",
        '"/a\\udcff\\udc80"': b"/a\xff\x80",
        '"/\\udcc3\\udca9"': b"/\xc3\xa9",
        '"/\\n"': b"/\n",
    }
    bad = ('""', '"/\\u0000"', '"/\\ud800"', '"/\\udc7f"', '"/\\udd00"', "5", "null")
    return [
        *({"json": text, "bytes": path.hex(), "error": None} for text, path in good.items()),
        *({"json": text, "bytes": None, "error": PEER} for text in bad),
    ]


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
        measurement,
    ):
        part(vectors)
    names = [vector["name"] for vector in vectors.rows]
    assert len(names) == len(set(names)), [name for name in names if names.count(name) > 1]
    paths = ",\n".join(json.dumps(row) for row in path_vectors())
    rows = ",\n".join(json.dumps(vector) for vector in vectors.rows)
    keys = ",\n".join(json.dumps(key) for key in key_vectors())
    return f'{{"format": 1, "keys": [\n{keys}\n],\n"paths": [\n{paths}\n],\n"vectors": [\n{rows}\n]}}\n'


if __name__ == "__main__":
    sys.stdout.write(make())
