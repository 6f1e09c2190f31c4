"""The description of a lab: invalid values are refused, and JSON reads back as it was written."""

from __future__ import annotations

import json

import pytest

from lab.errors import LabUsageError
from lab.hosts.spec import Auth, Spec, Suite, Xen
from netem.profile import Profile


def test_reads_back_as_it_was_written() -> None:
    spec = Spec(
        name="far-off",
        provider="vagrant",
        link=Profile.parse(rtt="120ms", rate="100mbit", loss="0.1%"),
        ipsec=Suite.PAPER,
        auth=Auth.CERT,
        xen=Xen.V4_20,
        router_image="/images/freebsd.qcow2",
    )
    assert Spec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec


@pytest.mark.parametrize("name", ["", "A", "1a", "a b", "a/b", "../a", "a" * 21, "a\n"])
def test_invalid_lab_names_are_refused(name: str) -> None:
    with pytest.raises(LabUsageError):
        Spec(name=name)


def test_an_unknown_provider_is_refused_with_what_there_is() -> None:
    with pytest.raises(LabUsageError) as error:
        Spec(provider="kvm")
    assert "qemu" in (error.value.hint or "")


@pytest.mark.parametrize("change", [{"link": {"rtt": -1}}, {"link": None}, {"ipsec": "des"}, {"xen": "3.0"}])
def test_what_cannot_be_read_is_a_usage_error(change: dict[str, object]) -> None:
    with pytest.raises(LabUsageError):
        Spec.from_dict(Spec().as_dict() | change)
    with pytest.raises(LabUsageError):
        Spec.from_dict({})
