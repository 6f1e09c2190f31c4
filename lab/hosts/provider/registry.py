"""The providers by name."""

from __future__ import annotations

from pathlib import Path

from lab.hosts.interface import Provider, Say
from lab.hosts.provider.netns import NetnsProvider
from lab.hosts.provider.qemu import QemuProvider
from lab.hosts.provider.vagrant import VagrantProvider
from lab.hosts.spec import Spec

_CLASSES: dict[str, type[Provider]] = {"qemu": QemuProvider, "netns": NetnsProvider, "vagrant": VagrantProvider}


def provider_class(name: str) -> type[Provider]:
    """Return the class of provider `name`, one of lab.hosts.spec.PROVIDERS."""
    return _CLASSES[name]


def provider_of(spec: Spec, folder: Path, say: Say) -> Provider:
    """Make the provider that `spec` names."""
    return provider_class(spec.provider)(spec, folder, say)
