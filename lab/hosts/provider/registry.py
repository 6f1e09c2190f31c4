"""Which provider a lab's spec names."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from lab.hosts.interface import Provider, Say
from lab.hosts.spec import Spec

_CLASSES = {"qemu": "QemuProvider", "netns": "NetnsProvider", "vagrant": "VagrantProvider"}


def provider_class(name: str) -> type[Provider]:
    """The class of provider `name`, imported only when it is wanted."""
    found: type[Provider] = getattr(import_module(f"lab.hosts.provider.{name}"), _CLASSES[name])
    return found


def provider_of(spec: Spec, folder: Path, say: Say) -> Provider:
    """The provider that `spec` asks for."""
    return provider_class(spec.provider)(spec, folder, say)
