"""Kernel settings of one namespace, written through /proc/sys from a thread that is in it.

The congestion control is special: a namespace may choose only one that the machine's first namespace allows to
all (net.ipv4.tcp_allowed_congestion_control), else the kernel returns EPERM. So the algorithm is allowed while it
is being chosen and the list is restored at once; the namespace keeps its choice.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from pathlib import Path

from netem import netns
from netem.errors import HostsError

_CHOICE = "net.ipv4.tcp_congestion_control"
_ALLOWED = "net.ipv4.tcp_allowed_congestion_control"


def write_in(namespace: str, settings: Mapping[str, str]) -> None:
    """Write `settings` (name with dots -> value) in `namespace`. Raises HostsError."""
    for key, value in settings.items():
        try:
            netns.call(namespace, lambda key=key, value=value: _write(key, value))  # type: ignore[misc]
        except OSError as error:
            if key != _CHOICE or error.errno != errno.EPERM:
                raise _refused(key, value, error) from None
            try:
                with _allowed(value):
                    netns.call(namespace, lambda value=value: _write(_CHOICE, value))  # type: ignore[misc]
            except OSError as second:
                raise _refused(key, value, second) from None


@contextlib.contextmanager
def _allowed(algorithm: str) -> Iterator[None]:
    old = _path(_ALLOWED).read_text(encoding="ascii")
    _write(_ALLOWED, f"{old.strip()} {algorithm}")
    try:
        yield
    finally:
        _write(_ALLOWED, old)


def _write(key: str, value: str) -> None:
    _path(key).write_text(value, encoding="ascii")


def _path(key: str) -> Path:
    return Path("/proc/sys", *key.split("."))


def _refused(key: str, value: str, error: OSError) -> HostsError:
    return HostsError(f"sysctl {key} = {value}: {error.strerror}")
