"""Each check: what it lets pass, what it warns of, what it refuses, and what to do then."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.xenplugin.migrate.checks.cases import (
    AMD,
    CASE,
    DISK,
    FACTS,
    FOUND,
    GIB,
    GUEST,
    INTEL,
    KERNEL,
    MODEL,
    REACHED,
    REQUEST,
    SCRIPT,
    TOOL,
    answer,
    far,
    guest,
    near,
    xen,
)
from xenplugin.migrate.checks import rules
from xenplugin.migrate.checks.candidate import Staying
from xenplugin.migrate.checks.case import Case
from xenplugin.migrate.checks.facts import HostFacts, Listening, Unusable
from xenplugin.xen.cpu_policy import CpuPolicy
from xenplugin.xen.guest import Disk

SHADOWLESS = ("pv", "hvm", "hap")
OTHER = Unusable("what is wrong", "what to do")
AVX512 = CpuPolicy((INTEL.leaves[0], (7, 0, 0, 1 << 16, 0, 0)), 1 << 31)
HIGHER = CpuPolicy(((0, 0xFFFFFFFF, 0x20, *INTEL.leaves[0][3:]), INTEL.leaves[1]), 1 << 31)
NO_FREE_PORT = replace(REACHED, listening=Listening(0, (), True), address="")


def disks(**values: object) -> Case:
    return far(disks=(replace(FOUND, **values),))  # type: ignore[arg-type]


def cd(path: str = "/srv/a.iso", ejects: bool = False, **values: object) -> Case:
    """The case with a CD image in place of its disk."""
    case = disks(path=path, **values)
    wanted = replace(DISK, device="hdc", path=path, cd=True, sample="x")
    return replace(case, request=replace(REQUEST, disks=(wanted,)), ejects=ejects)


def two(first: int, second: int | None, free: int = 20 * GIB) -> Case:
    """Two disks on one file system, with these bytes of data."""
    wanted = tuple(
        replace(DISK, device=f"xvd{letter}", data=data) for letter, data in (("a", first), ("b", second))
    )
    found = (replace(FOUND, free=free), replace(FOUND, path="/srv/other.img", free=free))
    return replace(far(disks=found), request=replace(REQUEST, disks=wanted))


#: The check, the case, its verdict, what its message says, and whether `--force` passes over it.
TABLE = [
    ("guest-state", near(state="--p---"), "warn", "paused", False),
    ("guest-state", near(state=""), "warn", "not known", False),
    ("guest-state", near(state="---ss-"), "refuse", "shut down", False),
    ("guest-state", near(state="-----d"), "refuse", "destroyed", False),
    ("nomigrate", guest(nomigrate=True), "refuse", "nomigrate=1", True),
    ("guest-type", near(xen=xen(caps=SHADOWLESS)), "refuse", "shadow paging.*PV guests", False),
    ("guest-type", near(xen=xen(caps=(), major=4, minor=13)), "warn", "does not tell", False),
    ("guest-type", far(xen=xen(caps=SHADOWLESS)), "warn", "cannot move on", False),
    ("guest-type", far(xen=xen(caps=("hvm", "hap"))), "refuse", "hostb.*no PV support", False),
    ("suspend", near(suspends=False), "warn", "feature-suspend", False),
    ("devices", guest(staying=(Staying("it has a PCI device", True),)), "refuse", "PCI device", False),
    ("devices", guest(staying=(Staying("it has a virtual TPM", False),)), "refuse", "TPM", True),
    ("memory-below-maximum", guest(kind="hvm", memory=1024, most_memory=4096), "warn", "1 MiB of at most 4", False),
    ("migrating", near(migrating=OTHER), "refuse", "this host: what is wrong", False),
    ("migrating", far(migrating=OTHER), "refuse", "hostb: what is wrong", False),
    ("version", far(version="0.0.9"), "warn", "xenplugin 0.0.9", False),
    ("xen-version", far(xen=xen(minor=16)), "refuse", "4.17.5 here, 4.16.5 on hostb.*older", True),
    ("xen-version", far(xen=xen(major=3, minor=20)), "refuse", "older", True),
    ("xen-version", far(xen=None, xen_why="no xl"), "warn", "^hostb: .* memory and CPUs .*: no xl$", False),
    ("xen-version", near(xen=None, xen_why="xl failed"), "warn", "^this host: .* CPU .*: xl failed$", False),
    ("cpu", far(xen=xen(policy=AMD)), "refuse", "GenuineIntel.*AuthenticAMD", True),
    ("cpu", near(xen=xen(policy=AVX512)), "refuse", "does not have: avx512f$", True),
    ("cpu", near(xen=xen(policy=HIGHER)), "refuse", "more CPUID leaves", True),
    ("cpu", far(xen=xen(policy=None, policy_why="no xen-cpuid")), "warn", "on hostb: no xen-cpuid", False),
    ("cpu", near(xen=xen(policy=None, policy_why="xl failed")), "warn", "on this host: xl failed", False),
    ("memory", far(xen=xen(free=262143)), "refuse", "256.0 MiB", True),
    ("memory", far(xen=xen(free=100000, dom0=1 << 20, takes_from_dom0=True)), "warn", "from dom0", False),
    ("memory", far(xen=xen(free=0, dom0=300000, takes_from_dom0=True)), "refuse", "165.0 MiB", True),
    ("vcpus", far(xen=xen(cpus=1)), "warn", "2 virtual CPUs, hostb only 1", False),
    ("name", far(taken=(OTHER,)), "refuse", "hostb: what is wrong", False),
    ("name", near(taken=(OTHER,)), "refuse", "this host: what is wrong", False),
    ("bridges", far(no_bridge=("xenbr0",)), "refuse", "no bridge xenbr0", False),
    ("bridges", far(no_script=("/etc/xen/scripts/vif-x",)), "refuse", "no network script .*vif-x", False),
    ("files", far(missing=(SCRIPT.path,)), "refuse", "the script that attaches xvdc, .*/block-iscsi", False),
    ("files", far(missing=(TOOL.path,)), "refuse", "iscsiadm, which block-iscsi needs", False),
    ("files", far(missing=(KERNEL.path,)), "warn", "cannot be started again there", False),
    ("files", far(missing=(MODEL.path,)), "refuse", "device model", True),
    ("state-directory", far(state_free=1000), "refuse", "hostb has 1000 B", False),
    ("state-directory", near(state_free=(256 << 10) + 512 * 1024 - 1), "refuse", "this host", False),
    ("state-directory", far(state_unusable=OTHER), "refuse", "hostb: what is wrong", False),
    ("state-directory", near(state_unusable=OTHER), "refuse", "this host: what is wrong", False),
    ("state-directory", far(state_free=None), "warn", "hostb: it is not known", False),
    ("ports", answer(reached=replace(REACHED, address="")), "warn", "port 49300 of hostb cannot be reached", False),
    ("ports", answer(reached=NO_FREE_PORT), "warn", "no free port", False),
    ("clock", answer(ahead=7.25), "warn", "7.2 s ahead of", False),
    ("clock", answer(ahead=-3600.0), "warn", "1 h 00 min behind", False),
    ("disk", replace(CASE, unmovable=(OTHER,)), "refuse", "what is wrong", False),
    ("disk", replace(CASE, remarks=(OTHER,)), "warn", "what is wrong", False),
    ("target", disks(unusable=OTHER), "refuse", "hostb: what is wrong", False),
    ("target", disks(device=True, free=None, unsure=True), "refuse", "whether both hosts share", False),
    ("room", disks(free=GIB - 1), "refuse", "hostb: 1024.0 MiB free", True),
    ("room", two(GIB, GIB, free=2 * GIB - 1), "refuse", "/srv/g1.img, /srv/other.img", True),
    ("room", two(GIB, None, free=2 * GIB), "warn", "up to 5.0 GiB", False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "case", "verdict", "words", "forcible"), TABLE, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(TABLE)]
)
def test_what_it_finds(name: str, case: Case, verdict: str, words: str, forcible: bool) -> None:
    found = [check for check in rules.RULES[name](case) if check.verdict != "pass"]
    assert len(found) == 1 and found[0].name == name, found
    assert (found[0].verdict, found[0].forcible) == (verdict, forcible), found
    assert re.search(words, found[0].text), found[0].text
    assert found[0].hint or verdict == "warn"
    if "--force" in found[0].hint:  # which `xl migrate` does not have
        assert f"xenplugin migrate --force {name}" in found[0].hint


@pytest.mark.parametrize("case", [case for _, case, *_ in TABLE], ids=lambda case: "")
def test_one_fault_makes_no_other_check_refuse(case: Case) -> None:
    """Each refusal is shown alone: it is found by one check."""
    refused = {check.name for check in rules.judge(case) if check.refuses}
    wanted = {name for name, other, verdict, *_ in TABLE if other is case and verdict == "refuse"}
    assert refused == wanted


def test_a_disk_without_a_place_has_no_room_and_no_target() -> None:
    """Nothing passes that was not looked at."""
    assert list(rules.RULES["room"](disks(unusable=OTHER, free=None))) == []
    case = replace(far(disks=()), request=replace(REQUEST, disks=()), unmovable=(OTHER,))
    assert list(rules.RULES["room"](case)) == [] == list(rules.RULES["target"](case))


def test_a_record_that_cannot_be_read_is_said_once() -> None:
    """It makes each disk's claims unknown as well."""
    case = replace(near(migrating=OTHER), unmovable=(OTHER,))
    assert not [check for check in rules.RULES["disk"](case) if check.refuses]
    case = far(migrating=OTHER, disks=(replace(FOUND, unusable=OTHER),))
    assert not [check for check in rules.RULES["target"](case) if check.refuses]
    assert [check.name for check in rules.judge(case) if check.refuses] == ["migrating"]


