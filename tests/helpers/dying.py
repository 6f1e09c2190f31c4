"""A function that dies at a call, for tests of what a crash leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


class Killed(Exception):
    """In place of the death of the process."""


def dying(patch: pytest.MonkeyPatch, module: Any, name: str, times: int, after: bool) -> None:
    """Have the function `name` of `module` die at its call number `times`, before or after it has done its work."""
    work: Callable[..., Any] = getattr(module, name)
    left = [times]

    def step(*words: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and not after:
            raise Killed
        result = work(*words, **more)
        if left[0] == 0:
            raise Killed
        return result

    patch.setattr(module, name, step)
