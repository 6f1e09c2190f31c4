"""A pull whose far side, or what comes from it, is not as it should be."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from tests.end_to_end.copy.conftest import Pull
from tests.helpers.image_kit import digest_file
from tests.helpers.images import content, names_in
from tests.helpers.program import ROOT


@pytest.mark.parametrize("byte", [40, 3000])  # before the image, and within it
def test_a_changed_byte_is_found(pull: Pull, image: Path, byte: int) -> None:
    pull.sides.near["ports"] = "0"
    pull.sides.ssh_options += ["--flip-backward", str(byte)]
    done = pull.run(image, code=12)
    assert "far side" not in done.error
    if byte == 40:
        assert names_in(pull.sides.there) == set()
    else:  # what was verified is kept
        pull.sides.assert_kept()
    pull.sides.ssh_options.clear()
    pull.run(image)
    assert content(pull.sides.target) == content(image)


def test_a_far_side_can_write_to_the_target_only(pull: Pull, image: Path, tmp_path: Path) -> None:
    """Its job names another file, a migration and a live image; its lines on standard error are hostile, too."""
    evil = tmp_path / "evil"
    lines = [
        "\x1b[2J",
        "xenplugin: error: forged",
        '{"event": "progress", "bytes_done": NaN, "bytes_total": 1}',
        '{"event": "failed", "code": 20, "error": "forged", "hint": null}',
        '{"event": "finished", "result": {"bytes_wire": "many"}}',
        '{"event": "phase", "name": "forged"}',
        json.dumps({"event": "notice", "text": "\x1b]0;forged\x07"}),
    ]
    (tmp_path / "lines").write_text("\n".join(lines))
    hostile = ROOT / "tests" / "helpers" / "hostile_source.py"
    far = shlex.join([sys.executable, str(hostile), str(evil), str(tmp_path / "lines")])
    pull.sides.ssh = shlex.join(["sh", "-c", f"exec {far}"])
    pull.sides.target.write_bytes(b"old content")
    done = pull.run(image)
    assert not evil.exists() and content(pull.sides.target) == content(image)
    assert done.result["sha256"] == digest_file(image)
    assert [event["text"] for event in done.events if event["event"] == "notice"] == ["\x1b]0;forged\x07"]
    assert not {"failed", "progress"} & {event["event"] for event in done.events}
    shown = pull.sides.program.run(*pull.words(image))
    assert "\x1b" not in shown.err
    pull.assert_clean()


CASES = {
    "an older version": (
        "echo \"xenplugin: error: No such command 'send'.\" >&2; exit 2",
        11,
        "No such command",
        "same version",
    ),
    "another version": ("echo 'XENPLUGIN-SEND 1 {}'; cat >/dev/null", 11, "speaks version 1", "same version"),
    "no JSON": ("echo 'XENPLUGIN-SEND 2 hello'", 11, "is malformed", "same version"),
    "a destination": ("echo 'XENPLUGIN-RECEIVE 2 {}'", 11, "did not start", ""),
    "ready and gone": ("echo 'XENPLUGIN-SEND 2 {}'", 14, "ended", "again"),
    "ready, then an echo": ("echo 'XENPLUGIN-SEND 2 {}'; cat", 11, "job cannot be read", ""),
    "a job without an end": ("echo 'XENPLUGIN-SEND 2 {}'; yes | tr -d '\\n'", 11, "longer than", ""),
    "unreachable": ("echo 'ssh: connect: No route to host' >&2; exit 255", 14, "No route to host", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_a_far_side_that_is_not_the_plugin(pull: Pull, case: str) -> None:
    script, code, says, hint = CASES[case]
    pull.sides.ssh = shlex.join(["sh", "-c", script])
    done = pull.run("/source.img", code=code)
    assert says in done.error and hint in done.hint
    assert names_in(pull.sides.there) == set()


@pytest.mark.slow
def test_a_far_side_that_is_ready_and_says_nothing_more(pull: Pull) -> None:
    pull.sides.near["patience"] = "1s"
    pull.sides.ssh = shlex.join(["sh", "-c", "echo 'XENPLUGIN-SEND 2 {}'; cat >/dev/null"])
    assert "nothing was received" in pull.run("/source.img", code=14).error


def test_banners_are_skipped(pull: Pull, image: Path, tmp_path: Path) -> None:
    banner = tmp_path / "banner"
    banner.write_bytes(b"Welcome!\r\n\0\xff XENPLUGIN-SEN \x1b[1m" + 30000 * b"=-" + b"\n")
    pull.sides.ssh_options += ["--banner", str(banner)]
    pull.run(image)
    assert content(pull.sides.target) == content(image)


def test_a_request_that_cannot_be_read_is_refused(pull: Pull) -> None:
    """The far side alone."""
    random = 64 * "0"
    good = {"path": "/x", "target": "/y", "format": "", "options": {}}
    requests: list[object] = [
        None,
        [],
        {},
        {**good, "path": ""},
        {**good, "path": "a\0"},
        {**good, "format": 1},
        {**good, "format": "luks"},
    ]
    requests += [{**good, "options": {"ssh": "sh"}}, {**good, "options": {"rate": 5}}, {**good, "more": 1}]
    for request in requests:
        line = f"XENPLUGIN-RECEIVE 2 {json.dumps({'random': random, 'request': request})}"
        script = 'printf "%s\\n" "$LINE" | "$@"'
        far = ["sh", "-c", script, "sh", sys.executable, "-m", "xenplugin", "send"]
        done = pull.sides.program.spawn(far, env={"LINE": line}).end()
        assert done.code == 11 and "request cannot be read" in done.error
        assert done.out.startswith("XENPLUGIN-SEND 2 ") and len(done.out.splitlines()) == 1


def test_a_destination_that_ends_at_once(pull: Pull) -> None:
    assert "went away" in pull.sides.program.run("send", code=14).error
