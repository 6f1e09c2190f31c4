"""What is sent to systemd's journal, byte by byte, and that a failing journal never stops the work."""

from __future__ import annotations

import io
import os
import socket
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin import events
from xenplugin.results import MigrationResult
from xenplugin.ui import journald
from xenplugin.ui.journald import Both, JournaldUi, encode, fields_of, joined

MOVED = MigrationResult(
    seconds=61.2,
    bytes_memory=7,
    bytes_wire=5,
    phases={},
    downtime=0.4,
    cipher="aes-128-gcm",
    level=3,
    streams=4,
    mode="live",
    disks=(),
)
FAILED = events.Failed(14, "the link was lost", "the same command again goes on")


def decode(datagram: bytes) -> dict[str, str]:
    """As journald reads it: NAME=value, or NAME, a length and so many bytes."""
    found = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + length], rest[9 + length :]
        found[name.decode()] = value.decode()
        datagram = rest
    return found


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,10}", fullmatch=True), st.text(max_size=100)))
def test_values_can_hold_anything_and_make_no_fields(fields: dict[str, str]) -> None:
    assert decode(encode(fields)) == fields


def test_what_is_too_long_is_cut_and_lone_surrogates_are_no_end() -> None:
    assert len(encode({"MESSAGE": "x" * 10**6})) < 5000
    assert decode(encode({"MESSAGE": "a\udc80"}))["MESSAGE"] == "a\\udc80"


@pytest.mark.parametrize("name", ["", "message", "_TRUSTED", "A=B", "A\nB", "1A", "A" * 65])
def test_names_that_journald_drops_are_a_mistake_of_ours(name: str) -> None:
    with pytest.raises(ValueError, match="journal field"):
        encode({name: "x"})


def test_an_error_has_its_code_and_its_hint() -> None:
    found = fields_of(FAILED)
    assert found is not None
    assert found["MESSAGE"] == "error: the link was lost" and found["PRIORITY"] == "3"
    assert (found["XENPLUGIN_CODE"], found["XENPLUGIN_HINT"]) == ("14", "the same command again goes on")


def test_each_event_is_a_message_that_steers_nothing_except_progress() -> None:
    for event, priority in (
        (events.Started("copy", "a\x1b[2Jb", "h:b", 4096), "6"),
        (events.Phase("finish"), "7"),
        (events.Linked("192.0.2.7", 0.1, 8, "bbr"), "6"),
        (events.Notice("a connection\nwas lost"), "4"),
        (events.Far("ssh says"), "5"),
        (events.Finished(MOVED), "6"),
    ):
        found = fields_of(event)
        assert found is not None and found["PRIORITY"] == priority
        assert found["MESSAGE"].isprintable()
        encode(found)
    assert fields_of(events.Progress(1, 2, 3, 4, 5, 6.0)) is None


@pytest.fixture
def listening() -> Iterator[tuple[str, socket.socket]]:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as here:
        path = str(Path(folder) / "socket")
        here.bind(path)
        here.settimeout(10)
        yield path, here


def test_it_arrives_with_the_domain(listening: tuple[str, socket.socket]) -> None:
    path, here = listening
    journal = JournaldUi(path)
    journal(events.Started("copy", "a.img", "h:b.img", 4096))
    assert "XENPLUGIN_DOMAIN" not in decode(here.recv(65536))
    journal(events.Started("migrate (live)", "g1", "hostb", 4096, domain="g1"))
    journal.close()  # a verb's last word comes after it
    journal(FAILED)
    for _ in range(2):
        found = decode(here.recv(65536))
        assert (found["XENPLUGIN_DOMAIN"], found["SYSLOG_IDENTIFIER"]) == ("g1", "xenplugin")


def test_a_missing_or_full_journal_is_ignored(listening: tuple[str, socket.socket], tmp_path: Path) -> None:
    JournaldUi(str(tmp_path / "none"))(FAILED)
    (tmp_path / "file").touch()
    JournaldUi(str(tmp_path / "file"))(FAILED)
    path, _ = listening
    for _ in range(2000):  # nobody reads: the kernel takes a few and refuses the rest
        JournaldUi(path)(FAILED)


class Told:
    def __init__(self) -> None:
        self.events: list[events.Event] = []
        self.closed = False

    def __call__(self, event: events.Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed = True


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_events_reach_the_journal_once(tmp_path: Path) -> None:
    ui, journal = Told(), JournaldUi(str(tmp_path / "none"))

    def where(out: io.TextIOBase, environment: Mapping[str, str]) -> journald.Ui:
        return joined(ui, out, journal, environment)  # type: ignore[arg-type]

    assert where(Terminal(), {}) is ui
    with open(tmp_path / "log", "w", encoding="utf-8") as out:
        about = os.fstat(out.fileno())
        assert where(out, {"JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}"}) is journal
        assert isinstance(where(out, {"JOURNAL_STREAM": "1:2"}), Both)
        assert isinstance(where(out, {}), Both)
    both = where(io.StringIO(), {})
    both(FAILED)
    both.close()
    assert ui.events == [FAILED] and ui.closed
