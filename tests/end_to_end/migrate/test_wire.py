"""What crosses the link while a guest moves: neither its disk, nor its memory, nor who it is can be read; all of it
can, where a test double takes the place of the sealing."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import pytest

pytest.importorskip("scapy", reason="scapy is not installed")
pytest.importorskip("numpy", reason="numpy is not installed")

from lab.verify.judge.check import Finding, check_capture
from lab.verify.judge.explain import EXPECTED, Expect
from lab.verify.judge.verdict import Verdict, judged
from tests.fakes.world import G1, World
from tests.helpers.wire import stream, write

ROOT = Path(__file__).parents[3]
#: A piece of the disk, a piece of a page of memory (fakes.memory.pages), and the uuid in xl's configuration.
CANARIES = [
    random.Random("g10").randbytes(1 << 20)[70_000:70_048],
    random.Random(1).randbytes(4096)[2000:2048],
    G1.encode(),
]


def crossing(world: World, folder: Path) -> Finding:
    """Move the guest through a relay that keeps all that passes; what the check makes of it."""
    passed: dict[tuple[int, bool], bytearray] = defaultdict(bytearray)

    def keep(number: int, forward: bool, place: int, piece: bytes) -> bytes:
        passed[number, forward] += piece
        return piece

    world.create()
    proxy = world.through_proxy()
    proxy.change = keep
    world.moved("--mode", "live")
    assert world.assert_intact() is world.b
    packets = []
    for (number, forward), data in sorted(passed.items(), key=lambda row: not row[0][1]):
        packets += stream(bytes(data), 32_000, port=49300, back=not forward, caller=40000 + number)
    return check_capture(write(folder / "x.pcap", packets), CANARIES, Expect(EXPECTED["plugin"]))


def test_a_guest_that_moves_shows_nothing(world: World, tmp_path: Path) -> None:
    finding = crossing(world, tmp_path)
    assert judged(finding, "plugin") == (Verdict.PROVED, [])
    assert finding.judged > 400


def test_the_same_search_finds_everything_without_sealing(world: World, tmp_path: Path) -> None:
    for host in (world.a, world.b):
        program = host.root / "bin" / "xenplugin"
        double = f"sys.path.insert(0, {str(ROOT)!r})\nfrom tests.helpers import doubled\ndoubled.unsealed()\n"
        text = program.read_text()
        program.write_text(
            text.replace("from xenplugin.cli.main import main", double + "from xenplugin.cli.main import main")
        )
    finding = crossing(world, tmp_path)
    assert {hit.canary for hit in finding.hits} == {0, 1, 2}
    assert finding.not_noise and not finding.strangers and not finding.unframed
