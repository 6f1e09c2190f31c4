"""The script that sets loader tunables, run by a real shell on files as routers have them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from netem.dummynet import TUNABLES, loader_script
from tests.helpers.freebsd import AWKS

ALL = [f'{name}="{value}"' for name, value in TUNABLES.items()]


def edited(file: Path, awk: str = "awk") -> list[str]:
    """Run the script on `file` and return the file's lines."""
    script = loader_script(str(file)).replace("\nawk ", f"\n{awk} ")
    subprocess.run(["sh"], input=script, text=True, check=True, timeout=60)
    assert file.read_bytes().endswith(b"\n")
    return file.read_text().splitlines()


@pytest.mark.parametrize("awk", AWKS)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ALL),
        ('autoboot_delay="3"', ['autoboot_delay="3"', *ALL]),
        ("# kern.hz=100\n\n", ["# kern.hz=100", "", *ALL]),
        ('kern.hz="100"\nxkern.hz="7"\n', ['kern.hz="1000"', 'xkern.hz="7"', *ALL[1:]]),
        ('kern.hz="1000" # ours\nkern.hz=100', ['kern.hz="1000" # ours', 'kern.hz="1000"', *ALL[1:]]),
        ('kern.hz.other="100"\n kern.hz = "10000"\n', ['kern.hz.other="100"', 'kern.hz="1000"', *ALL[1:]]),
        ('kernXhz="5"\n\tipfw_load = "NO"\n', ['kernXhz="5"', 'ipfw_load="YES"', *ALL[:2], ALL[3]]),
    ],
)
def test_lines_are_added_and_corrected_once(tmp_path: Path, before: str, after: list[str], awk: str) -> None:
    file = tmp_path / "loader.conf"
    file.write_text(before)
    file.chmod(0o640)
    assert edited(file, awk) == after
    assert file.stat().st_mode & 0o777 == 0o640
    inode = file.stat().st_ino
    assert edited(file, awk) == after
    assert file.stat().st_ino == inode  # nothing was written
    assert [path.name for path in tmp_path.iterdir()] == ["loader.conf"]


def test_a_missing_file_is_made(tmp_path: Path) -> None:
    assert edited(tmp_path / "it's here.conf") == ALL


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh"],
        input=loader_script(str(tmp_path / "no" / "loader.conf")),
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode and "loader.conf" in done.stderr


def test_no_name_with_a_dot_goes_to_sysrc() -> None:
    assert "sysrc" not in loader_script()
