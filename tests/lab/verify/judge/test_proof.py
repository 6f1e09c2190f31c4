"""The check finds the canaries of unsealed transfers over a real link, and nothing in sealed ones."""

from __future__ import annotations

import base64
import gzip
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("scapy", reason="scapy is not installed")
pytest.importorskip("numpy", reason="numpy is not installed")

from lab.hosts.guest import canaries
from lab.verify.judge.check import Finding, check_capture
from lab.verify.judge.explain import EXPECTED, Expect
from lab.verify.judge.leaks import SecretSearch, search_files, search_processes
from lab.verify.judge.verdict import Verdict, judged
from netem.profile import Profile
from netem.two_hosts import TwoHosts
from tests.helpers.doubled import SECRET
from tests.helpers.images import content
from tests.helpers.program import PROGRAM, Program, processes_with, wait_until
from tests.helpers.wire import noise, recording, send

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and packet sockets need root"),
    pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="no /dev/net/tun"),
]
CANARIES = canaries.DISK + canaries.MEMORY
PLUGIN = Expect(EXPECTED["plugin"])
DOUBLED = Path(__file__).parents[3] / "helpers" / "doubled.py"
MIB = 1 << 20


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    with TwoHosts(Profile.parse(rtt="10ms", rate="200mbit"), "vw") as made:
        yield made


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk with canaries in text, in noise (which the plugin does not compress), and in the guest's gzip data."""
    path = tmp_path / "guest.img"
    with path.open("wb") as disk:
        disk.truncate(12 * MIB)
        disk.write(canaries.lines(canaries.DISK) + b"all work and no play\n" * 20_000)
        disk.seek(3 * MIB + 70_001)
        disk.write(noise(2 * MIB) + canaries.lines(canaries.MEMORY) + noise(MIB, 2))
        disk.seek(8 * MIB)
        disk.write(gzip.compress(canaries.lines(CANARIES) + b"no play and all work\n" * 9))
    return path


def check(path: Path) -> Finding:
    """Check a capture, which must be complete."""
    finding = check_capture(path, CANARIES, PLUGIN)
    assert finding.missing_bytes == finding.truncated == finding.unfollowed == 0
    return finding


def test_all_canaries_of_a_plain_copy_are_found(hosts: TwoHosts, image: Path, tmp_path: Path) -> None:
    with recording(hosts, tmp_path / "x.pcap"):
        send(hosts, 8002, image.read_bytes())
    finding = check(tmp_path / "x.pcap")
    assert {hit.canary for hit in finding.hits} == set(range(len(CANARIES)))
    assert {"raw", "gzip"} <= finding.spellings
    assert finding.not_noise and finding.strangers.keys() == {"tcp/8002"}
    assert judged(finding, "plugin")[0] is Verdict.OPEN and judged(finding, "plain")[0] is Verdict.PROVED


def test_canaries_in_the_commands_and_data_of_ftp_are_found(hosts: TwoHosts, image: Path, tmp_path: Path) -> None:
    commands = b"USER root\r\nPASS %s\r\nTYPE I\r\nPASV\r\nSTOR guest.img\r\nQUIT\r\n" % CANARIES[0]
    with recording(hosts, tmp_path / "x.pcap"):
        answers = b"220 ready\r\n331 and?\r\n230 so be it\r\n200 I\r\n227 (10,0,0,2,156,64)\r\n150\r\n"
        send(hosts, 21, commands, answers)
        send(hosts, 40_000, image.read_bytes())
    finding = check(tmp_path / "x.pcap")
    assert any(hit.flow.endswith(":21") and hit.canary == 0 for hit in finding.hits)
    assert any(hit.flow.endswith(":40000") for hit in finding.hits)
    assert finding.strangers.keys() == {"tcp/21", "tcp/40000"}


class KnownSecretSearch(SecretSearch):
    """A search that reports SECRET, too, in any spelling."""

    def check_text(self, where: str, text: bytes) -> None:
        super().check_text(where, text)
        for name, spelled in (
            ("raw", SECRET),
            ("hex", SECRET.hex().encode()),
            ("base64", base64.b64encode(SECRET).rstrip(b"=")),
            ("numbers", ", ".join(map(str, SECRET)).encode()),
            ("escaped", repr(SECRET)[2:-1].encode()),
            *(("hex in groups", SECRET.hex(by, size).encode()) for by in ": -" for size in (1, 2, 4)),
        ):
            if spelled in text or (name.startswith("hex") and spelled in text.lower()):
                self.report(where, f"the known secret, {name}")


