"""Hints for what goes wrong while a tree is built."""

from __future__ import annotations

import pytest

from lab.hosts.image import isolated


@pytest.mark.parametrize(
    ("output", "hint"),
    [
        ("E: Package 'xen-utils-4.20' has no installation candidate", "no longer has a package"),
        ("E: Unable to locate package xen-utils-4.17", "no longer has a package"),
        ("Err:1 http://mirror.example Could not resolve 'mirror.example'", "must be reachable"),
        ("cp: error: No space left on device", "make room"),
    ],
)
def test_known_failures_have_a_hint(output: str, hint: str) -> None:
    assert hint in str(isolated._hint(output))


def test_others_have_none() -> None:
    assert isolated._hint("E: Sub-process dpkg returned an error code") is None