def test_the_command_in_a_hint_is_quoted() -> None:
    (found,) = rules.RULES["bridges"](far(no_bridge=("br 0; reboot",)))
    assert "ip link add 'br 0; reboot' type bridge" in found.hint


def test_what_stays_is_detached_or_left_out() -> None:
    for detach, words in (
        ("xl pci-detach g1 0000:03:00.0", "^xl pci-detach g1 0000:03:00.0; or"),
        ("", "^take it"),
    ):
        (found,) = rules.RULES["devices"](guest(staying=(Staying("it has one", True, detach),)))
        assert re.search(words, found.hint) and "xenplugin copy" in found.hint, found.hint


def test_every_check_passes_or_speaks_and_each_fails_once_here() -> None:
    passed = rules.judge(CASE)
    assert all(check.verdict == "pass" and check.text and not check.hint for check in passed)
    assert {check.name for check in passed} == set(rules.RULES)
    assert {name for name, *_ in TABLE} == set(rules.RULES)


def test_a_guest_without_anything_gets_an_answer_of_each_check() -> None:
    bare = replace(GUEST, files=(), bridges=())
    case = replace(far(disks=()), guest=bare, request=replace(REQUEST, files=(), bridges=(), disks=()))
    found = rules.judge(case)
    assert [check.name for check in found] == list(rules.RULES) and {check.verdict for check in found} == {"pass"}


