"""What verbs share: the lab's name, and where progress goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from lab.progress import Progress

F = TypeVar("F", bound=Callable[..., Any])


def name_option(command: F) -> F:
    """--name: which lab of this user's."""
    return click.option("--name", default="lab", show_default=True, metavar="LAB", help="Which lab.")(command)


@contextmanager
def progress() -> Iterator[Progress]:
    """A `Say` on standard error; the terminal is left as it was, whatever happens."""
    shown = Progress(sys.stderr)
    try:
        yield shown
    finally:
        shown.close()
