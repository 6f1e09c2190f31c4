"""What verbs share: the lab's name, and where progress goes."""

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
    """--name: which lab of this user's."""
    return click.option("--name", default="lab", show_default=True, metavar="LAB", help="Which lab.")(command)


def choice(values: Any) -> click.Choice:  # type: ignore[type-arg, unused-ignore]
    """One of the values of an enumeration."""
    return click.Choice([str(value.value) for value in values])


def xen_option(command: F) -> F:
    """--xen: of which version the image is to be."""
    made = click.option(
        "--xen", type=choice(Xen), default=Xen.V4_17.value, show_default=True, help="Version of Xen."
    )
    return made(command)


@contextmanager
def progress() -> Iterator[Progress]:
    """A `Say` on standard error; the terminal is left as it was, whatever happens."""
    shown = Progress(sys.stderr)
    try:
        yield shown
    finally:
        shown.close()
