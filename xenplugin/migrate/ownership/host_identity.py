"""The identity of a host: its machine id and its ssh host key. It shows when a name leads to another machine now.

The hosts of a migration exchange them inside the sealed session, and keep each other's in their records."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MACHINE_ID = Path("/etc/machine-id")
HOST_KEYS = Path("/etc/ssh")
#: The kind that OpenSSH prefers comes first.
_KINDS = ("ed25519", "ecdsa", "rsa")
_LONGEST = 100


@dataclass(frozen=True)
class HostIdentity:
    """`machine`: a hash of the machine id, which is not to be shown to others as it is (machine-id(5)); `key`: the
    fingerprint of the ssh host key. Each is empty if it is not known."""

    machine: str = ""
    key: str = ""

    @property
    def fields(self) -> dict[str, str]:
        """The identity as fields of a message."""
        return asdict(self)

    def same(self, other: HostIdentity) -> bool | None:
        """Return whether both are one machine: True unless something that both know differs, False if everything
        that both know differs, None if only a part does."""
        both = [(self.machine, other.machine), (self.key, other.key)]
        agree = {mine == theirs for mine, theirs in both if mine and theirs}
        return None if len(agree) == 2 else agree != {False}


def here() -> HostIdentity:
    """Return the identity of this host."""
    machine = ""
    with suppress(OSError, ValueError):
        number = bytes.fromhex(MACHINE_ID.read_text(encoding="ascii").strip())
        machine = hashlib.blake2b(b"xenplugin", key=number, digest_size=16).hexdigest() if number else ""
    return HostIdentity(machine, next(filter(None, map(_fingerprint, _KINDS)), ""))


def of_fields(fields: Mapping[str, Any]) -> HostIdentity:
    """Return the identity in a message of another host; a value that cannot be one counts as not known."""
    found = (fields.get(key) for key in ("machine", "key"))
    return HostIdentity(*(text if isinstance(text, str) and _plain(text) else "" for text in found))


def _plain(text: str) -> bool:
    return len(text) <= _LONGEST and text.isascii() and text.isprintable()


def _fingerprint(kind: str) -> str:
    with suppress(OSError, ValueError, IndexError, binascii.Error):
        words = (HOST_KEYS / f"ssh_host_{kind}_key.pub").read_text(encoding="ascii").split()
        digest = hashlib.sha256(base64.b64decode(words[1], validate=True)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
    return ""
