"""The job: what the source asks of the far side, one line of JSON (docs/wire-format.md, section 4)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from xenplugin.codec.seal import SECRET_BYTES, cipher_named
from xenplugin.errors import ConfigError, PeerError
from xenplugin.geometry import MAX_IMAGE
from xenplugin.wire.preamble import Cipher


@dataclass(frozen=True)
class Job:
    """`local`: both sides are on this machine; `whole`: whatever the target holds is no base."""

    secret: bytes = field(repr=False)
    session: bytes
    cipher: Cipher
    size: int
    path: str
    whole: bool
    local: bool

    @classmethod
    def parse(cls, line: bytes) -> Job:
        """Raises PeerError."""
        try:
            values = json.loads(line)
            if values["protocol"] != 1:
                raise PeerError(f"the source speaks version {values['protocol']!r} of the sealed stream")
            job = cls(
                bytes.fromhex(values["secret"]),
                bytes.fromhex(values["session"]),
                cipher_named(str(values["cipher"])),
                values["size"],
                values["path"],
                values["whole"],
                values["local"],
            )
        except (ValueError, KeyError, TypeError, RecursionError, ConfigError):
            raise PeerError("a job that cannot be read") from None
        kinds = [type(value) for value in (job.size, job.path, job.whole, job.local)]
        if (
            kinds != [int, str, bool, bool]
            or (len(job.secret), len(job.session)) != (SECRET_BYTES, 16)
            or not 0 <= job.size <= MAX_IMAGE
            or not job.path
            or "\0" in job.path
        ):
            raise PeerError("a job that makes no sense")
        return job

    def line(self) -> bytes:
        """As it crosses the control channel, with its line feed."""
        values = {
            "protocol": 1,
            "secret": self.secret.hex(),
            "session": self.session.hex(),
            "cipher": self.cipher.label,
            "size": self.size,
            "path": self.path,
            "whole": self.whole,
            "local": self.local,
        }
        return (json.dumps(values) + "\n").encode()
