"""Options and progress that several verbs share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from lab.hosts.spec import Xen
from lab.progress import Progress

F = TypeVar("F", bound=Callable[..., Any])


def name_option(command: F) -> F:
    """Add --name, the name of the lab, to a command."""
    return click.option("--name", default="lab", show_default=True, metavar="LAB", help="Name of the lab.")(command)


def choice(values: Any) -> click.Choice:  # type: ignore[type-arg, unused-ignore]
    """Return the type of an option that takes one of the values of an enumeration."""
    return click.Choice([str(value.value) for value in values])


def xen_option(command: F) -> F:
    """Add --xen, the version of Xen in the image, to a command."""
    made = click.option(
        "--xen", type=choice(Xen), default=Xen.V4_17.value, show_default=True, help="Version of Xen."
    )
    return made(command)


@contextmanager
def progress() -> Iterator[Progress]:
    """Show progress on standard error, and restore the terminal at the end."""
    shown = Progress(sys.stderr)
    try:
        yield shown
    finally:
        shown.close()
