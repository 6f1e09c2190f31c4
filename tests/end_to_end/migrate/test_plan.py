"""The checks before a guest moves, between two fake Xen hosts: by `plan`, by `migrate` and through the shim."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.world import MIB, World
from tests.helpers.program import Done, Running, wait_until
from xenplugin.migrate.checks.rules import RULES


def planned(world: World, *options: str, code: int = 0, ssh: str = "", host: str = "hostb") -> Done:
    words = ["plan", "-s", ssh or world.ssh, *options, "g1", host]
    done = world.a.start(world.a.root / "bin" / "xenplugin", *words).end()
    assert done.code == code, f"exit {done.code}: {done.out}{done.err}"
    return done


def checks(done: Done, verdict: str) -> dict[str, str]:
    """The texts of the checks with this verdict, by their names."""
    return {one["name"]: one["text"] for one in json.loads(done.out)["checks"] if one["verdict"] == verdict}


def calls(world: World) -> list[str]:
    """What xl was asked for on host a that does more than look."""
    return [line for line in (world.a.root / "xl.log").read_text().splitlines() if "migrate" in line.split()]


@pytest.fixture(autouse=True)
def logged(world: World) -> None:
    """The xl of host a writes its words to xl.log."""
    (world.a.root / "xl.log").touch()
    program = world.a.root / "bin" / "xl"
    place = str(world.a.root / "xl.log")
    log = f"import sys\nwith open({place!r}, 'a') as log:\n    print(*sys.argv[1:], file=log)\n"
    program.write_text(program.read_text().replace("import sys\n", log, 1))


# -- a guest that can move -------------------------------------------------------------------------


def test_a_plan_shows_every_check_and_starts_nothing(world: World) -> None:
    world.create(disks=2)
    before = {path.name for path in (world.a.root / "disks").iterdir()}
    done = planned(world)
    table, _, estimate = done.out.partition("\nabout ")  # tests/end_to_end/migrate/test_estimate.py
    assert "suspended about" in estimate
    head, title, *rows = table.splitlines()
    assert head == "g1 to hostb, mode live" and title.split()[0] == "CHECK"
    assert list(dict.fromkeys(row.split()[0] for row in rows)) == list(RULES)
    column = title.index("WHAT")
    assert all(row[column - 2 : column] == "  " and row[column] != " " for row in rows), done.out
    assert {row.split()[1] for row in rows} == {"pass"}
    assert calls(world) == [] and not done.err
    assert {path.name for path in (world.a.root / "disks").iterdir()} == before
    assert not list((world.b.root / "disks").iterdir()) and world.b.records() == {}
    world.assert_intact(world.a)


def test_the_same_as_an_object(world: World) -> None:
    world.create()
    world.b.configure(mode="full")  # of the far host: without meaning here
    result = json.loads(planned(world, "--json", "--mode", "static").out)
    assert list(result) == ["schema", "outcome", "guest", "uuid", "host", "mode", "checks", "estimate"]
    assert (result["schema"], result["outcome"], result["mode"]) == (1, "planned", "static")
    assert {tuple(one) for one in result["checks"]} == {("name", "verdict", "text", "hint", "forcible")}
    dry = world.a.start(
        world.a.root / "bin" / "xenplugin", "migrate", "-N", "--json", "-s", world.ssh, "g1", "hostb"
    ).end()
    assert dry.code == 0 and json.loads(dry.out)["outcome"] == "planned" and calls(world) == []


def test_an_address_that_cannot_be_reached_is_said_once(world: World) -> None:
    world.create()
    done = planned(world, "--json", "--address", "127.0.0.3")
    assert list(checks(done, "warn")) == ["ports"] and "127.0.0.3" in checks(done, "warn")["ports"]
    assert not done.err, done.err
    assert json.loads(done.out)["estimate"]["streams"] == 0


@pytest.mark.slow
def test_warnings_stop_nothing(world: World) -> None:
    world.create()
    world.a.run("xl", "pause", "g1")
    world.b.knob(info={"nr_cpus": 0})
    found = checks(planned(world, "--json"), "warn")
    assert set(found) == {"guest-state", "vcpus"} and "paused" in found["guest-state"]
    world.a.run("xl", "unpause", "g1")
    done = world.moved()
    said = [event for event in done.events if event["event"] == "checked"]
    assert [(one["name"], one["verdict"]) for one in said] == [("vcpus", "warn")]
    world.assert_intact(world.b)


@pytest.mark.slow
def test_what_is_unknown_is_a_warning(world: World) -> None:
    world.create()
    (world.b.root / "bin" / "xen-cpuid").write_text("#!/bin/sh\nexit 1\n")
    world.b.knob(info={"virt_caps": None})
    found = checks(planned(world, "--json"), "warn")
    assert set(found) == {"xen-version"} and "xl info" in found["xen-version"], found
    assert "memory" in found["xen-version"] and "CPU features" in found["xen-version"]


# -- what is refused, each alone, before xl is started ---------------------------------------------


def _no_room(world: World, small: Callable[[int], Path]) -> None:
    world.b.configure(paths={str(world.a.root / "disks"): str(small(1))})


def _config(world: World, change: Callable[[dict[str, Any]], None]) -> None:
    path = world.a.root / "state.json"
    state = json.loads(path.read_text())
    change(state["domains"][0]["config"])
    path.write_text(json.dumps(state))


def _larger(world: World, small: Callable[[int], Path]) -> None:
    world.b.disk("g1-0.img").write_bytes(bytes(5 * MIB))


def _folder(world: World, small: Callable[[int], Path]) -> None:
    world.b.configure(paths={str(world.a.root / "disks"): str(world.b.root / "nowhere")})


def _bridge(world: World, small: Callable[[int], Path]) -> None:
    hook = world.b.root / "vif-bridge"
    hook.touch()
    _config(world, lambda config: config.update(nics=[{"bridge": "xw-none", "script": str(hook)}]))


def _model(world: World, small: Callable[[int], Path]) -> None:
    _config(world, lambda config: config["b_info"].update(device_model="/srv/lost-qemu"))


def _device(world: World, small: Callable[[int], Path]) -> None:
    _config(world, lambda config: config.update(pcidevs=[{"bus": 3}]))


def _format(world: World, small: Callable[[int], Path]) -> None:
    _config(world, lambda config: config["disks"][0].update(format="qcow2"))


def _forbidden(world: World, small: Callable[[int], Path]) -> None:
    _config(world, lambda config: config["b_info"].update(disable_migrate="True"))


FAULTS: dict[str, tuple[Callable[[World, Callable[[int], Path]], None], str]] = {
    "bridges": (_bridge, "xw-none"),
    "target": (_larger, "larger"),
    "files": (_model, "its device model, /srv/lost-qemu"),
    "devices": (_device, "0000:03:00.0"),
    "disk": (_format, "qcow2"),
    "nomigrate": (_forbidden, "nomigrate"),
    "memory": (lambda world, _: world.b.knob(info={"free_memory": 100}), "100.0 MiB of memory"),
    "xen-version": (lambda world, _: world.b.knob(info={"xen_minor": 16}), "older release"),
    "cpu": (lambda world, _: world.b.cpu("PV Max", lacks="219c07a9"), "avx2"),
    "guest-type": (lambda world, _: world.a.knob(info={"virt_caps": "pv hvm hap"}), "shadow paging"),
    "room": (_no_room, "free for"),
}
QUICK = ("bridges",)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAULTS]
)
def test_a_refusal_stands_alone(world: World, name: str, small_disk: Callable[[int], Path]) -> None:
    world.create()
    make, words = FAULTS[name]
    make(world, small_disk)
    done = planned(world, "--json", code=15)
    assert json.loads(done.out)["outcome"] == "refused"
    refused = checks(done, "refuse")
    assert list(refused) == [name] and words in refused[name], refused
    moving = world.migrate().end()
    assert moving.code == 15 and words in moving.error and moving.hint, moving.err
    assert not [event for event in moving.events if event["event"] in ("phase", "xl", "checked")]
    world.a.run("xenplugin", "enable")
    shim = world.a.start(world.a.root / "sbin" / "xl", "migrate", "-s", world.ssh, "g1", "hostb").end()
    assert shim.code == 1 and words in shim.error and len(shim.err.splitlines()) == 2, shim.err
    assert calls(world) == []
    world.await_quiet()
    world.assert_settled()
    if name not in ("devices", "bridges"):  # which xl of host a would attach as well
        world.assert_intact(world.a)


@pytest.mark.slow
def test_all_that_refuse_are_shown(world: World) -> None:
    world.create()
    world.b.knob(info={"free_memory": 100, "xen_minor": 16})
    world.b.disk("g1-0.img").write_bytes(bytes(5 * MIB))
    done = world.migrate().end()
    said = [event["name"] for event in done.events if event["event"] == "checked"]
    assert said == ["xen-version", "memory", "target"]
    assert done.code == 15 and "for 3 reasons: xen-version, memory, target" in done.error
    assert "xenplugin plan g1 hostb" in (done.hint or "")
    text = planned(world, code=15).out
    assert text.count("REFUSED") == 3 and "--force memory" in text
    world.assert_intact(world.a)


# -- force -----------------------------------------------------------------------------------------


def test_what_may_be_wrong_can_be_forced(world: World) -> None:
    world.create()
    world.b.knob(info={"free_memory": 100, "xen_minor": 16})
    done = planned(world, "--json", "--force", "memory", code=15)
    assert list(checks(done, "refuse")) == ["xen-version"] and "forced:" in checks(done, "warn")["memory"]
    world.moved("--force", "memory", "--force", "xen-version")
    world.assert_intact(world.b)


def test_nothing_else_can_be_forced(world: World) -> None:
    world.create()
    for verb in ("plan", "migrate"):
        words = [verb, "-s", world.ssh, "--force", "target", "g1", "hostb"]
        done = world.a.start(world.a.root / "bin" / "xenplugin", *words).end()
        assert done.code == 2 and "cannot be wrong" in done.error and "nomigrate, devices" in done.hint, done.err


@pytest.mark.slow
def test_a_certain_refusal_of_a_check_that_can_be_forced_stays(world: World) -> None:
    world.create()
    _config(world, lambda config: config.update(pcidevs=[{"bus": 3}]))
    assert "devices" in checks(planned(world, "--json", "--force", "devices", code=15), "refuse")


# -- a far host that cannot be asked ---------------------------------------------------------------


def script(world: World, text: str) -> str:
    path = world.a.root / "bin" / "reach"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return "reach"


def test_an_older_far_side(world: World) -> None:
    world.create()
    ssh = script(world, "echo \"xenplugin: error: No such command 'survey'.\" >&2; exit 2")
    done = planned(world, "--json", ssh=ssh, code=11)
    assert "older xenplugin" in done.error and "same version" in done.hint, done.err
    failed = json.loads(done.out)
    assert failed["outcome"] == "failed" and failed["error"]["code"] == 11
    done = world.migrate("-s", ssh).end()
    assert done.code == 11 and "older xenplugin" in done.error and calls(world) == [], done.err
    world.assert_intact(world.a)


def test_ctrl_c_ends_the_checks(world: World) -> None:
    world.create()
    words = ["plan", "-s", script(world, "echo $$ >started; exec sleep 1000"), "g1", "hostb"]
    running: Running = world.a.start(world.a.root / "bin" / "xenplugin", *words)
    wait_until(lambda: (world.a.root / "started").exists(), "the far side")
    running.signal(2)
    assert running.end().code == 130
    world.await_quiet()
    world.assert_intact(world.a)


def test_a_wrong_name_is_refused_before_anybody_is_asked(world: World) -> None:
    world.create()
    ssh = script(world, "touch asked")
    words = ["plan", "-s", ssh, "g9", "hostb"]
    done = world.a.start(world.a.root / "bin" / "xenplugin", *words).end()
    assert done.code == 15 and "no guest g9" in done.error and not (world.a.root / "asked").exists()
    assert planned(world, ssh="", host="-oProxyCommand=x", code=2).error


# -- what it costs ---------------------------------------------------------------------------------


def test_both_hosts_are_asked_in_one_login_and_few_calls(world: World) -> None:
    world.create()
    (world.a.root / "xl.log").write_text("")
    ssh = script(world, f'echo "$3" >>logins; exec {world.ssh} "$@"')
    planned(world, ssh=ssh)
    # The estimate uses the login of the checks where ssh can share it; this one cannot.
    assert (world.a.root / "logins").read_text().splitlines() == ["survey", "measure"]
    words = sorted((world.a.root / "xl.log").read_text().splitlines())
    assert words == ["info", "list -l 1", "list -v 1"]
