"""What plays a Xen host: its stream is one that the plugin follows, its xl speaks xl's protocol."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.fakexen import domain_stream, messages, recorded_guest, tcp
from lab.fakexen.host import Host
from lab.fakexen.xenstored import Xenstored
from lab.measure import recorded_memory
from tests.helpers.xl_list import parse_list
from tests.helpers.xl_records import records
from xenplugin.migrate.xl import xl_protocol
from xenplugin.migrate.xl.incremental import IncrementalParser, Steps
from xenplugin.migrate.xl.xl_stream import LibxcRecord, Part, StreamEnd, Suspended, libxl_stream

ROOT = Path(__file__).parents[3]
UUID = "5c5b1ad0-4f16-4a3c-9d1e-000000000005"


@pytest.fixture
def made(tmp_path: Path) -> domain_stream.Stream:
    image = tmp_path / "disk.img"
    image.write_bytes(random.Random(1).randbytes(1 << 20) + bytes(1 << 20))
    return domain_stream.obtain(tmp_path, 4 << 20, image, None, lambda text: None)


def _events(data: bytes) -> list[Part]:
    def grammar(parser: IncrementalParser[Part]) -> Steps:
        yield from libxl_stream(parser)
        yield 1

    return IncrementalParser(grammar).feed(data)


def test_the_stream_is_a_valid_migration_stream(made: domain_stream.Stream) -> None:
    data = made.path.read_bytes()
    suspended, ended = _events(data)
    assert isinstance(suspended, Suspended) and made.suspended < suspended.at and made.size == len(data)
    assert isinstance(ended, StreamEnd) and ended.end == len(data)
    pages = sum(each.length for each in records(data) if each.kind is LibxcRecord.PAGE_DATA)
    assert pages > 4 << 20  # all of them, and what was dirtied
    assert made.ratio > 1.2


def test_the_stream_is_kept_and_the_same_again(made: domain_stream.Stream, tmp_path: Path) -> None:
    said: list[str] = []
    assert domain_stream.obtain(tmp_path, 4 << 20, tmp_path / "disk.img", None, said.append) == made and not said
    made.path.with_suffix(".json").unlink()
    assert domain_stream.obtain(tmp_path, 4 << 20, tmp_path / "disk.img", None, said.append) == made and said


def test_a_recorded_memory_is_in_the_stream_page_by_page(tmp_path: Path) -> None:
    memory = random.Random(2).randbytes(3 << 20) + bytes(1 << 20)
    recorded = tmp_path / "recorded-4m-idle.pages"
    recorded.write_bytes(memory)
    kept = domain_stream.obtain(tmp_path, 4 << 20, tmp_path / "no.img", recorded, lambda text: None)
    data = kept.path.read_bytes()
    written = [each for each in records(data) if each.kind is LibxcRecord.PAGE_DATA]
    assert isinstance(_events(data)[-1], StreamEnd)
    first, whole = written[0], b""
    for each in written:
        count, _ = struct.unpack_from("<II", data, each.at + 8)
        numbers = struct.unpack_from(f"<{count}Q", data, each.at + 16)
        pages = data[each.at + 16 + 8 * count : each.at + 8 + each.length]
        for place, number in enumerate(numbers):
            page = pages[place * 4096 : (place + 1) * 4096]
            assert page == memory[number * 4096 : (number + 1) * 4096]
        whole += pages if len(whole) < len(memory) else b""
    assert whole == memory and first.length == 8 + 1024 * (8 + 4096)


@pytest.mark.parametrize("load", recorded_memory.LOADS)
def test_a_guest_to_be_recorded_contains_its_workload(load: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(recorded_memory.unit(load))) as tar:
        link = tar.getmember("etc/systemd/system/multi-user.target.wants/load.service")
        assert link.issym() and link.linkname.removeprefix("/") in tar.getnames()
        script = tar.extractfile("root/load")
        service = tar.extractfile("root/service")
        assert script is not None and service is not None
        subprocess.run(["sh", "-n"], input=script.read(), check=True)
        compile(service.read(), "service", "exec")


def test_a_guest_that_cannot_be_recorded_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="2048 MiB at most"):
        recorded_memory.obtain(tmp_path, 4 << 30, "idle", lambda text: None)
    kept = tmp_path / "recorded-4096m-idle.pages"
    kept.touch()
    assert (
        recorded_memory.obtain(tmp_path, 4 << 30, "idle", lambda text: None) == kept
    )  # an existing recording is used


def test_it_sends_the_messages_of_xl() -> None:
    assert (messages.BANNER, messages.READY, messages.GO, messages.REPORT) == (
        xl_protocol.BANNER, xl_protocol.RECEIVED, xl_protocol.CLEARED, xl_protocol.REPORT,
    )  # fmt: skip


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[[str], Host]]:
    """Makes a host by its name, with a xenstore of its own."""
    served = []

    def make(name: str) -> Host:
        root = tmp_path / name
        root.mkdir()
        served.append(Xenstored(root / "xenstored.sock"))
        return recorded_guest.host(str(root))

    yield make
    for each in served:
        each.close()


def guest(config: dict[str, Any], made: domain_stream.Stream | None = None, **more: Any) -> dict[str, Any]:
    config = {"c_info": {"name": "g1", "uuid": UUID}, **config}
    stream = {"stream": str(made.path), "suspended": made.suspended} if made else {"stream": "", "suspended": 0}
    return {"config": config, **stream, "disk": None, "writes": 0, "window_at": 0, "window": 0, **more}


def names(host: Host) -> dict[str, bool]:
    """Whether each domain runs."""
    return {one["name"]: not (one["paused"] or one["shutdown"]) for one in host.domains()}


def program(root: str) -> list[str]:
    text = "import sys; sys.path.insert(0, sys.argv.pop(1)); from lab.fakexen import recorded_guest, xl"
    text += "; xl.run(recorded_guest.host(sys.argv.pop(1)))"
    return [sys.executable, "-IS", "-c", text, str(ROOT), root]


def test_it_lists_what_xl_lists(host: Callable[[str], Host]) -> None:
    one = host("a")
    recorded_guest.depart(one, guest({}))
    text = subprocess.run([*program(one.root), "list", "-v"], capture_output=True, text=True, check=True).stdout
    found = parse_list(text)
    assert [(domain.name, domain.uuid) for domain in found[1:]] == [("g1", UUID)] and not found[1].suspended


def test_a_guest_goes_over(made: domain_stream.Stream, host: Callable[[str], Host], tmp_path: Path) -> None:
    """From one to the other through the two directions as the plugin follows them."""
    near, far = host("a"), host("b")
    disk = tmp_path / "data"
    disk.write_bytes(bytes(1 << 20))
    disks = {"disks": [{"pdev_path": str(disk), "vdev": "xvda"}]}
    recorded_guest.depart(near, guest(disks, made, disk=str(disk), writes=4 << 20, window=65536))
    (Path(near.root) / recorded_guest.GO).touch()
    recorded_guest.make_room(far.root, made.size)
    command = " ".join(f"'{word}'" for word in [*program(far.root), "migrate-receive"]) + " #"
    words = [*program(near.root), "migrate", "-s", command, "g1", "hostb"]
    done = subprocess.run(words, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert near.domains() == [] and names(far) == {"g1": True}
    assert (Path(far.root) / "memory").read_bytes() == made.path.read_bytes()
    assert any(disk.read_bytes()[:65536])
    times = {**recorded_guest.read_times(near.root), **recorded_guest.read_times(far.root)}
    assert times["began"] < times["suspended"] < times["received"] < times["runs"]


def test_a_guest_whose_transport_fails_stays(made: domain_stream.Stream, host: Callable[[str], Host]) -> None:
    near = host("a")
    recorded_guest.depart(near, guest({}, made))
    words = [*program(near.root), "migrate", "-s", "false", "g1", "hostb"]
    done = subprocess.run(words, capture_output=True, timeout=60)
    assert done.returncode == 1 and names(near) == {"g1": True}


def test_bytes_pass_both_ways_over_tcp(tmp_path: Path) -> None:
    far = "import os; os.write(1, b'banner'); data = b''\nwhile len(data) < 300000: data += os.read(0, 65536)\n"
    far += "os.write(1, b'done')"
    port = str(_free())
    words = [sys.executable, tcp.__file__, "--listen", "127.0.0.1", port, sys.executable, "-c", far]
    listener = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert listener.stdout is not None and listener.stdout.readline() == b"listening\n"
    near = subprocess.Popen([sys.executable, tcp.__file__, "127.0.0.1", port], stdin=-1, stdout=-1)
    assert near.stdin is not None and near.stdout is not None
    assert near.stdout.read(6) == b"banner"
    near.stdin.write(os.urandom(300000))
    near.stdin.flush()  # nothing more comes, and what came must be there all the same
    assert near.stdout.read(4) == b"done"
    near.stdin.close()
    assert near.wait(20) == listener.wait(20) == 0
    near.stdout.close()
    listener.stdout.close()


def _free() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
