"""The verb verify-wire: its output, its exit codes, and its memory, which does not grow with the capture."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("scapy", reason="scapy is not installed")
pytest.importorskip("numpy", reason="numpy is not installed")

from lab import cli
from lab.hosts.guest import canaries
from lab.verbs import verify_wire
from lab.verify.judge.check import Finding
from lab.verify.judge.host_finding import HostFinding
from lab.verify.judge.verdict import Verdict, judged
from tests.helpers.program import ROOT
from tests.helpers.wire import PREAMBLE, frame, noise, stream, write

WORDS = [sys.executable, "-m", "lab", "verify-wire"]
SEALED = PREAMBLE + frame(40_000)
OPEN = PREAMBLE + struct.pack(">L", 40_000) + (canaries.lines(canaries.DISK) + noise(40_000, 2))[:40_000]


def capture(path: Path, data: bytes, *, without: int | None = None) -> Path:
    packets = stream(data, port=49300)
    if without is not None:
        del packets[without]
    return write(path, packets)


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*WORDS, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_sealed_stream_proves_that_nothing_is_readable(tmp_path: Path) -> None:
    done = run(capture(tmp_path / "x.pcap", SEALED), "--expect", "plugin")
    assert (done.returncode, done.stderr) == (0, "")
    assert "tcp/49300   plugin" in done.stdout and "nothing is readable" in done.stdout
    assert "data that looks random: plugin 39.1 KiB (the last 3136 bytes are too few to test)" in " ".join(
        done.stdout.split()
    )


def test_a_capture_with_only_ssh_proves_nothing_about_the_plugin(tmp_path: Path) -> None:
    """As it is if the plugin's ports are blocked."""
    opening = b"SSH-2.0-x\r\n" + struct.pack(">LBB", 6, 4, 21) + bytes(4)
    path = write(tmp_path / "x.pcap", stream(opening + noise(400_000), port=22))
    done = run(path, "--expect", "plugin")
    assert done.returncode == 11 and "nothing is readable" not in done.stdout
    assert done.stderr == (
        "xenlab: error: x.pcap: the capture contains no stream of the plugin, only ssh\n"
        f"xenlab: hint: {verify_wire._FALLBACK}\n"
    )
    done = run(path)
    assert (done.returncode, done.stderr) == (0, "") and "looks random: ssh 390.6 KiB" in done.stdout


def test_a_capture_that_ends_within_a_header_is_an_error(tmp_path: Path) -> None:
    path = capture(tmp_path / "x.pcap", SEALED)
    path.write_bytes(path.read_bytes() + bytes(9))
    done = run(path)
    assert done.returncode == 13 and done.stderr == f"xenlab: error: {path}: it cannot be read to its end\n"


def test_readable_canaries_are_reported(tmp_path: Path) -> None:
    done = run(capture(tmp_path / "x.pcap", OPEN), "--expect", "plugin")
    assert done.returncode == 12
    assert done.stderr.startswith("xenlab: error: x.pcap: 4 canaries are readable, as raw")
    assert "4 canaries as raw in 10.0.0.1:40000 > 10.0.0.2:49300, the first at byte 84" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--expect", "esp"], 12, "unexplained packets: 30 tcp/49300"),
        (["--ports", "50000"], 12, "unexplained packets"),
        (["--ports", "50000", "--also", "tcp/49300"], 0, ""),
        (
            ["--expect", "plain"],
            11,
            "8 of 8 canaries were not found in the unprotected transfer: did it contain them?",
        ),
        (["--moved", "disk"], 2, "--moved works only with --expect plain"),
        (["--expect", "plain", "--moved", "disk", "--canaries", "/dev/null"], 2, "--moved works only"),
        (["--ports", "x"], 2, "ports are a range"),
        (["--canaries", "missing"], 2, "cannot read missing"),
        (["--canaries", "/dev/null"], 2, "one canary per line, each of 16 bytes or more"),
        (["missing.pcap"], 13, "missing.pcap: No such file or directory"),
        (["/etc/hostname"], 13, "/etc/hostname: "),
        (["--expect", "nothing"], 2, "nothing"),
    ],
)
def test_exit_codes(words: list[str], code: int, message: str, tmp_path: Path) -> None:
    done = run(capture(tmp_path / "x.pcap", SEALED), *words)
    assert done.returncode == code and message in done.stderr and "Traceback" not in done.stderr


