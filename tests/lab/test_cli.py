"""The command xenlab: exit codes, messages, and what `up` changes in a running lab."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab import cli
from lab.errors import BootError, BusyError, LabError
from lab.hosts.guest.guest_type import GuestType
from lab.hosts.image import recipe
from lab.hosts.lifecycle.folder import Folder
from lab.hosts.lifecycle.strategy import State
from lab.hosts.spec import Auth, Spec, Suite, Xen
from lab.verbs import machines, updown
from lab.verbs.updown import changed
from netem.profile import Profile

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "xenplugin" / "lab"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the real program."""
    return subprocess.run(
        [sys.executable, "-m", "lab", *words], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("guests", GuestType)
def test_build_says_what_an_image_in_the_cache_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guests: GuestType
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    entry = tmp_path / f"xenplugin/lab/host-4.20-{recipe.digest(Xen.V4_20)}-20261129T161400Z"
    entry.mkdir(parents=True)
    with (entry / "disk.img").open("wb") as file:
        file.truncate(recipe.SIZE)
    about = {"release": "trixie", "version": "4.20.4-0", "guests": guests, "digest": "x", "packages": {}}
    installed = datetime.now(UTC) - timedelta(days=3, hours=1)
    (entry / "about.json").write_text(json.dumps({**about, "installed": installed.isoformat()}))
    done = run("build", "--xen", "4.20")
    assert done.returncode == 0
    first, *notes = done.stderr.splitlines()
    assert f"{entry}: Xen 4.20.4-0 on Debian trixie, packages 3 days old, {guests.upper()} guests" in first
    assert first.endswith("; unchanged (--fresh: new packages)")
    assert ["cannot migrate PV guests" in note for note in notes] == ([] if guests is GuestType.PV else [True])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["up", "--rtt", "120"], 2, "has no unit"),
        (["up", "--rate", "0bit"], 2, "carries nothing"),
        (["up", "--name", "A/b"], 2, "is not a valid name for a lab"),
        (["up", "--provider", "kvm"], 2, "kvm"),
        (["up", "--ipsec", "des"], 2, "des"),
        (["down", "--name", "../x"], 2, "is not a valid name for a lab"),
        (["ssh", "host-c"], 2, "host-c"),
        (["ssh", "host-a"], 13, "there is no lab lab"),
        (["ssh", "--name", "../x", "host-a"], 2, "is not a valid name for a lab"),
        (["console", "host-a"], 13, "there is no lab lab"),
        (["console", "host-a", "-n", "0"], 2, "-n"),
        (["fly"], 2, "fly"),
        (["verify-wire", "--hosts", "--watch", "60"], 2, "has no unit"),
        (["experiment", "quick", "--way", "foo"], 2, "hint: its ways are existing, "),
        (["experiment", "quick", "--rtt", "7ms"], 2, "hint: its rtts are 0s, 60ms"),
        (["experiment", "quick", "--data", "7mb"], 2, "hint: its data are 60mb"),
    ],
)
def test_invalid_requests_are_refused_in_one_line(words: list[str], code: int, said: str, home: Path) -> None:
    done = run(*words)
    assert done.returncode == code and done.stdout == ""
    assert done.stderr.startswith("xenlab: error: ") and said in done.stderr and "Traceback" not in done.stderr
    assert not home.exists()


def test_without_a_verb_the_help_is_shown_plainly() -> None:
    done = run()
    assert (done.returncode, done.stdout, done.stderr) == (2, "", run("--help").stdout)


def test_help_needs_nothing() -> None:
    done = run("--help")
    assert done.returncode == 0
    for verb in ("build", "up", "status", "ssh", "console", "down", "doctor"):
        assert f"  {verb} " in done.stdout


def test_status_of_nothing_and_of_labs_that_are_down() -> None:
    assert json.loads(run("status", "--json").stdout) == []
    Folder("one").save(Spec(name="one", link=Profile.parse(rtt="120ms"), ipsec=Suite.TODAY), State.OFF)
    (found,) = json.loads(run("status", "--json").stdout)
    assert (found["name"], found["state"], found["ipsec"]) == ("one", "off", "aes128gcm16")
    assert found["link"]["rtt"] == 0.12 and found["machines"] == {}
    assert "one: off" in run("status").stdout


def test_status_shows_labs_with_lost_machines_or_unreadable_state(home: Path) -> None:
    Folder("one").save(Spec(name="one"), State.READY)
    (home / "two").mkdir()
    (home / "two" / "lab.json").write_text("{")
    one, two = json.loads(run("status", "--json").stdout)
    assert one["state"] == "broken: router, host-a, host-b ended"
    assert two["state"] == "unreadable" and "two" in two["error"]
    done = run("ssh", "--name", "one", "host-a", "true")
    assert done.returncode == 13 and "host-a does not run in lab one" in done.stderr


