"""The keys in vectors.json, and that make.py makes the file without this program's code."""

from __future__ import annotations

import pytest

from tests.vectors import make
from tests.vectors.reading import FILE, PATH
from xenplugin.codec.seal import Aead, Keys
from xenplugin.wire.preamble import Preamble


@pytest.mark.parametrize("vector", FILE["keys"], ids=lambda v: f"cipher {v['preamble'][18:20]}")
def test_keys_are_derived_as_in_the_vectors(vector: dict[str, str]) -> None:
    preamble = Preamble.unpack(bytes.fromhex(vector["preamble"]))
    assert preamble.pack().hex() == vector["preamble"]
    keys = Keys(bytes.fromhex(vector["secret"]), bytes.fromhex(vector["random"]))
    derived = {}
    for direction, derive in (("forward", keys.forward), ("backward", keys.backward)):
        # A key does not come out of an AEAD: compare what it seals.
        plain, header = b"plaintext", b"\0\0\0\x19"
        derived[direction] = derive(preamble).seal(7, header, [plain])
        theirs = Aead(preamble.cipher, bytes.fromhex(vector[direction])).seal(7, header, [plain])
        assert derived[direction] == theirs
    assert derived["forward"] != derived["backward"]


def test_make_py_makes_vectors_json() -> None:
    assert make.make() == PATH.read_text()


def test_make_py_does_not_import_xenplugin() -> None:
    here = PATH.parent
    for path in [here / "make.py", here / "by_hand.py", here / "vector.py", *(here / "cases").glob("[a-z]*.py")]:
        imports = [line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert imports and not any("xenplugin" in line for line in imports)
