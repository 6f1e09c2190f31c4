"""The job: what the source asks of the destination, one line of JSON (docs/wire-format.md, section 4)."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from xenplugin.codec.seal import SECRET_BYTES, cipher_named, new_secret
from xenplugin.errors import ConfigError, PeerError, RefusedError
from xenplugin.geometry import MAX_IMAGE
from xenplugin.image.path_text import canonical
from xenplugin.image.target.device_size import LARGER_DEVICE, REFUSE
from xenplugin.wire.preamble import VERSION, Cipher

MAX_LINE = 65536
_MIGRATION = re.compile("([0-9a-f]{32})?")
IMAGE, DOMAIN, MEASUREMENT = "image", "domain", "measurement"
_FIELDS: dict[str, dict[str, type]] = {
    IMAGE: {
        "size": int,
        "path": str,
        "whole": bool,
        "live": bool,
        "new": bool,
        "migration": str,
        "format": dict,
        "backing": dict,
        "larger_device": str,
        "data": int,
        "disk": dict,
    },
    DOMAIN: {"details": dict},
    MEASUREMENT: {"images": list},
}


@dataclass(frozen=True)
class MeasuredImage:
    """An image that a measurement asks about: `size` bytes that would go to `path`; `live`: as a guest's disk;
    `format`: how the source stores it (image.formats.kinds); `backing`, `data`: as those of a job."""

    path: str
    size: int
    live: bool
    format: dict[str, Any]
    backing: dict[str, Any]
    data: int = 0

    @classmethod
    def of(cls, values: Any) -> MeasuredImage:
        """Return the image that `values`, from the network, describe. Raises ValueError, KeyError, TypeError."""
        image = cls(
            canonical(values["path"]),
            values["size"],
            values["live"],
            values["format"],
            values["backing"],
            values["data"],
        )
        kinds = (str, int, bool, dict, dict, int)
        if (
            any(type(value) is not kind for value, kind in zip(vars(image).values(), kinds, strict=True))
            or not 0 <= image.data <= image.size <= MAX_IMAGE
        ):
            raise ValueError("an image of a measurement is malformed")
        return image


@dataclass(frozen=True)
class Job:
    """What to receive. `kind` IMAGE: `size` bytes go to `path`; `whole`: send all of it, whatever the target
    holds; `live`: the image is written to meanwhile; `new`: nothing at `path` may be replaced; `migration`: the id
    of the migration that it belongs to, "" for a copy; `format`: how the source stores it (image.formats.kinds);
    `backing`: the backing file that it is to keep (image.source.backing), empty if none; `larger_device`: what
    becomes of the rest of a larger device (of no meaning if `live`: the host that receives a guest decides that);
    `data`: bytes of the image that are no holes, 0 if not known; `disk`: its identity
    (image.safety.shared_storage). `kind` DOMAIN: a stream, described by `details`. `kind` MEASUREMENT: nothing;
    the source asks what there is of `images`. `local`: both sides are on this machine."""

    secret: bytes = field(repr=False)
    session: bytes
    cipher: Cipher
    local: bool
    kind: str = IMAGE
    size: int = 0
    path: str = ""
    whole: bool = False
    live: bool = False
    new: bool = False
    migration: str = ""
    format: dict[str, Any] = field(default_factory=dict)
    backing: dict[str, Any] = field(default_factory=dict)
    larger_device: str = REFUSE
    data: int = 0
    disk: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    images: tuple[MeasuredImage, ...] = ()

    @classmethod
    def fresh(cls, cipher: str | None, local: bool, **fields: Any) -> Job:
        """Return a job with new secrets; `cipher` as the user named it."""
        return cls(new_secret(), new_secret()[:16], cipher_named(cipher), local, **fields)

    @classmethod
    def parse(cls, line: bytes) -> Job:
        """Return the job that `line` describes. Raises PeerError."""
        try:
            values = json.loads(line)
            if values["protocol"] != VERSION:
                raise PeerError(
                    f"the source speaks version {values['protocol']!r} of the sealed stream, this side {VERSION}",
                    hint="install the same version of xenplugin on both sides",
                )
            own = _FIELDS[values["kind"]]
            given = {name: values[name] for name in own}
            if values["kind"] == MEASUREMENT:
                given["images"] = tuple(map(MeasuredImage.of, values["images"]))
            if values["kind"] == IMAGE:
                given["path"] = canonical(values["path"])
            job = cls(
                bytes.fromhex(values["secret"]),
                bytes.fromhex(values["session"]),
                cipher_named(str(values["cipher"])),
                values["local"],
                values["kind"],
                **given,
            )
        except (ValueError, KeyError, TypeError, RecursionError, ConfigError):
            raise PeerError("the job cannot be read") from None
        if (
            any(type(values[name]) is not kind for name, kind in {**own, "local": bool}.items())
            or (len(job.secret), len(job.session)) != (SECRET_BYTES, 16)
            or not 0 <= job.data <= job.size <= MAX_IMAGE
            or not _MIGRATION.fullmatch(job.migration)
            or job.larger_device not in LARGER_DEVICE
        ):
            raise PeerError("the job has fields of the wrong type or out of range")
        return job

    def line(self) -> bytes:
        """Return the job as one line, with its line feed. Raises RefusedError if it is too long."""
        values = {
            "protocol": VERSION,
            "secret": self.secret.hex(),
            "session": self.session.hex(),
            "cipher": self.cipher.label,
            "local": self.local,
            "kind": self.kind,
            **{name: getattr(self, name) for name in _FIELDS[self.kind]},
        }
        if self.kind == MEASUREMENT:
            values["images"] = [asdict(image) for image in self.images]
        line = (json.dumps(values) + "\n").encode()
        if len(line) > MAX_LINE:
            raise RefusedError(
                f"what the far side must know takes {len(line)} bytes, {MAX_LINE} are allowed",
                hint="give the disks shorter paths",
            )
        return line
