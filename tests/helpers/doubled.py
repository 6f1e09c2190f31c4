"""xenplugin with a test double in it: `python doubled.py unsealed|planted WORDS...`. The product has no switch so.

unsealed: a frame is what it would be, but for the encryption: the plaintext and a tag of zeros.
planted: the session's secret is a known one.
"""

from __future__ import annotations

import hashlib
import sys
from unittest import mock

from xenplugin.codec import seal

SECRET = hashlib.sha256(b"a secret that only tests have").digest()


def unsealed() -> None:
    mock.patch.object(seal.Aead, "seal", lambda self, counter, header, parts: b"".join(parts) + bytes(16)).start()
    mock.patch.object(seal.Aead, "open", lambda self, counter, header, sealed: bytes(sealed[:-16])).start()


def planted() -> None:
    fresh, given = seal.new_secret, [SECRET]
    seal.new_secret = lambda: given.pop() if given else fresh()  # the session's name is made by it, too


if __name__ == "__main__":
    {"unsealed": unsealed, "planted": planted}[sys.argv.pop(1)]()
    from xenplugin.cli.main import main

    main()