def copy(program: Program, hosts: TwoHosts, image: Path, words: list[str], *options: str) -> None:
    """Run `xenplugin copy` from hosts.a to hosts.b; `words` start the program on both sides."""
    target = program.folder / "copy.img"
    end = ["ip", "netns", "exec", hosts.a.name]
    remote = ["--remote-program", shlex.join(words), *options]
    line = [*words, "copy", "-s", "ip netns exec", *remote, str(image), f"{hosts.b.name}:{target}"]
    done = program.spawn([*end, *line]).end()
    assert done.code == 0, done.err
    assert content(target) == content(image)


@pytest.mark.parametrize("level", ["store", "-5", "1", "9"])
def test_all_canaries_are_found_in_the_plugin_without_sealing(
    level: str, program: Program, hosts: TwoHosts, image: Path, tmp_path: Path
) -> None:
    with recording(hosts, tmp_path / "x.pcap"):
        copy(program, hosts, image, [sys.executable, str(DOUBLED), "unsealed"], "--level", level)
    finding = check(tmp_path / "x.pcap")
    assert {hit.canary for hit in finding.hits} == set(range(len(CANARIES)))
    assert {"raw", "gzip" if level == "store" else "gzip in zstd"} <= finding.spellings
    assert finding.not_noise
    # Framing and ports are as usual: only the content shows it.
    assert not finding.strangers and not finding.unframed


def test_nothing_is_found_in_the_sealed_stream_of_the_plugin(
    program: Program, hosts: TwoHosts, image: Path, tmp_path: Path
) -> None:
    with recording(hosts, tmp_path / "x.pcap"):
        copy(program, hosts, image, PROGRAM)
    finding = check(tmp_path / "x.pcap")
    assert judged(finding, "plugin") == (Verdict.PROVED, [])
    assert finding.payload_bytes > 3 * MIB and finding.judged > 700
    assert any("plugin" in meanings for meanings in finding.meanings.values())


def test_the_session_secret_is_in_no_process_file_output_or_packet(
    program: Program, hosts: TwoHosts, image: Path, tmp_path: Path
) -> None:
    """The test double uses a known secret. It is searched for in everything that others can see of the session."""
    search = KnownSecretSearch()
    state = tmp_path / "state"
    config = tmp_path / "plugin.toml"
    config.write_text(f'state_dir = "{state}"\n')
    words = [sys.executable, str(DOUBLED), "planted"]
    with recording(hosts, tmp_path / "x.pcap"):
        line = [*words, "copy", "-v", "--config", str(config), "--log-json", "--rate", "4mbit"]
        line += ["-s", "ip netns exec", "--remote-program", shlex.join(words)]
        line += [str(image), f"{hosts.b.name}:{tmp_path / 'copy.img'}"]
        running = program.spawn(["ip", "netns", "exec", hosts.a.name, *line])
        running.await_phase("finish")
        pids = processes_with(program.token)
        assert len(pids) >= 2
        search_processes(search, pids)
        search_files(search, [state])
        done = running.end()
    assert done.code == 0
    search.check_text("output", (done.err + done.out).encode())
    assert search.leaks == [] and search.places["processes"] == len(pids)
    assert check_capture(tmp_path / "x.pcap", [SECRET.hex().encode(), SECRET], PLUGIN).hits == []


def test_the_same_search_finds_the_secret_of_a_careless_program(program: Program, tmp_path: Path) -> None:
    search = KnownSecretSearch()
    (tmp_path / "log").write_text(f"secret={SECRET.hex()}\n")
    careless = program.spawn([sys.executable, "-c", "input()", SECRET.hex()], env={"SECRET": SECRET.hex()})
    wait_until(Path(f"/proc/{careless.pid}/cmdline").read_bytes, "its arguments")  # visible a moment after exec
    search_processes(search, [careless.pid])
    search_files(search, [tmp_path / "log"])
    careless.process.kill()
    careless.process.wait()
    found = {(where.split(" ")[0].rpartition("/")[2], what) for where, what in search.leaks}
    described = f"hex, 64 characters: {SECRET.hex()[:6]}..."
    assert found == {
        (where, what) for where in ("cmdline", "environ", "log") for what in (described, "the known secret, hex")
    }
