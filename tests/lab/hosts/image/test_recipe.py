"""Which version of Xen apt takes by the lab's preferences, asked of apt itself with made-up archives."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lab.hosts.image import recipe

pytestmark = pytest.mark.skipif(not shutil.which("apt-get"), reason="this machine has no apt")
RELEASE, SECURITY = "Debian", "Debian-Security"
#: The versions that were in Debian's archives in November 2026.
OLD, NEW, TRIXIE = (
    "4.17.5+72-g01140da4e8-1",
    "4.17.7+13-g2445b30a44-0+deb12u1",
    "4.20.4+63-g7abfd2bce2-0+deb13u1",
)


def entry(package: str, source: str, version: str) -> str:
    return (
        f"Package: {package}\nSource: {source}\nVersion: {version}\nArchitecture: amd64\n"
        f"Filename: ./{package}_{version}.deb\nSize: 1\nSHA256: {'0' * 64}\n\n"
    )


@pytest.fixture
def candidate(tmp_path: Path) -> Callable[..., str]:
    """Return what asks apt for its candidate of xen-utils, and of a package of another source."""
    for folder in ("etc/preferences.d", "etc/apt.conf.d", "state/lists/partial", "cache/archives/partial"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "state/status").touch()
    (tmp_path / "etc/preferences.d/xen").write_text(recipe.PREFERENCES)
    settings = {
        "Dir::Etc": "etc",
        "Dir::State": "state",
        "Dir::Cache": "cache",
        "Dir::State::status": "state/status",
    }
    config = "".join(f'{name} "{tmp_path / path}";\n' for name, path in settings.items())
    (tmp_path / "apt.conf").write_text(f'{config}APT::Architecture "amd64";\nAPT::Sandbox::User "root";\n')

    def apt(*words: str) -> str:
        done = subprocess.run(
            words, env={"APT_CONFIG": str(tmp_path / "apt.conf"), "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(package: str, archives: dict[str, Sequence[str]], source: str) -> str:
        lines = []
        for label, versions in archives.items():
            archive = tmp_path / label
            archive.mkdir()
            (archive / "Packages").write_text("".join(entry(package, source, version) for version in versions))
            (archive / "Release").write_text(f"Origin: Debian\nLabel: {label}\n")
            lines.append(f"deb [trusted=yes] file:{archive} ./\n")
        (tmp_path / "etc/sources.list").write_text("".join(lines))
        apt("apt-get", "update")
        found = re.search(r"^  Candidate: (.*)$", apt("apt-cache", "policy", package), re.MULTILINE)
        assert found
        return found[1]

    return ask


@pytest.mark.parametrize(
    ("archives", "taken"),
    [
        pytest.param({RELEASE: [OLD], SECURITY: [NEW]}, OLD, id="the-release-can-migrate-pv"),
        pytest.param({RELEASE: [TRIXIE], SECURITY: [TRIXIE]}, TRIXIE, id="one-version-in-both"),
        pytest.param({RELEASE: [NEW], SECURITY: [OLD, NEW]}, NEW, id="after-a-point-release"),
        pytest.param({RELEASE: [], SECURITY: [OLD, NEW]}, NEW, id="security-alone"),
        pytest.param({RELEASE: [OLD], SECURITY: []}, OLD, id="release-alone"),
    ],
)
def test_xen(candidate: Callable[..., str], archives: dict[str, Sequence[str]], taken: str) -> None:
    assert candidate("xen-utils-4.17", archives, "xen") == taken


def test_everything_else_has_its_security_updates(candidate: Callable[..., str]) -> None:
    assert candidate("openssh-server", {RELEASE: ["1:9.2p1-2"], SECURITY: ["1:9.2p1-3"]}, "openssh") == "1:9.2p1-3"
