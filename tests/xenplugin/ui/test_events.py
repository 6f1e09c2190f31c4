"""What people and programs see of the events."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from xenplugin import events
from xenplugin.codec.compress import STORE
from xenplugin.results import MigrationResult, StayingDisk, StreamResult, TransferResult
from xenplugin.ui import units
from xenplugin.ui.jsonl import JsonLines
from xenplugin.ui.text import TextUi

RESULT = TransferResult(
    seconds=61.2,
    bytes_image=4 << 30,
    bytes_data=1 << 30,
    bytes_wire=1 << 29,
    phases={"connect": 0.1},
    cipher="aes-128-gcm",
    level=3,
    streams=4,
    sha256="tree1:" + "ab" * 32,
)
EVENTS: list[events.Event] = [
    events.Started("copy", "/dev/vg/guest", "host:/dev/vg/guest", 4 << 30),
    events.Phase("connect"),
    events.Far("Warning: Permanently added the host key"),
    events.Linked("192.0.2.7", 0.0421, 12, "bbr"),
    events.Phase("transfer"),
    events.Progress(1 << 29, 1 << 30, 1 << 29, 100_000_000, 3, 4.0),
    events.Notice("connection 3 was lost"),
    events.Phase("finish"),
    events.Finished(RESULT),
]
NASTY = "\x1b[2J\x1b]0;owned\x07 \r\n\x9b31m \x7f\u202e \ud800 caf\u00e9"


def shown(*shown_events: events.Event, **options: Any) -> str:
    out = io.StringIO()
    ui = TextUi(out, **{"progress": None, "quiet": False, "verbose": False, **options})
    for event in shown_events:
        ui(event)
    ui.close()
    return out.getvalue()


def test_without_a_terminal_plain_lines() -> None:
    lines = shown(*EVENTS).splitlines()
    assert lines == [
        "/dev/vg/guest -> host:/dev/vg/guest  (4.0 GiB)",
        "far side: Warning: Permanently added the host key",
        "  linked to 192.0.2.7, RTT 42.1 ms, 12 streams (bbr)",
        "connection 3 was lost",
        "done in 1 min 01 s",
        "  image    4.0 GiB, of it data 1.0 GiB",
        "  sealed   512.0 MiB (8.0x less), aes-128-gcm",
        "  digest   tree1:" + "ab" * 32,
    ]


def test_long_lines_are_not_broken_and_marks_are_text() -> None:
    long = "x" * 500 + " [bold]not markup[/bold] :smile: " + "y" * 500
    assert shown(events.Notice(long)) == long + "\n"
    assert shown(events.Started("copy", "[red]a", "b", 1)).startswith("[red]a -> b")


def test_quiet_prints_only_errors() -> None:
    failed = events.Failed(14, "the link was lost", "the same command again goes on")
    said = shown(*EVENTS, failed, quiet=True).splitlines()
    assert said == [
        "far side: Warning: Permanently added the host key",
        "connection 3 was lost",
        "xenplugin: error: the link was lost",
        "xenplugin: hint: the same command again goes on",
    ]
    assert shown(events.Failed(12, "changed", None)) == "xenplugin: error: changed\n"


def test_verbose_names_the_phases() -> None:
    said = shown(*EVENTS, verbose=True)
    assert [f"phase: {name}" in said for name in ("connect", "transfer", "finish")] == [True] * 3


def test_a_resumed_transfer_is_reported() -> None:
    assert "2.0 GiB were there from an earlier try" in shown(events.Finished(replace(RESULT, resumed=2 << 30)))


def test_disks_that_have_not_moved_are_named() -> None:
    memory = StreamResult(bytes_stream=1000, bytes_wire=300, cipher="aes-128-gcm", level=1, streams=8)
    staying = (StayingDisk("xvdb", "/nfs/b.img", "shared"), StayingDisk("hdc", "/srv/a.iso", "ejected"))
    moved = MigrationResult.combine(memory, (), mode="live", seconds=9, downtime=0.4, phases={}, staying=staying)
    assert "  stays    xvdb (shared), hdc (ejected)" in shown(events.Finished(moved)).splitlines()
    assert "stays" not in shown(events.Finished(replace(moved, staying=())))


def test_progress_without_a_terminal_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((1000.0, 1000.0, 1001.0, 1009.9, 1010.1, 1010.1, 1012.0))  # a line asks twice
    monkeypatch.setattr(time, "monotonic", clock.__next__)
    out = io.StringIO()
    ui = TextUi(out, progress=True, quiet=False, verbose=False)
    for _ in range(5):
        ui(EVENTS[5])
    assert out.getvalue().splitlines() == [" 50 %  512.0 MiB of 1.0 GiB  200 Mbit/s  zstd 3  4.0 s left"] * 2
    assert shown(EVENTS[5]) == "" and shown(EVENTS[5], progress=False) == ""


def test_the_memory_may_move_more_than_its_size() -> None:
    moved = events.Progress(1 << 29, 1 << 30, 1 << 29, 100_000_000, 1, 4.0, "memory")
    assert "memory 512.0 MiB of 1.0 GiB  200 Mbit/s" in shown(moved, progress=True)
    again = shown(replace(moved, bytes_done=3 << 29), progress=True)
    assert "100 %" in again and "memory 1.5 GiB  200 Mbit/s" in again


@pytest.mark.parametrize(
    "event",
    [
        events.Progress(0, 0, 0, 0, STORE, 0.0),
        events.Progress(0, 100, 0, 0, -7, 0.0),
        events.Progress(200, 100, 0, 1, 3, 0.1),
        events.Progress(1, 1 << 60, 1, 1 << 60, 3, 1e9),
    ],
)
def test_progress_of_nothing_and_of_everything(event: events.Progress) -> None:
    assert "%" in shown(event, progress=True)


def on_a_terminal(*shown_events: events.Event, **options: Any) -> str:
    """What a terminal of its own gets to see."""
    master, slave = pty.openpty()
    seen = bytearray()

    def read() -> None:
        try:
            while piece := os.read(master, 65536):
                seen.extend(piece)
        except OSError:
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with open(slave, "w", encoding="utf-8", errors="backslashreplace") as out:
        ui = TextUi(out, **{"progress": None, "quiet": False, "verbose": False, **options})
        for event in shown_events:
            ui(event)
        ui.close()
    reader.join(30)
    os.close(master)
    return seen.decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_one_line_moves_and_is_taken_away() -> None:
    seen = on_a_terminal(*EVENTS)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    assert " 50 %" in plain and "zstd 3" in plain and "done in 1 min 01 s" in plain
    assert "\x1b[2K" in seen[seen.rindex("zstd 3") :], "its last state is wiped"
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h") == 1, "the cursor comes back"
    assert " 50 %" not in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen[seen.rindex("\x1b[?25h") :])


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("options", [{"progress": False}, {"quiet": True}])
def test_on_a_terminal_nothing_moves_if_it_is_not_wanted(options: dict[str, Any]) -> None:
    assert "%" not in on_a_terminal(*EVENTS, **options)


@pytest.mark.usefixtures("terminal")
def test_a_failure_ends_the_moving_line_first() -> None:
    seen = on_a_terminal(EVENTS[5], events.Failed(14, "the link was lost", None))
    assert seen.index("\x1b[?25h") < seen.index("xenplugin: error")


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    "event",
    [
        events.Far(NASTY),
        events.Notice(NASTY),
        events.Failed(11, NASTY, NASTY),
        events.Started("copy", NASTY, NASTY, 1),
        events.Linked(NASTY, 0.1, 1, NASTY),
    ],
    ids=lambda event: type(event).__name__,
)
def test_control_characters_do_not_reach_the_terminal(event: events.Event) -> None:
    styled = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal(event)).replace("\r\n", "\n")
    assert not set(styled) & set("\x1b\x07\r\x9b\x7f\u202e"), repr(styled)
    assert "caf\u00e9" in styled and "\\x1b" in styled


def test_json_lines_are_one_object_each() -> None:
    out = io.StringIO()
    ui = JsonLines(out)
    every = [*EVENTS, events.Failed(14, NASTY, None), events.Far(NASTY), events.Notice("two\nlines \u2028")]
    for event in every:
        ui(event)
    ui.close()
    lines = out.getvalue().split("\n")
    assert lines.pop() == "" and len(lines) == len(every) and out.getvalue().isascii()
    for event, line in zip(every, lines, strict=True):
        got = json.loads(line)
        assert got.pop("time") > 1.7e9
        assert got == events.to_json(event)
        assert got.pop("event") == type(event).__name__.lower()
        assert set(got) == set(type(event).__dataclass_fields__)


def test_json_lines_of_many_threads_do_not_mix() -> None:
    out = io.StringIO()
    ui = JsonLines(out)

    def notify(digit: str) -> None:
        for _ in range(50):
            ui(events.Notice(digit * 500))

    threads = [threading.Thread(target=notify, args=(digit,)) for digit in "0123"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len([json.loads(line) for line in out.getvalue().splitlines()]) == 200


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (units.size(0), "0 B"),
        (units.size(1023), "1023 B"),
        (units.size(1024), "1.0 KiB"),
        (units.size(5 << 30), "5.0 GiB"),
        (units.size(3 << 40), "3.00 TiB"),
        (units.rate(0), "0 bit/s"),
        (units.rate(25_000_000), "200 Mbit/s"),
        (units.rate(1.25e9), "10.00 Gbit/s"),
        (units.seconds(0.04), "0.0 s"),
        (units.seconds(59.9), "59.9 s"),
        (units.seconds(59.99), "1 min 00 s"),
        (units.seconds(125), "2 min 05 s"),
        (units.seconds(3599.6), "1 h 00 min"),
        (units.seconds(3720), "1 h 02 min"),
        (units.printable("caf\u00e9 \t\n\x1b"), "caf\u00e9 \\t\\n\\x1b"),
    ],
)
def test_figures_for_people(got: str, expected: str) -> None:
    assert got == expected


def test_console_is_rich() -> None:
    assert isinstance(TextUi(io.StringIO(), progress=None, quiet=False, verbose=False)._console, Console)