def test_what_can_be_forced_is_what_has_refused_so() -> None:
    assert {name for name, *_, forcible in TABLE if forcible} == set(rules.FORCIBLE)


def test_hvm_guests_need_hardware_virtualisation_there() -> None:
    hvm = guest(kind="hvm", hap=True)
    for caps, lacks in ((("pv",), "hardware virtualisation"), (("hvm", "shadow"), "hardware-assisted paging")):
        case = replace(hvm, far=replace(hvm.far, facts=replace(FACTS, xen=xen(caps=caps))))
        (found,) = [check for check in rules.RULES["guest-type"](case) if check.refuses]
        assert lacks in found.text
    shadow = replace(hvm, guest=replace(hvm.guest, hap=False))
    case = replace(shadow, far=replace(hvm.far, facts=replace(FACTS, xen=xen(caps=("hvm", "shadow")))))
    assert not [check for check in rules.RULES["guest-type"](case) if check.refuses]


def test_what_becomes_of_each_disk_is_said() -> None:
    script = Disk("xvdc", "iqn=x", True, "vbd", "phy", script="block-iscsi")
    for case, said in (
        (CASE, "xvda: /srv/g1.img, 4.0 GiB"),
        (disks(stays="shared"), "xvda stays: both hosts share /srv/g1.img"),
        (cd(), "hdc: the CD image moves along: /srv/a.iso, 4.0 GiB"),
        (cd(stays="cd"), "hdc: hostb has the CD image /srv/a.iso"),
        (cd(stays="cd", ejects=True), "hdc: hostb has the CD image /srv/a.iso"),
        (cd(ejects=True), "hdc arrives empty: hostb does not have the CD image /srv/a.iso"),
        (cd(ejects=True, unusable=OTHER), "hdc arrives empty: hostb does not have the CD image /srv/a.iso"),
        (replace(CASE, scripts=(script,)), "xvdc stays: its block script attaches iqn=x on hostb"),
    ):
        found = rules.judge(case)
        assert said in [check.text for check in found if check.name == "disk"] and not [
            check for check in found if check.refuses
        ], (said, found)


