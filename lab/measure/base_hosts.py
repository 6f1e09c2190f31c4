"""What all kinds of hosts (lab.measure.hosts.Hosts) share: their life as a context manager, and timed phases."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from lab.measure.results import Figures


class BaseHosts:
    """Hosts that are prepared when the block begins; `self._stack` undoes it at the end, or if preparing fails.

    A subclass prepares them in `_prepare`.
    """

    def __init__(self) -> None:
        self.figures = Figures(0.0)
        self._phases: dict[str, float] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._prepare()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _prepare(self) -> None:
        raise NotImplementedError

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """See Hosts."""
        began = time.monotonic()
        yield
        self._phases[name] = round(time.monotonic() - began, 3)
