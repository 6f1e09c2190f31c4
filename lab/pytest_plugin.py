"""Fixtures that bring a lab up once, under a random name, and take it down at the end.

A test is skipped with the reason if this machine lacks something. If a test run is killed, `xenlab status` shows
the lab that it leaves behind, and `xenlab down --name` removes it. With XENLAB_TEST_LAB=NAME the tests use that lab
of real hosts, which must be up and stays up.
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
    """Two Xen hosts and a router under QEMU, ready, at first without delay and IPsec."""
    yield from _up("qemu")


@pytest.fixture(scope="module")
def netns_lab() -> Iterator[Lab]:
    """Two namespaces with a link between them, ready, at first without delay and IPsec."""
    yield from _up("netns")


@pytest.fixture(scope="module")
def netns_ipsec_lab(netns_lab: Lab) -> Lab:
    """The netns_lab, on a machine where IPsec can be turned on."""
    skip_if_missing(replace(netns_lab.spec, ipsec=Suite.TODAY))
    return netns_lab


def skip_if_missing(spec: Spec) -> None:
    """Skip the test if this machine lacks what a lab like `spec` needs."""
    lacking = provider_class(spec.provider).missing(spec)
    if lacking:
        pytest.skip(f"no {spec.provider} lab on this machine: {'; '.join(lacking)}")


@contextmanager
def brought_up(spec: Spec) -> Iterator[Lab]:
    """Bring the lab `spec` up; nothing of it is left at the end."""
    try:
        with open_lab(spec.name, _report, spec) as lab:
            try:
                lab.up()
                yield lab
            finally:
                lab.down()
    finally:
        shutil.rmtree(Folder(spec.name).path, ignore_errors=True)


def _report(text: str) -> None:
    print(f"lab: {text}")


def _up(provider: str) -> Iterator[Lab]:
    there = os.environ.get("XENLAB_TEST_LAB", "")
    if there and provider == "qemu":
        with open_lab(there, _report) as lab:
            lab.install()
            yield lab
        return
    spec = Spec(name=f"test-{secrets.token_hex(4)}", provider=provider)
    skip_if_missing(spec)
    with brought_up(spec) as lab:
        yield lab