def test_the_worst_of_several_captures_gives_the_exit_code(tmp_path: Path) -> None:
    good = capture(tmp_path / "good.pcap", SEALED)
    lost = capture(tmp_path / "lost.pcap", SEALED, without=5)
    bad = capture(tmp_path / "bad.pcap", OPEN)
    done = run(good, lost, "--json")
    found = json.loads(done.stdout)["captures"]
    assert [each["verdict"] for each in found] == ["proved", "unproven"]
    assert done.returncode == 11 and done.stderr == (
        "xenlab: error: lost.pcap: 1400 bytes of TCP streams are missing\n"
    )
    done = run(good, lost, bad, "--json")
    assert done.returncode == 12 and "lost.pcap" not in done.stderr
    assert [each["verdict"] for each in json.loads(done.stdout)["captures"]] == ["proved", "unproven", "open"]


def test_a_plain_transfer_must_show_every_canary_that_was_moved(tmp_path: Path) -> None:
    """That one was found proves nothing about the others."""
    disk = capture(tmp_path / "disk.pcap", OPEN)
    both = capture(tmp_path / "both.pcap", canaries.lines(canaries.DISK + canaries.MEMORY) + noise(9000))
    one = capture(tmp_path / "one.pcap", noise(3000) + canaries.DISK[2][:24] + noise(9000, 2))
    for path, words, missed in (
        (both, [], ""),
        (disk, ["--moved", "disk"], ""),
        (both, ["--moved", "memory"], ""),
        (both, ["--moved", "memory", "--moved", "disk"], ""),
        (disk, [], "4 of 8"),
        (disk, ["--moved", "memory"], "4 of 4"),
        (one, [], "7 of 8"),
        (one, ["--moved", "disk"], "3 of 4"),
    ):
        done = run(path, "--expect", "plain", *words)
        assert (done.returncode, missed in done.stderr) == (11 if missed else 0, True)
        assert ("the check finds what is sent in the clear" in done.stdout) is not missed.startswith(
            ("4", "7", "3")
        )
    (tmp_path / "canaries").write_bytes(b"\n".join(canaries.DISK[:2]))
    assert run(disk, "--expect", "plain", "--canaries", tmp_path / "canaries", "--json").returncode == 0
    (tmp_path / "canaries").write_bytes(b"\n".join([*canaries.DISK[:2], b"the rain in spain"]))
    done = run(disk, "--expect", "plain", "--canaries", tmp_path / "canaries", "--json")
    (found,) = json.loads(done.stdout)["captures"]
    assert done.returncode == 11 and found["verdict"] == "unproven" and found["hits"]


def test_canaries_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "canaries").write_bytes(b"the rain in spain stays mainly\n\nin the plain, the plain\n")
    path = capture(
        tmp_path / "x.pcap", SEALED + struct.pack(">L", 60) + b"falls: in the plain, the plain".ljust(60)
    )
    done = run(path, "--canaries", tmp_path / "canaries", "--json")
    assert done.returncode == 12
    assert {hit["canary"] for hit in json.loads(done.stdout)["captures"][0]["hits"]} == {1}


def test_without_a_capture_or_a_lab_it_is_an_error() -> None:
    done = run()
    assert done.returncode == 2 and "name a capture, or use --hosts" in done.stderr
    done = run("--hosts", "--name", "no-such-lab")
    assert done.returncode == 13 and "there is no lab no-such-lab" in done.stderr


EVERYWHERE = {"processes": 120, "files": 44, "bytes of journal": 9, "bytes of xenstore": 9}


def use_findings(monkeypatch: pytest.MonkeyPatch, findings: dict[str, HostFinding]) -> None:
    monkeypatch.setattr(verify_wire, "look_at", lambda name, say: (None, None, None))
    monkeypatch.setattr(verify_wire, "look_at_hosts", lambda provider, seconds: findings)


