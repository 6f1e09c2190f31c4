"""Each version of Xen, from an empty cache: its image is built from today's packages, boots, and a guest moves.

All other tests take the image from the cache, which hides what has changed in Debian's archive since it was built.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator

import pytest

from lab.hosts.guest.guest_type import NO_PV, GuestType
from lab.hosts.image import build
from lab.hosts.image.build import HostImage
from lab.hosts.lifecycle.lab import Lab
from lab.hosts.role import xenhost
from lab.hosts.spec import Spec, Xen
from lab.pytest_plugin import brought_up, skip_if_missing
from tests.helpers.xen_moves import Guest, clean, hosts, moved

pytestmark = [pytest.mark.lab, pytest.mark.slow]
GUESTS = {GuestType.PV: "g1", GuestType.PVH: "g3", GuestType.HVM: "g4"}


@pytest.fixture(scope="module", params=Xen)
def fresh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of that version, whose image was built into an empty cache."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        spec = Spec(name=f"test-{secrets.token_hex(4)}", xen=request.param)
        skip_if_missing(spec)
        try:
            with brought_up(spec) as lab:
                yield lab
        finally:
            shutil.rmtree(cache)


@pytest.fixture
def image(fresh: Lab) -> HostImage:
    found = build.cached(fresh.spec.xen)
    assert found is not None
    print(found.words)
    return found


def test_what_runs_is_what_was_built_today(fresh: Lab, image: HostImage) -> None:
    """The package's configuration and the running hypervisor agree about the guests that can be migrated. (Versions
    need not agree: Debian's 4.20.4+63 is a snapshot that calls itself 4.20.5-pre.)"""
    assert "packages of today" in image.words
    for node in hosts(fresh):
        package = f"xen-hypervisor-{fresh.spec.xen}-amd64"
        assert node.check(["dpkg-query", "-W", "-f", "${Version}", package]) == image.version
        assert xenhost.answering(node).guests is image.guests


@pytest.mark.parametrize("kind", GuestType)
def test_a_guest_moves_with_its_disk(fresh: Lab, image: HostImage, kind: GuestType) -> None:
    if kind is GuestType.PV and image.guests is not GuestType.PV:
        pytest.skip(f"Xen {image.version}: {NO_PV}")
    a, b = hosts(fresh)
    guest = Guest(fresh, GUESTS[kind], ["memory=128"])
    try:
        guest.create(a)
        guest.forget_disk(b)
        result = moved(a, b, guest.name, "--streams", "2", "--level", "1")
        assert result["mode"] == "live" and guest.home().node.name == b.name
        guest.check_whole()
        assert [clean(node) for node in (a, b)] == [[], []]
    finally:
        guest.destroy()
