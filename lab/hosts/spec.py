"""What lab is wanted: one frozen value, kept beside the lab as JSON.

The link is netem's Profile. IPsec is off or one of two suites: the paper's (AES-128, HMAC-SHA-1; its table 3) and
today's (AES-128-GCM).
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
    """How the hosts prove themselves to each other (IKEv2)."""

    PSK = "psk"
    CERT = "cert"


class Xen(StrEnum):
    """Versions of Xen: Debian 12's and Debian 13's."""

    V4_17 = "4.17"
    V4_20 = "4.20"

    @property
    def debian(self) -> str:
        """The Debian release that has it."""
        return {"4.17": "bookworm", "4.20": "trixie"}[self.value]


PROVIDERS = ("qemu", "netns", "vagrant")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}\Z")


def check_name(name: str) -> None:
    """Names become folders. Raises LabUsageError."""
    if not _NAME.match(name):
        raise LabUsageError(f"{name!r} is no name for a lab: small letters, digits and -, 20 at most")


@dataclass(frozen=True)
class Spec:
    """`name` tells labs of one user apart. `router_image`: a FreeBSD disk image for the router, which is then
    configured by Dummynet over ssh; None is Linux with tc netem. Raises LabUsageError."""

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
            raise LabUsageError(f"no provider {self.provider!r}", hint=f"one of {', '.join(PROVIDERS)}")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "link": self.link.as_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Spec:
        """The opposite of as_dict. Raises LabUsageError."""
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
            raise LabUsageError(f"this is not the description of a lab: {error}") from None
