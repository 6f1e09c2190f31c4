"""After a kill, a power failure or a full disk, nothing is lost and the copy can be resumed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.image_kit import (
    base_of,
    copy,
    leftovers,
    loop_device,
    needs_root,
    put,
    send,
    sink_for,
    sparse_image,
)
from xenplugin.errors import ImageError
from xenplugin.geometry import BLOCK, CHUNK
from xenplugin.image.beside import journal_name, partial_name
from xenplugin.image.source.raw import open_source
from xenplugin.image.target import journal
from xenplugin.image.target.sink import open_sink

ROOT = Path(__file__).parents[4]
CHILD = """
    import os, sys, threading, time
    sys.path.insert(0, {root!r})
    from pathlib import Path
    from tests.helpers.image_kit import base_of, send
    from xenplugin.image.target.sink import open_sink
    from xenplugin.image.source.raw import open_source
    source = open_source({image!r})
    sink = open_sink({target!r}, source.size, state_dir=Path({state!r}), attached=lambda _: None)
    def checkpoints():
        while sink.missing():
            sink.checkpoint()
    write = os.pwritev
    def slowly(*args):
        time.sleep(0.004)
        return write(*args)
    os.pwritev = slowly
    base = base_of(sink.index(), source.chunks)
    print("ready", flush=True)
    checker = threading.Thread(target=checkpoints, daemon=True)
    checker.start()
    send(source, sink, base)
    {wait}
    checker.join()
    sink.commit()
