"""Asking the far host: what it answers, and a far side that answers wrongly, late or not at all."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.program import wait_until
from tests.xenplugin.migrate.checks.cases import BRIDGE, DISK, FACTS, KERNEL, REQUEST
from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import ConfigError, LinkError, PeerError, RefusedError, UsageError
from xenplugin.link.remote_process import RemoteProcess
from xenplugin.migrate.checks import ask, strict_fields
from xenplugin.migrate.checks.ask import FarAnswer, FarHost
from xenplugin.migrate.checks.facts import Listening, SurveyRequest, Unusable

READY = "echo 'XENPLUGIN-SURVEY 2 {}'"
#: Reads the request and answers it; then says what it reads.
ANSWERS = 'read -r request; cat {folder}/answer; read -r end; echo "$end" >{folder}/end'


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Path]:
    """A folder with a command `reach` that is to be filled."""
    yield tmp_path


def script(folder: Path, text: str) -> str:
    path = folder / "reach"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def asked(folder: Path, text: str, said: list[events.Event] | None = None, **config: object) -> FarAnswer:
    values = {"patience": 2.0, "connect_timeout": 2.0, **config}
    settings = replace(Config(ssh=script(folder, text)), **values)  # type: ignore[arg-type]
    with FarHost("hostb", settings, (said if said is not None else []).append) as far:
        return far.ask(REQUEST).result()


def answering(folder: Path, listening: Listening, facts: object = FACTS) -> str:
    lines = [strict_fields.write(listening), strict_fields.write(facts)]
    (folder / "answer").write_bytes(b"".join(line + b"\n" for line in lines))
    return f"echo banner >&2; echo noise; {READY}; {ANSWERS.format(folder=folder)}"


def test_what_it_answers(far: Path) -> None:
    said: list[events.Event] = []
    text = answering(far, Listening(0, (), False), replace(FACTS, clock=time.time() + 3600))
    found = asked(far, text, said)
    assert replace(found.facts, clock=FACTS.clock) == FACTS
    assert 3590 < found.ahead <= 3600 and said == [events.Far("banner")]
    assert found.reached.listening == Listening(0, (), False) and found.reached.tried == ()


@pytest.mark.parametrize(("off", "least", "most"), [(-100.0, -101.0, -95.0), (0.0, 0.0, 0.0)])
def test_clocks(far: Path, off: float, least: float, most: float) -> None:
    """A clock that may be right is: the answer takes its time."""
    answering(far, Listening(0, (), False), replace(FACTS, clock=0.0))
    (far / "answer.py").write_text(
        "import sys, time\ntext = open(sys.argv[1]).read()\n"
        "clock = time.time() + float(sys.argv[2])\n"
        "print(text.replace('\"clock\": 0.0', f'\"clock\": {clock}'), end='', flush=True)\n"
    )
    slow = f"{READY}; read -r request; {sys.executable} -IS {far}/answer.py {far}/answer {off}; cat"
    assert least <= asked(far, slow).ahead <= most


def test_a_port_that_answers(far: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = asked(far, answering(far, Listening(port, ("127.0.0.3", "127.0.0.1"), True)))
        assert (
            found.reached.address == "127.0.0.1" and "127.0.0.3" in found.reached.tried and found.reached.rtt >= 0
        )
        found = asked(far, answering(far, Listening(port, ("127.0.0.1",), True)), address="127.0.0.3")
        assert found.reached.address == "" and found.reached.tried == ("127.0.0.3",)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("echo Permission denied >&2; exit 255", LinkError, "cannot reach hostb: Permission denied"),
        ("exit 127", PeerError, "did not start on hostb"),
        ("echo \"xenplugin: error: No such command 'survey'.\" >&2; exit 2", PeerError, "older xenplugin"),
        ("echo 'xenplugin: error: bad paths' >&2; exit 10", ConfigError, "^far side: bad paths$"),
        ("exec seq 100000", PeerError, "other output"),
        ("echo 'XENPLUGIN-SURVEY 1 {}'; exec cat", PeerError, "speaks version 1"),
        ("echo 'xl migration receiver ready, send binary domain data.'; exec cat", PeerError, "xl's own receiver"),
        (f"{READY}; exit 1", LinkError, "hostb ended"),
        (f"{READY}; read x; echo 'xenplugin: error: no xl here' >&2; exit 15", None, "far side: no xl here"),
        (f"{READY}; exec cat", PeerError, "cannot be read: Listening"),
        (f"{READY}; head -c 3000000 /dev/zero; exec cat", PeerError, "more than 1048576 bytes"),
        (f"{READY}; exec sleep 1000", LinkError, "did not answer within 1 s"),
        ("exec sleep 1000", LinkError, "did not answer within 2 s"),
    ],
)  # fmt: skip
def test_a_far_side_that_does_not_answer_rightly(
    far: Path, text: str, error: type[Exception] | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "_ANSWER", 1.0)
    said: list[events.Event] = []
    with pytest.raises(error or Exception, match=words.replace("(", r"\(")):
        asked(far, text, said)
    assert said == []  # what the far side said is in the error


def test_answers_about_other_disks_are_refused(far: Path) -> None:
    with pytest.raises(PeerError, match="about 2 disks instead of 1"):
        asked(far, answering(far, Listening(0, (), False), replace(FACTS, disks=FACTS.disks * 2)))


def test_a_host_that_is_an_option_is_refused() -> None:
    with pytest.raises(UsageError, match="must not begin"):
        FarHost("-oProxyCommand=x", Config(), lambda event: None)


def test_a_login_that_is_not_shared_is_not_held(far: Path) -> None:
    settings = replace(Config(ssh=script(far, answering(far, Listening(0, (), False)))), patience=5.0)
    with FarHost("hostb", settings, lambda event: None) as host:
        host.ask(REQUEST).result()
        assert host.hold() == ""
    assert (far / "end").read_text() == "\n"


def test_a_shared_login_is_held_until_the_end(far: Path) -> None:
    """An OpenSSH as far as `ssh -G` goes. What ctrl-C sends to every process of the terminal does not end it."""
    text = answering(far, Listening(0, (), False)).replace(
        "read -r end", "kill -INT $$; kill -TERM $$; read -r end"
    )
    ssh = far / "ssh"
    ssh.write_text(f'#!/bin/sh\ncase $1 in -G) echo hostname hostb; exit ;; esac\necho "$@" >{far}/words\n{text}\n')
    ssh.chmod(0o755)
    with FarHost("hostb", replace(Config(ssh=str(ssh)), patience=5.0), lambda event: None) as host:
        host.ask(REQUEST).result()
        path = host.hold()
        assert path and f"ControlPath={path} " in (far / "words").read_text()
        assert "ControlMaster=yes" in (far / "words").read_text()
        assert Path(path).parent.is_dir()
    assert (far / "end").read_text() == "hold\n" and not Path(path).parent.exists()


def test_ctrl_c_while_it_starts_leaves_no_process(far: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[RemoteProcess] = []

    class Slow(RemoteProcess):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)  # the signal arrives before this returns

    monkeypatch.setattr(ask, "RemoteProcess", Slow)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            FarHost("hostb", Config(ssh=script(far, "exec sleep 1000")), list[events.Event]().append) as host,
        ):
            host.ask(REQUEST).result()
    finally:
        signal.signal(signal.SIGINT, before)
    wait_until(lambda: made[0]._process.poll() is not None, "its end")


LONG = "/" + 5000 * "x"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (replace(REQUEST, bridges=1025 * (BRIDGE,)), "1025 network interfaces, more than the 1024"),
        (replace(REQUEST, disks=1025 * (DISK,)), "1025 disks"),
        (replace(REQUEST, files=1025 * (KERNEL,)), "1025 files"),
        (replace(REQUEST, disks=(replace(DISK, path=LONG),)), "a path of 5001 characters"),
        (replace(REQUEST, files=(replace(KERNEL, path=LONG),)), "a path of 5001 characters"),
        (replace(REQUEST, bridges=(replace(BRIDGE, script=LONG),)), "a script of 5001 characters"),
        (replace(REQUEST, name=LONG), "a name of 5001 characters"),
        (replace(REQUEST, files=1000 * (replace(KERNEL, path="/" + 4000 * "x"),)), "bytes of names and paths"),
    ],
)
def test_what_the_far_host_would_not_read_is_refused_here(far: Path, request_: SurveyRequest, words: str) -> None:
    with FarHost("hostb", Config(ssh=script(far, "exec cat >/dev/null")), list[events.Event]().append) as host:
        with pytest.raises(RefusedError, match=words) as caught:
            host.ask(request_)
    assert "xl list -l" in (caught.value.hint or "") and len(caught.value.message) < 300


def test_a_long_reason_is_cut_and_read(far: Path) -> None:
    why = Unusable(9000 * "x", 9000 * "y")
    text = answering(far, Listening(0, (), False), replace(FACTS, migrating=why, xen=None, xen_why=9000 * "z"))
    facts = asked(far, text).facts
    assert facts.migrating and facts.migrating.text.endswith("x...") and facts.xen_why.endswith("z...")
