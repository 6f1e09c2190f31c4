"""Descriptors that are kept free until they are needed."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator

import pytest

from xenplugin.errors import RefusedError
from xenplugin.migrate.ownership.spare_descriptors import SpareDescriptors

Opened = Callable[[], int]


@pytest.fixture
def free() -> Iterator[Opened]:
    """Returns how many files can be opened now, of 64 at the beginning."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 64, hard))

    def count() -> int:
        found = []
        try:
            while True:
                found.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            for fd in found:
                os.close(fd)
            return len(found)

    yield count
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_they_are_kept_lent_and_given_back(free: Opened) -> None:
    before = free()
    spare = SpareDescriptors(10)
    assert free() == before - 10
    for _ in range(3):
        with spare.lent():
            assert free() == before - 6
        assert free() == before - 10
    spare.release()
    assert free() == before
    with spare.lent():
        assert free() == before
    assert free() == before


def test_too_few_are_refused(free: Opened) -> None:
    before = free()
    with pytest.raises(RefusedError, match="Too many open files") as caught:
        SpareDescriptors(before + 1)
    assert caught.value.hint and "ulimit" in caught.value.hint
    assert free() == before


def test_what_was_lent_and_is_used_up_does_no_harm(free: Opened) -> None:
    before = free()
    spare = SpareDescriptors(before)
    with spare.lent():
        taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    spare.release()
    assert free() == before - 3
    for fd in taken:
        os.close(fd)