"""


def start(image: Path, target: Path, state: Path, wait: str = "") -> subprocess.Popen[bytes]:
    """Start a process that copies, with checkpoints as often as possible."""
    script = textwrap.dedent(CHILD).format(
        root=str(ROOT),
        image=str(image),
        target=str(target),
        state=str(state),
        wait=wait,
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    return child


def kill(child: subprocess.Popen[bytes], after: float) -> None:
    try:
        child.wait(after)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


@pytest.mark.parametrize("round_", range(5))
def test_killed_at_any_moment_it_is_resumed_with_what_was_durable(tmp_path: Path, round_: int) -> None:
    rng = random.Random(round_)
    size = 40 * CHUNK + 12345
    extents = [(rng.randrange(size), rng.randrange(4 * CHUNK)) for _ in range(12)]
    image = sparse_image(tmp_path / "image", size, extents, round_)
    old = sparse_image(tmp_path / "target", size - CHUNK, extents[:8], round_)
    for _ in range(3):
        before = old.read_bytes()
        kill(start(image, old, tmp_path / "state"), rng.uniform(0, 0.25))
        state = journal.read(journal_name(str(old)))
        part = Path(partial_name(str(old)))
        if not part.exists():  # it was faster
            assert old.read_bytes() == image.read_bytes()
            continue
        if state is None:
            continue
        assert old.read_bytes() == before
        with open(part, "r+b") as file, open(image, "rb") as wanted:
            for first, count, durable in state.durable.split(0, 41):
                for index in range(first, first + count):
                    length = min(CHUNK, size - index * CHUNK)
                    file.seek(index * CHUNK)
                    if durable:
                        wanted.seek(index * CHUNK)
                        assert file.read(length) == wanted.read(length)
                    else:  # the power may have failed as well
                        file.write(rng.randbytes(length))
    copy(image, old)
    assert old.read_bytes() == image.read_bytes()
    assert leftovers(tmp_path) == []


@pytest.mark.root
@needs_root[1]
def test_an_incomplete_device_is_recorded_and_can_be_completed(tmp_path: Path) -> None:
    size = 24 * CHUNK
    image = sparse_image(tmp_path / "image", size, [(0, 20 * CHUNK)])
    backing = sparse_image(tmp_path / "backing", size, [(CHUNK, 9 * CHUNK)], seed=2)
    with loop_device(backing) as device:
        child = start(image, device, tmp_path / "state", "time.sleep(60)")
        kill(child, 0.3)
        (state,) = journal.read_all(tmp_path / "state")[0]
        assert state.target == str(device) and not state.done
        with (
            open_source(image) as source,
            open_sink(device, size, state_dir=tmp_path / "state", attached=lambda _: None) as sink,
        ):
            sent = send(source, sink, base_of(sink.index(), source.chunks))
            sink.commit()
        assert sent.known > 0 and journal.read_all(tmp_path / "state")[0] == []
        assert device.read_bytes() == image.read_bytes()


@contextmanager
def mounted(directory: Path, kind: str) -> Iterator[Path]:
    """Mount a file system of 16 MiB."""
    where = directory / "small"
    where.mkdir()
    if kind == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(where)], check=True)
        device = None
    else:
        disk = sparse_image(directory / "fs", 16 * CHUNK, [])
        subprocess.run(["mkfs.ext4", "-q", "-m0", "-O", "^has_journal", str(disk)], check=True)
        device = loop_device(disk)
        subprocess.run(["mount", str(device.__enter__()), str(where)], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)
        if device is not None:
            device.__exit__(None, None, None)


@pytest.mark.root
@needs_root[1]
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_full_disk_says_so_and_the_copy_goes_on_when_there_is_space(tmp_path: Path, kind: str) -> None:
    size = 64 * CHUNK
    image = sparse_image(tmp_path / "image", size, [(0, 10 * CHUNK)])
    with mounted(tmp_path, kind) as where:
        ballast = where / "ballast"
        ballast.write_bytes(b"x" * 8 * CHUNK)
        target = where / "target"
        with open_source(image) as source, sink_for(target, size) as sink:
            with pytest.raises(ImageError, match=r"at byte \d+: No space left") as caught:
                send(source, sink, {})
                sink.checkpoint()
            assert "free some space" in (caught.value.hint or "")
            with pytest.raises(ImageError, match="missing"):
                sink.commit()
            sink.suspend()
        ballast.unlink()
        with sink_for(target, size) as sink:
            kept = sink.resumed // CHUNK
            sink.suspend()
        assert 1 <= kept < 10
        assert copy(image, target).data == (10 - kept) * (CHUNK // BLOCK)
        assert target.read_bytes() == image.read_bytes()


def test_a_journal_that_cannot_be_written_is_whole_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    target = tmp_path / "target"
    real = os.write

    def full(fd: int, data: memoryview) -> int:
        if len(data) > 5:
            return real(fd, data[:5])
        raise OSError(28, "No space left on device")

    with sink_for(target, 4 * CHUNK) as sink:
        put(sink, 0, b"x" * CHUNK)
        sink.checkpoint()
        put(sink, 1, b"x" * CHUNK)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(ImageError, match="journal"):
                sink.checkpoint()
        put(sink, 2, b"x" * CHUNK)
        sink.checkpoint()
    state = journal.read(journal_name(str(target)))
    assert state is not None and list(state.durable.runs()) == [(0, 3)]


def test_the_journal_never_runs_ahead_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk in the journal was written before the start of a sync that ended before the chunk was noted."""
    import os

    log: list[tuple[str, object]] = []
    real_pwritev, real_sync, real_write = os.pwritev, os.fdatasync, os.write

    def pwritev(fd: int, parts: list[memoryview], offset: int) -> int:
        done = real_pwritev(fd, parts, offset)
        log.append(("data", offset // CHUNK))
        return done

    def fdatasync(fd: int) -> None:
        log.append(("sync begins", None))
        if len(log) < 40:  # more is written while it goes on
            put(sink, 20 + len(log), b"y" * CHUNK)
        real_sync(fd)
        log.append(("sync ends", None))

    def write(fd: int, data: memoryview) -> int:
        log.append(("journal", bytes(data)))
        return real_write(fd, data)

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(os, "write", write)
    with sink_for(tmp_path / "target", 100 * CHUNK) as sink:
        for index in range(10):
            put(sink, index, b"x" * CHUNK)
            if index % 3 == 0:
                sink.checkpoint()
        sink.suspend()
    written: set[object] = set()
    covered: set[object] = set()
    safe: set[object] = set()
    named = 0
    for what, value in log:
        match what, value:
            case "data", _:
                written.add(value)
            case "sync begins", _:
                covered = set(written)
            case "sync ends", _:
                safe |= covered
            case "journal", bytes(line):
                for part in line.splitlines():
                    numbers = (journal._record(part) or {}).get("durable", [])
                    for first, count in zip(numbers[::2], numbers[1::2], strict=True):
                        named += count
                        assert set(range(first, first + count)) <= safe
    assert named >= 13
