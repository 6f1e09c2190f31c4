"""What is read from a journal that is complete, torn or damaged."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from xenplugin.errors import RefusedError
from xenplugin.geometry import CHUNK
from xenplugin.image.chunkset import ChunkSet
from xenplugin.image.target import journal
from xenplugin.image.target.journal import Journal


def write(path: Path) -> Journal:
    return Journal.create(path, target="/images/g1", size=100 * CHUNK, kind="file", inode=7)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    log = write(tmp_path / "j")
    log.durable([(0, 3), (7, 1)])
    log.durable([(3, 2)])
    log.done()
    log.close()
    log.close()
    state = journal.read(tmp_path / "j")
    assert state is not None
    assert (state.target, state.size, state.kind, state.inode) == ("/images/g1", 100 * CHUNK, "file", 7)
    assert list(state.durable.runs()) == [(0, 5), (7, 1)] and state.done and state.created > 1e9
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o600


def test_a_truncated_journal_reports_less_but_nothing_wrong(tmp_path: Path) -> None:
    log = write(tmp_path / "j")
    known = [set[int]()]
    ends = [(tmp_path / "j").stat().st_size]
    for first in range(0, 12, 3):
        log.durable([(first, 2)])
        known.append(known[-1] | {first, first + 1})
        ends.append((tmp_path / "j").stat().st_size)
    log.close()
    data = (tmp_path / "j").read_bytes()
    for cut in range(len(data) + 1):
        (tmp_path / "cut").write_bytes(data[:cut])
        state = journal.read(tmp_path / "cut")
        lines = sum(end <= cut for end in ends)
        if not lines:
            assert state is None
            continue
        assert state is not None and state.length == ends[lines - 1]
        assert {i for a, n in state.durable.runs() for i in range(a, a + n)} == known[lines - 1]


def test_reading_stops_at_a_flipped_bit(tmp_path: Path) -> None:
    log = write(tmp_path / "j")
    log.durable([(0, 1)])
    log.durable([(1, 1)])
    log.close()
    data = (tmp_path / "j").read_bytes()
    first_line = data.index(b"\n") + 1
    second_line = data.index(b"\n", first_line) + 1
    for at in range(first_line, second_line):
        damaged = bytearray(data)
        damaged[at] ^= 4
        (tmp_path / "d").write_bytes(damaged)
        state = journal.read(tmp_path / "d")
        assert state is not None and len(state.durable) == 0


def test_writing_continues_after_the_last_valid_record(tmp_path: Path) -> None:
    log = write(tmp_path / "j")
    log.durable([(0, 1)])
    log.close()
    with open(tmp_path / "j", "ab") as file:
        file.write(b"0123456789abcdef {torn")
    state = journal.read(tmp_path / "j")
    assert state is not None
    log = Journal.reopen(state)
    log.durable([(5, 1)])
    log.close()
    again = journal.read(tmp_path / "j")
    assert again is not None and list(again.durable.runs()) == [(0, 1), (5, 1)]


@pytest.mark.parametrize(
    "record",
    [
        {"journal": 2, "target": "t", "size": 1, "created": 1, "kind": "file", "inode": 0},
        {"journal": 1, "target": "t", "size": -1, "created": 1, "kind": "file", "inode": 0},
        {"journal": 1, "target": "t", "size": 1, "created": 1, "kind": "tape", "inode": 0},
        {"durable": [0, 1]},
    ],
)
def test_a_header_that_is_not_ours(tmp_path: Path, record: dict[str, object]) -> None:
    (tmp_path / "j").write_bytes(journal._line(record))
    assert journal.read(tmp_path / "j") is None


@pytest.mark.parametrize("numbers", [[0], [-1, 2], [0, 0], [99, 2], ["0", 1], 7, [True, True]])
def test_reading_stops_at_an_invalid_range(tmp_path: Path, numbers: object) -> None:
    write(tmp_path / "j").close()
    with open(tmp_path / "j", "ab") as file:
        file.write(journal._line({"durable": numbers}) + journal._line({"durable": [1, 1]}))
    state = journal.read(tmp_path / "j")
    assert state is not None and len(state.durable) == 0


def test_many_ranges_take_many_lines(tmp_path: Path) -> None:
    log = Journal.create(tmp_path / "j", target="t", size=10_000 * CHUNK, kind="device", durable=ChunkSet())
    log.durable((i, 1) for i in range(0, 2000, 2))
    log.close()
    state = journal.read(tmp_path / "j")
    assert state is not None and len(state.durable) == 1000
    assert max(map(len, (tmp_path / "j").read_bytes().splitlines())) < 8192


def test_all_journals_are_listed_wherever_they_are(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    assert journal.read_all(state_dir)[0] == []
    Journal.create(tmp_path / "elsewhere", target="/images/g1", size=1, kind="file").close()
    journal.link(state_dir, "/images/g1", tmp_path / "elsewhere")
    name = journal.name_in(state_dir, "/dev/vg/g2")
    Journal.create(name, target="/dev/vg/g2", size=1, kind="device").close()
    (state_dir / "junk.journal").write_bytes(b"junk")
    assert {state.target for state in journal.read_all(state_dir)[0]} == {"/images/g1", "/dev/vg/g2"}
    (tmp_path / "elsewhere").unlink()
    assert [state.target for state in journal.read_all(state_dir)[0]] == ["/dev/vg/g2"]
    journal.unlink(state_dir, "/images/g1")
    assert not any(path.is_symlink() for path in state_dir.iterdir())
    assert journal.name_in(state_dir, "/dev/a/x") != journal.name_in(state_dir, "/dev/b/x")


def test_a_state_directory_that_cannot_be_written_does_not_stop_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("not a directory")
    journal.link(tmp_path / "state", "/images/g1", tmp_path / "j")
    journal.unlink(tmp_path / "state", "/images/g1")


def test_only_a_regular_file_is_a_journal(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    write(tmp_path / "j").close()
    (tmp_path / "link").symlink_to("j")
    for name, kind in (("pipe", "a pipe"), ("folder", "a directory"), ("link", "a symbolic link")):
        with pytest.raises(RefusedError, match=f"{name} cannot be the journal of a copy: it is {kind}") as info:
            journal.read(tmp_path / name)
        assert "remove it" in str(info.value.hint)


def test_reading_a_journal_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zeros").touch()
    os.truncate(tmp_path / "zeros", 1 << 40)
    assert journal.read(tmp_path / "zeros") is None
    log = Journal.create(tmp_path / "j", target="t", size=10_000 * CHUNK, kind="device")
    log.durable((i, 1) for i in range(0, 2000, 2))
    log.close()
    size = (tmp_path / "j").stat().st_size
    monkeypatch.setattr(journal, "_MOST", size // 2)
    state = journal.read(tmp_path / "j")
    assert state is not None and 0 < len(state.durable) < 1000
    Journal.reopen(state).close()  # what was not read is cut off
    assert (tmp_path / "j").stat().st_size == state.length < size


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 30000,
        b'{"journal":1,"target":"t","size":1,"created":1' + b"0" * 400 + b',"kind":"file","inode":0}',
        b'{"journal":1,"target":"t","size":1,"created":Infinity,"kind":"file","inode":0}',
        b'{"journal":1,"target":"t","size":1,"created":NaN,"kind":"file","inode":0}',
    ],
)
def test_a_line_with_a_valid_check_may_hold_anything(tmp_path: Path, body: bytes) -> None:
    check = hashlib.sha256(body).hexdigest()[:16].encode()
    (tmp_path / "j").write_bytes(check + b" " + body + b"\n")
    assert journal.read(tmp_path / "j") is None


def test_journals_that_cannot_be_read_are_listed_apart(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    write(tmp_path / "j").close()
    for number, path in enumerate(("j", "pipe", "other")):
        journal.link(state_dir, f"/images/g{number}", tmp_path / path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "other").symlink_to("j")  # where others may write, no link is followed
    os.mkfifo(state_dir / "device.journal")
    states, unreadable = journal.read_all(state_dir)
    assert [state.path for state in states] == [tmp_path / "j"]
    assert {path for path, _ in unreadable} == {tmp_path / "pipe", tmp_path / "other", state_dir / "device.journal"}
    with pytest.raises(RefusedError, match=r"device\.journal"):
        journal.of_devices(state_dir)
