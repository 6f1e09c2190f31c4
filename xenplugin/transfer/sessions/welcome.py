"""WELCOME as the source reads it: what the destination has to offer (docs/wire-format.md, section 4)."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, fields

from xenplugin.errors import PeerError
from xenplugin.geometry import MAX_IMAGE

#: The largest numbers that make sense.
_MOST = {"port": 65535, "resumed": MAX_IMAGE, "cores": 65535}


@dataclass(frozen=True)
class WelcomeFields:
    """`port`: where the destination listens, 0 if nowhere; `addresses`: of its host; `resumed`: bytes of an earlier
    try; `placeholder`: it has made an empty file under the final name; `cores`: of its host, 0 if not known;
    `unsure`: it cannot know whether the target is the source's own disk; `flattened`: why the image does not keep
    its backing file, "" if it does or was not to; `room`: why it may have no room for the image, "" if it has."""

    port: int = 0
    addresses: tuple[str, ...] = ()
    resumed: int = 0
    placeholder: bool = False
    cores: int = 0
    unsure: bool = False
    flattened: str = ""
    room: str = ""

    @classmethod
    def parse(cls, text: str) -> WelcomeFields:
        """Return the fields of a WELCOME with the text `text`; unknown ones are ignored. Raises PeerError."""
        try:
            values = json.loads(text)
            values = {"addresses": [], "unsure": False, **values}
            for address in values["addresses"]:
                ipaddress.ip_address(str(address))
        except (ValueError, TypeError, RecursionError):
            raise PeerError("the welcome cannot be read") from None
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        known |= {"unsure": bool(known["unsure"])}
        kinds = {"addresses": list, "placeholder": bool, "unsure": bool, "flattened": str, "room": str}
        if (
            any(type(value) is not kinds.get(name, int) for name, value in known.items())
            or not all(0 <= known.get(name, 0) <= most for name, most in _MOST.items())
            or not all(type(address) is str for address in known["addresses"])
        ):
            raise PeerError("the welcome has fields of the wrong type or out of range")
        return cls(**known | {"addresses": tuple(known["addresses"])})
