"""The formats, and what of an image's make is kept when it is written anew elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xenplugin.errors import PeerError

RAW = "raw"
#: How people call a format, where QEMU's name for it is another.
_NAMES = {"vpc": "VHD"}
_ON_OFF = ("off", "on")
_POWERS = {str(1 << bits) for bits in range(9, 29)}
#: For each format, by QEMU's name, the options of `qemu-img create` that are kept, with their values.
KEPT: dict[str, dict[str, set[str]]] = {
    "qcow2": {
        "compat": {"0.10", "1.1"},
        "cluster_size": _POWERS,
        "lazy_refcounts": {"on", "off"},
        "refcount_bits": {"1", "2", "4", "8", "16", "32", "64"},
        "extended_l2": {"on", "off"},
        "compression_type": {"zlib", "zstd"},
    },
    "qed": {"cluster_size": _POWERS},
    "vdi": {},
    "vhdx": {"block_size": _POWERS},
    "vmdk": {},
    "vpc": {"subformat": {"dynamic", "fixed"}},
}
#: What a size must be a multiple of, in bytes, in every format but raw.
SECTOR = 512


@dataclass(frozen=True)
class Format:
    """How an image is stored: `name` is QEMU's, `options` are those of `qemu-img create -o`, as text."""

    name: str = RAW
    options: tuple[tuple[str, str], ...] = ()

    @property
    def is_raw(self) -> bool:
        """Whether the file holds the image's bytes and nothing else."""
        return self.name == RAW

    @property
    def called(self) -> str:
        """How people call it."""
        return _NAMES.get(self.name, self.name)

    def as_json(self) -> dict[str, Any]:
        """Return it as the other side's `of_json` takes it."""
        return {"name": self.name, "options": dict(self.options)}

    @classmethod
    def of_json(cls, value: object) -> Format:
        """Return the format that the other side describes. Raises PeerError unless every word of it is known: it
        becomes part of a command line."""
        match value:
            case {"name": "raw", "options": {**none}} if not none:
                return cls()
            case {"name": str(name), "options": {**options}} if name in KEPT:
                known = {(key, each) for key, values in KEPT[name].items() for each in values}
                if known.issuperset(given := [(str(key), str(each)) for key, each in options.items()]):
                    return cls(name, tuple(sorted(given)))
        raise PeerError("the job names an image format that this version does not know")


def of_info(name: str, cluster: int | None, specific: Mapping[str, Any], fixed: bool) -> Format:
    """Return the format of an image as `qemu-img info` describes it: `cluster` its cluster size (bytes), `specific`
    what only its format has; `fixed`: a VHD that is allocated in full. An option that this version does not know is
    left to QEMU's default."""
    found: dict[str, str] = {}
    if name == "qcow2":
        found = {"compat": str(specific.get("compat")), "cluster_size": str(cluster)}
        if found["compat"] != "0.10":  # which has none of the others
            found["lazy_refcounts"] = _ON_OFF[specific.get("lazy-refcounts") is True]
            found["extended_l2"] = _ON_OFF[specific.get("extended-l2") is True]
            found["refcount_bits"] = str(specific.get("refcount-bits"))
            found["compression_type"] = str(specific.get("compression-type"))
    elif name == "qed":
        found = {"cluster_size": str(cluster)}
    elif name == "vhdx":
        found = {"block_size": str(cluster)}
    elif name == "vpc":
        found = {"subformat": "fixed" if fixed else "dynamic"}
    known = KEPT[name]
    return Format(name, tuple(sorted((key, value) for key, value in found.items() if value in known[key])))