def test_hosts_are_searched(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    findings = {
        "host-a": HostFinding([], EVERYWHERE, {"files": 2}),
        "host-b": HostFinding([["/var/log/x", "hex, 64 characters: 123456..."]], EVERYWHERE),
    }
    use_findings(monkeypatch, findings)
    assert cli.main(["verify-wire", "--hosts"]) == 12
    output = capsys.readouterr()
    assert "host-a: searched 120 processes, 44 files, 9 bytes of journal, 9 bytes of xenstore\n" in output.out
    assert "  could not be read: 2 files\n  no secret found\n" in output.out
    assert "/var/log/x: hex, 64 characters: 123456..." in output.out
    assert output.err == "xenlab: error: host-b: possible secrets found: 1\n"
    findings["host-b"].leaks.clear()
    assert cli.main(["verify-wire", "--hosts", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["hosts"]["host-a"]
    assert found["places"]["files"] == 44 and found["unread"] == {"files": 2}


@pytest.mark.parametrize(
    ("without", "missing"),
    [
        (["processes"], "processes"),
        (["files"], "files"),
        (["bytes of journal"], "journal or syslog"),
        (["bytes of xenstore"], "xenstore"),
        (list(EVERYWHERE), "processes, files, journal or syslog, xenstore"),
    ],
)
def test_a_host_with_places_that_were_not_searched_proves_nothing(
    without: list[str], missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {kind: count for kind, count in EVERYWHERE.items() if kind not in without}
    use_findings(monkeypatch, {"host-a": HostFinding([], EVERYWHERE), "host-b": HostFinding([], places)})
    assert cli.main(["verify-wire", "--hosts"]) == 11
    output = capsys.readouterr()
    assert output.err == f"xenlab: error: host-b: not searched: {missing}\n"
    assert output.out.count("no secret") == 1 and f"NOT PROVED: not searched: {missing}" in output.out


def test_a_syslog_may_replace_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"processes": 1, "files": 1, "bytes of syslog": 1, "bytes of xenstore": 1}
    use_findings(monkeypatch, {"host-a": HostFinding([], places)})
    assert cli.main(["verify-wire", "--hosts"]) == 0


@pytest.mark.parametrize(
    ("finding", "verdict"),
    [
        (Finding(), Verdict.UNPROVEN),
        (Finding(packets=1, payload_bytes=10, clear_bytes=10), Verdict.UNPROVEN),
        (Finding(packets=1, payload_bytes=10), Verdict.UNPROVEN),
        (Finding(packets=1, payload_bytes=9999, judged=3, truncated=1), Verdict.UNPROVEN),
        (Finding(packets=1, payload_bytes=9999, judged=3, unfollowed=1), Verdict.UNPROVEN),
        (Finding(packets=1, payload_bytes=9999, judged=3, unframed=["a > b"]), Verdict.OPEN),
        (Finding(packets=1, payload_bytes=9999, judged=3, not_noise=1, truncated=1), Verdict.OPEN),
        (Finding(packets=1, payload_bytes=9999, judged=3), Verdict.PROVED),
    ],
)
def test_each_finding_has_its_verdict(finding: Finding, verdict: Verdict) -> None:
    assert judged(finding, "any")[0] is verdict


def test_a_capture_without_the_expected_protocol_proves_nothing() -> None:
    finding = Finding(packets=1, payload_bytes=9999, judged=3, sealed={"ike": 9999})
    assert judged(finding, "esp") == (Verdict.UNPROVEN, ["the capture contains no esp"])
    assert judged(finding, "plugin") == (Verdict.UNPROVEN, ["the capture contains no stream of the plugin"])


#: Prints the peak memory in KiB of its own process; ru_maxrss would include that of the process it was forked from.
MEASURED = """
import re, sys
from lab.cli import main
main(["verify-wire", sys.argv[1], "--json"])
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""


def raw_capture(path: Path, mib: int) -> Path:
    """Write a capture of `mib` MiB in eight sealed connections. Each lacks a segment, so that later ones wait."""
    with path.open("wb") as file:
        file.write(struct.pack("=LHHlLLL", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 101))

        def put(port: int, number: int, flags: int, data: bytes) -> None:
            head = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(data), 1, 0x4000, 64, 6, 0)
            head += bytes([10, 0, 0, 1, 10, 0, 0, 2])
            head += struct.pack("!HHLLBBHHH", port, 49300, number, 0, 0x50, flags, 0, 0, 0)
            file.write(struct.pack("=LLLL", 0, 0, len(head) + len(data), len(head) + len(data)) + head + data)

        for port in range(40000, 40008):
            put(port, 0, 2, b"")
            put(port, 1, 16, PREAMBLE)
            number = 65
            for _ in range(mib // 8):
                body = struct.pack(">L", (1 << 20) - 4) + os.urandom((1 << 20) - 4)
                for at in range(0, 1 << 20, 32 << 10):
                    if number != 65 + (3 << 15):
                        put(port, number, 16, body[at : at + (32 << 10)])
                    number += 32 << 10
    return path


@pytest.mark.slow
def test_memory_does_not_grow_with_the_capture(tmp_path: Path) -> None:
    most = {}
    for mib in (16, 160):
        path = raw_capture(tmp_path / "x.pcap", mib)
        done = subprocess.run([sys.executable, "-c", MEASURED, path], cwd=ROOT, capture_output=True, timeout=300)
        (found,) = json.loads(done.stdout)["captures"]
        assert found["payload_bytes"] == 8 * (64 - (32 << 10)) + (mib << 20)
        assert found["missing_bytes"] == 8 * (32 << 10) and found["verdict"] == "unproven"
        most[mib] = int(done.stderr.split()[-1]) >> 10
    assert most[160] < 300 and most[160] < most[16] + 150, most
