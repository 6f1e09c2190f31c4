"""The description of a lab: one immutable value, kept in the lab's folder as JSON.

The link is a netem Profile. IPsec is off or uses one of two suites: the paper's (AES-128 with HMAC-SHA-1, its
table 3) or today's (AES-128-GCM).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from lab.errors import LabUsageError
from netem.profile import Profile


class Suite(StrEnum):
    """IPsec between the hosts; the values are strongSwan's ESP proposals."""

    OFF = "off"
    PAPER = "aes128-sha1"
    TODAY = "aes128gcm16"


class Auth(StrEnum):
    """How the hosts authenticate to each other in IKEv2."""

    PSK = "psk"
    CERT = "cert"


class Xen(StrEnum):
    """The versions of Xen in Debian 12 and Debian 13."""

    V4_17 = "4.17"
    V4_20 = "4.20"

    @property
    def debian(self) -> str:
        """The code name of the Debian release that has this version."""
        return {"4.17": "bookworm", "4.20": "trixie"}[self.value]


PROVIDERS = ("qemu", "netns", "vagrant")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}\Z")


def check_name(name: str) -> None:
    """Raise LabUsageError unless `name` can be the name of a lab, and so of its folder."""
    if not _NAME.match(name):
        raise LabUsageError(
            f"{name!r} is not a valid name for a lab: use lower-case letters, digits and -, at most 20"
        )


@dataclass(frozen=True)
class Spec:
    """Everything that is chosen about a lab. Raises LabUsageError.

    name: distinguishes the labs of one user. router_image: a FreeBSD disk image for the router, whose link is then
    made by Dummynet; None means Linux with tc netem.
    """

    name: str = "lab"
    provider: str = "qemu"
    link: Profile = field(default_factory=Profile)
    ipsec: Suite = Suite.OFF
    auth: Auth = Auth.PSK
    xen: Xen = Xen.V4_17
    router_image: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.provider not in PROVIDERS:
            raise LabUsageError(f"there is no provider {self.provider!r}", hint=f"one of {', '.join(PROVIDERS)}")

    def as_dict(self) -> dict[str, Any]:
        """Return the values as they are stored in JSON."""
        return {**asdict(self), "link": self.link.as_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Spec:
        """Make a Spec from what `as_dict` returned; unknown keys are ignored. Raises LabUsageError."""
        try:
            known = {each.name for each in fields(cls)}
            given = {key: value for key, value in values.items() if key in known}
            return cls(
                **{
                    **given,
                    "link": Profile.from_dict(given["link"]),
                    "ipsec": Suite(given["ipsec"]),
                    "auth": Auth(given["auth"]),
                    "xen": Xen(given["xen"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LabUsageError(f"the description of the lab is malformed: {error}") from None