def test_down_of_a_lab_that_does_not_exist_is_no_error(home: Path) -> None:
    done = run("down")
    assert done.returncode == 0 and "there is no lab lab" in done.stderr and not home.exists()
    Folder("one").save(Spec(name="one"), State.BUILT)
    done = run("down", "--all")
    assert done.returncode == 0 and "lab one is down" in done.stderr
    assert Folder("one").load() == (Spec(name="one"), State.OFF)


def test_a_lab_that_another_command_changes_is_busy() -> None:
    with Folder("lab").locked():
        done = run("down")
    assert done.returncode == BusyError.code and "another command is working on lab lab" in done.stderr


def test_the_console_is_shown_without_control_sequences(home: Path) -> None:
    Folder("lab").save(Spec(), State.OFF)
    (home / "lab" / "host-a.console").write_bytes(b"one\r\n\x1b[31mtwo\x1b[0m\x07\r\n\r\nthree\r\n")
    assert run("console", "host-a").stdout == "one\ntwo\nthree\n"
    assert run("console", "host-a", "-n", "1").stdout == "three\n"
    done = run("console", "host-b")
    assert done.returncode == 13 and "was never started" in done.stderr


def test_up_leaves_settings_that_are_not_given() -> None:
    assert changed("lab", {"rtt": None, "xen": None}) == Spec()
    spec = Spec(link=Profile.parse(rtt="20ms", rate="100mbit"), ipsec=Suite.PAPER, auth=Auth.CERT)
    Folder("lab").save(spec, State.READY)
    wanted = changed("lab", {"rtt": "120ms", "ipsec": None})
    assert wanted.link == Profile.parse(rtt="120ms", rate="100mbit")
    assert (wanted.ipsec, wanted.auth) == (Suite.PAPER, Auth.CERT)
    given = {"rate": "unlimited", "ipsec": "off", "auth": "psk", "xen": "4.20", "router_image": "x"}
    wanted = changed("lab", {**given})
    assert wanted.link == Profile.parse(rtt="20ms")
    assert (wanted.ipsec, wanted.auth, wanted.xen) == (Suite.OFF, Auth.PSK, Xen.V4_20)
    assert wanted.router_image == os.path.abspath("x")
    Folder("lab").save(spec, State.BUILT)  # an interrupted `up` continues
    assert changed("lab", {}) == spec
    Folder("lab").save(spec, State.OFF)  # a lab that is down keeps no settings
    assert changed("lab", {}) == Spec()


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (BootError("it\n    last line", hint="look"), 14, "xenlab: error: it\n    last line\nxenlab: hint: look\n"),
        (LabError("no"), 13, "xenlab: error: no\n"),
        (KeyboardInterrupt(), 130, "interrupted\nxenlab: hint: xenlab status shows what was started, xenlab down"),
        (FileNotFoundError(2, "No such file", "/x"), 13, "xenlab: error: No such file: /x\n"),
        (ZeroDivisionError("x"), 13, "xenlab: error: internal error at test_cli.py:"),
    ],
)
def test_every_failure_prints_one_line_and_has_its_exit_code(
    raised: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(updown, "open_lab", fail)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert cli.main(["up"]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "run_there"),
    [
        (["host-a", "--", "xl", "list"], ["xl", "list"]),
        (["host-a", "xl", "list", "-v"], ["xl", "list", "-v"]),
        (["host-a", "--", "xl list | wc -l"], ["sh", "-c", "xl list | wc -l"]),
        (["host-a", "grep", "--", "-v"], ["grep", "--", "-v"]),
        (["host-a", "--"], []),
        (["--", "host-a", "xl", "list"], ["xl", "list"]),
    ],
)
def test_ssh_ignores_two_dashes_before_the_command(
    words: list[str], run_there: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Here:
        """A lab whose machines are this one."""

        def nodes(self) -> dict[str, Here]:
            return {"host-a": self}

        def command(self, words: list[str], *, terminal: bool) -> list[str]:
            return ["there", *words]

    ran = []
    monkeypatch.setattr(machines, "look_at", lambda name, say: (None, None, Here()))
    monkeypatch.setattr(os, "execvp", lambda program, words: ran.append(words))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert cli.main(["ssh", *words]) == 0
    assert ran == [["there", *run_there]]
