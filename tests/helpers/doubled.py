"""xenplugin with a test double in it: `python doubled.py unsealed|planted WORDS...`. The product has no switch for
it.

unsealed: a frame is what it would be, but for the encryption: the plaintext and a tag of zeros.
planted: the session's secret is a known one.
"""

from __future__ import annotations

import hashlib
import sys

SECRET = hashlib.sha256(b"a secret that only tests have").digest()


def main() -> None:
    from xenplugin.codec import seal

    if sys.argv[1] == "unsealed":
        seal.Aead.seal = lambda self, counter, header, parts: b"".join(parts) + bytes(16)
        seal.Aead.open = lambda self, counter, header, sealed: bytes(sealed[:-16])
    else:
        assert sys.argv[1] == "planted"
        fresh, given = seal.new_secret, [SECRET]
        seal.new_secret = lambda: given.pop() if given else fresh()  # the session's name is made by it, too
    from xenplugin.cli import main as program

    sys.argv[1:2] = []
    program()


if __name__ == "__main__":
    main()
