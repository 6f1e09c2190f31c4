"""Labs for tests: brought up once, under a name of their own, and taken down at the end.

A test is skipped with the reason where this machine lacks something. A lab that a killed test run leaves behind is
seen by `xenlab status` and ended by `xenlab down --name`. With XENLAB_TEST_LAB=NAME the tests use that lab of real
hosts, which must be up and stays so.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from lab.hosts.lifecycle.folder import Folder
from lab.hosts.lifecycle.lab import Lab, open_lab
from lab.hosts.provider.registry import provider_class
from lab.hosts.spec import Spec, Suite


@pytest.fixture(scope="session")
def xen_lab() -> Iterator[Lab]:
    """Two Xen hosts and a router under QEMU, ready; no delay, IPsec off until a test asks for it."""
    yield from _up("qemu")


@pytest.fixture(scope="module")
def netns_lab() -> Iterator[Lab]:
    """Two namespaces with a link between them, ready; no delay, IPsec off until a test asks for it."""
    yield from _up("netns")


@pytest.fixture(scope="module")
def netns_ipsec_lab(netns_lab: Lab) -> Lab:
    """netns_lab, where IPsec can be turned on."""
    skip_if_missing(replace(netns_lab.spec, ipsec=Suite.TODAY))
    return netns_lab


def skip_if_missing(spec: Spec) -> None:
    """Skip the test where this machine lacks what a lab like `spec` needs."""
    lacking = provider_class(spec.provider).missing(spec)
    if lacking:
        pytest.skip(f"no {spec.provider} lab on this machine: {'; '.join(lacking)}")


@contextmanager
def brought_up(spec: Spec) -> Iterator[Lab]:
    """The lab `spec`, ready; nothing of it is left at the end."""
    try:
        with open_lab(spec.name, lambda said: print(f"lab: {said}"), spec) as lab:
            try:
                lab.up()
                yield lab
            finally:
                lab.down()
    finally:
        shutil.rmtree(Folder(spec.name).path, ignore_errors=True)


def _up(provider: str) -> Iterator[Lab]:
    there = os.environ.get("XENLAB_TEST_LAB", "")
    if there and provider == "qemu":
        with open_lab(there, lambda said: print(f"lab: {said}")) as lab:
            lab.install()
            yield lab
        return
    spec = Spec(name=f"test-{secrets.token_hex(4)}", provider=provider)
    skip_if_missing(spec)
    with brought_up(spec) as lab:
        yield lab