def test_a_cd_in_a_drive_of_this_host_is_ejected_or_refused() -> None:
    (found,) = rules.RULES["target"](cd("/dev/sr0", unusable=Unusable("no such device", "make a volume")))
    assert found.refuses and "cds = " in found.hint
    (found,) = rules.RULES["target"](cd("/srv/a.iso", unusable=OTHER))
    assert found.refuses and found.hint == OTHER.hint


@pytest.mark.parametrize("minor", [17, 18, 20])
def test_a_newer_xen_is_as_good(minor: int) -> None:
    assert [check.verdict for check in rules.RULES["xen-version"](far(xen=xen(minor=minor)))] == ["pass"]


def test_many_features_are_counted_not_listed() -> None:
    policy = CpuPolicy((INTEL.leaves[0], (7, 0, 0, 0xFFFFFFFF, 0, 0)), 1 << 31)
    (found,) = rules.RULES["cpu"](near(xen=xen(policy=policy)))
    assert re.search("(, [^,]+){7} and 23 more$", found.text), found.text


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (replace(FOUND, aside="/srv/g1.img.left-for-hosta"), "the old disk /srv/g1.img.left-for-hosta is the base"),
        (replace(FOUND, size=GIB), r"the file there \(1.0 GiB\) is the base"),
        (replace(FOUND, size=0), "a new file"),
        (replace(FOUND, device=True, size=4 * GIB, free=None), "written in place"),
        (
            replace(FOUND, device=True, aside="/dev/vg0/g1.left", free=None),
            "the volume /dev/vg0/g1.left gets its name",
        ),
    ],
)
def test_what_is_at_the_place_of_a_disk(found: object, words: str) -> None:
    (check,) = rules.RULES["target"](far(disks=(found,)))
    assert check.verdict == "pass" and re.search(words, check.text)


def test_disks_on_two_file_systems_have_room_each() -> None:
    case = two(GIB, GIB, free=GIB)
    other = (case.far.facts.disks[0], replace(case.far.facts.disks[1], file_system=1))
    case = replace(case, far=replace(case.far, facts=replace(case.far.facts, disks=other)))
    assert [check.verdict for check in rules.RULES["room"](case)] == ["pass", "pass"]


UNKNOWN = st.sampled_from(
    [
        {"xen": None, "xen_why": "unknown"},
        {"xen": xen(policy=None, policy_why="unknown", dom0=None)},
        {"xen": xen(caps=())},
        {"state": ""},
        {"suspends": None},
        {"state_free": None},
        {},
    ]
)


@given(UNKNOWN, UNKNOWN, st.sampled_from(["pv", "pvh", "hvm"]), st.floats(-1e9, 1e9))
def test_whatever_is_unknown_every_check_answers(
    one: dict[str, object], other: dict[str, object], kind: str, ahead: float
) -> None:
    def facts(base: HostFacts, values: dict[str, object]) -> HostFacts:
        return replace(base, **values)  # type: ignore[arg-type]

    case = Case(
        replace(GUEST, kind=kind),
        REQUEST,
        facts(CASE.near, one),
        replace(CASE.far, facts=facts(FACTS, other), ahead=ahead),
        "hostb",
    )
    found = rules.judge(case)
    silent = set(rules.RULES) - {check.name for check in found}
    assert silent <= {"guest-type", "cpu", "memory", "vcpus", "suspend"}
    unknown = [case.near.xen, case.far.facts.xen].count(None)
    assert sum("Xen is not known" in check.text for check in found) == unknown
    assert unknown or silent <= {"suspend"}
    for check in found:
        assert check.verdict == "pass" or check.text
        assert not check.refuses or check.hint


def test_the_documents_have_every_check() -> None:
    text = (Path(__file__).parents[4] / "docs" / "migration.md").read_text(encoding="utf-8")
    part = text.partition("\n## Checks\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \|(.*)\|$", part, re.MULTILINE)
    assert [name for name, _ in rows] == list(rules.RULES)
    assert {name for name, rest in rows if rest.split("|")[-1].strip().startswith("yes")} == set(rules.FORCIBLE)
