"""A far side that is missing, of another version, noisy, or no xenplugin at all."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.helpers.images import content, make_image, names_in
from tests.helpers.program import SSH

READY = 'XENPLUGIN-RECEIVE 2 {"random":"' + 64 * "0" + '","version":"0.1.0"}'


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path / "source.img", data=2)


def shell(script: str) -> str:
    return shlex.join(["sh", "-c", script])


CASES = {
    "another version": ("echo 'XENPLUGIN-RECEIVE 1 {}'; cat >/dev/null", 11, "speaks version 1", "same version"),
    "a version that is no number": ("echo 'XENPLUGIN-RECEIVE one {}'", 11, "speaks version one", "same version"),
    "no JSON": ("echo 'XENPLUGIN-RECEIVE 2 hello'", 11, "is malformed", ""),
    "no random": ("echo 'XENPLUGIN-RECEIVE 2 {}'", 11, "is malformed", ""),
    "a list": ("echo 'XENPLUGIN-RECEIVE 2 []'", 11, "is malformed", ""),
    "a short random": ("""echo 'XENPLUGIN-RECEIVE 2 {"random":"00"}'""", 11, "random of 1 bytes", ""),
    "ends at once": ("exit 0", 11, "did not start", ""),
    "another program": ("echo hello; echo oops >&2; exit 1", 11, "oops", ""),
    "not installed": ("echo 'sh: xenplugin: not found' >&2; exit 127", 11, "not found", "--remote-program"),
    "not executable": ("exit 126", 11, "status 126", "--remote-program"),
    "unreachable": ("echo 'ssh: connect: No route to host' >&2; exit 255", 14, "No route to host", ""),
    "endless noise": ("yes", 11, "writes other output", "quiet"),
    "ready and gone": (f"echo '{READY}'", 14, "ended", "resumes"),
    "ready, then an echo": (f"echo '{READY}'; cat", 12, "", ""),
    "ready, then noise": (f"echo '{READY}'; head -c 100000 /dev/zero; cat >/dev/null", 12, "damaged", ""),
    "ready, then other bytes": (f"echo '{READY}'; printf '\\0\\0\\0d'; head -c 100 /dev/zero; cat", 12, "key", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_a_far_side_that_is_not_the_plugin_is_an_error_with_a_hint(sides: Sides, image: Path, case: str) -> None:
    script, code, says, hint = CASES[case]
    sides.ssh = shell(script)
    done = sides.copy(image, code=code)
    assert says in done.error and hint in done.hint
    assert names_in(sides.there) == set()


def test_a_far_side_that_says_nothing(sides: Sides, image: Path) -> None:
    sides.near["patience"] = "1s"
    sides.ssh = shell("cat >/dev/null")
    done = sides.copy(image, code=14)
    assert "did not answer" in done.error


@pytest.mark.slow
def test_a_far_side_that_is_ready_and_says_nothing_more(sides: Sides, image: Path) -> None:
    sides.near["patience"] = "1s"
    sides.ssh = shell(f"echo '{READY}'; cat >/dev/null")
    done = sides.copy(image, code=14)
    assert "nothing was heard" in done.error


def test_no_such_command(sides: Sides, image: Path) -> None:
    sides.ssh = "/nonexistent/ssh"
    done = sides.copy(image, code=11)
    assert "--remote-program" in done.hint or "not found" in done.error


def test_banners_are_skipped(sides: Sides, image: Path, tmp_path: Path) -> None:
    banner = tmp_path / "banner"
    banner.write_bytes("Willkommen!\r\n\0\xff XENPLUGIN-RECEIV \x1b[1m".encode("latin1") + 30000 * b"=-" + b"\n")
    sides.ssh_options += ["--banner", str(banner)]
    sides.copy(image)
    assert content(sides.target) == content(image)
    sides.assert_clean()


def test_noise_on_standard_error_is_shown(sides: Sides, image: Path) -> None:
    script = 'echo "Last login: never" >&2; shift; exec "$@"'
    words = sides.words(image)
    far = shlex.join([*SSH, "--config", str(sides.folder / "far.toml"), "host"])
    sides.ssh = shlex.join(["sh", "-c", script.replace('"$@"', far + ' "$@"'), "sh"])
    done = sides.copy(image)
    assert any(event["event"] == "far" and "Last login" in event["text"] for event in done.events)
    assert content(sides.target) == content(image)
    assert words


def test_a_job_of_another_version_is_refused(sides: Sides) -> None:
    """The far side alone, as a source of another version would meet it."""
    program = sides.program
    for job, code, says in (
        ('{"protocol":1}', 11, "version 1"),
        ("[]", 11, "cannot be read"),
        ("GET / HTTP/1.1", 11, "cannot be read"),
        (100000 * "x", 11, "longer than 65536 bytes"),
        ("", 11, "cannot be read"),
    ):
        done = program.spawn(
            ["sh", "-c", 'printf "%s\\n" "$JOB" | "$@"', "sh", sys.executable, "-m", "xenplugin", "receive"],
            env={"JOB": job},
        ).end()
        assert done.code == code and says in done.error
        assert done.out.startswith("XENPLUGIN-RECEIVE 2 ") and len(done.out.splitlines()) == 1


def test_a_source_that_ends_at_once(sides: Sides) -> None:
    done = sides.program.run("receive", code=14)
    assert "went away" in done.error
