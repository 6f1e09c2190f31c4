"""The Debian package: two builds are the same; on a fresh Debian it installs, works, and goes without trace."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = "./usr/lib/python3/dist-packages/xenplugin/"
pytestmark = pytest.mark.slow

needs_debhelper = pytest.mark.skipif(
    any(shutil.which(each) is None for each in ("dpkg-buildpackage", "dh", "dh_python3", "cc")),
    reason="no build-essential, debhelper and dh-python on this machine",
)


def build(project: Path, out: Path, umask: int = 0o022) -> Path:
    done = subprocess.run(
        [project / "packaging/deb.sh", out], capture_output=True, text=True, umask=umask, check=False
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("out"))


def test_what_is_not_installed_is_named_before_anything_is_built(tmp_path: Path) -> None:
    checker = tmp_path / "dpkg-checkbuilddeps"
    checker.write_text("#!/bin/sh\necho 'x: error: Unmet build dependencies: build-essential:native' >&2; exit 1\n")
    checker.chmod(0o755)
    done = subprocess.run(
        [ROOT / "packaging/deb.sh", tmp_path / "out"],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        check=False,
    )
    error, hint = done.stderr.splitlines()
    assert done.returncode == 10 and not (tmp_path / "out").exists()
    assert error.endswith("is not installed: build-essential:native") and "apt install build-essential" in hint


@needs_debhelper
def test_another_checkout_makes_the_same_package(package: Path, tmp_path: Path) -> None:
    """Other rights, other times, other things lying about."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("xenplugin", "packaging", "docs"):
        shutil.copytree(ROOT / name, project / name, copy_function=shutil.copyfile)
    shutil.copyfile(ROOT / "README.md", project / "README.md")
    (project / "packaging/deb.sh").chmod(0o700)
    (project / "xenplugin/__pycache__").mkdir(exist_ok=True)
    (project / "xenplugin/__pycache__/cli.cpython-311.pyc").write_text("stale")
    (project / "xenplugin/cli/main.py").chmod(0o600)
    os.utime(project / "xenplugin/cli/main.py", (1, 1))
    again = build(project, tmp_path / "out", umask=0o077)
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(package.read_bytes()).digest()


@needs_debhelper
def test_the_package_holds_the_files_with_their_rights(package: Path) -> None:
    said = subprocess.run(["dpkg-deb", "-c", package], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in said.splitlines():
        rights, owner, _, _, _, path = line.split(maxsplit=5)
        assert owner == "root/root"
        found[path] = rights
    assert found["./usr/bin/xenplugin"] == "-rwxr-xr-x"
    assert found["./etc/xen/xenplugin.conf"] == "-rw-r--r--"
    assert found["./var/lib/xen/xenplugin/"] == "drwx------"
    assert found[f"{MODULES}config.py"] == "-rw-r--r--"
    for path in ("share/man/man1/xenplugin.1.gz", "share/man/man5/xenplugin.conf.5.gz"):
        assert f"./usr/{path}" in found
    assert "./usr/share/bash-completion/completions/xenplugin" in found
    assert "./usr/share/doc/xenplugin/install.md" in found or "./usr/share/doc/xenplugin/install.md.gz" in found
    modules = {path.removeprefix(MODULES) for path in found if path.startswith(MODULES) and path.endswith(".py")}
    assert modules == {str(path.relative_to(ROOT / "xenplugin")) for path in (ROOT / "xenplugin").rglob("*.py")}
    others = [path for path in found if not path.endswith(".md")]
    assert not [path for path in others if re.search(r"__pycache__|netem|/lab|tests|\.pyc", path)]


@needs_debhelper
@pytest.mark.skipif(shutil.which("lintian") is None, reason="no lintian on this machine")
def test_lintian_finds_nothing(package: Path) -> None:
    done = subprocess.run(["lintian", "--allow-root", package], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


_ON_DEBIAN = """
set -eux
apt-get install -y -q --no-install-recommends /xenplugin.deb
test "$(xenplugin --version)" = "xenplugin, version $1"
cd / && truncate -s 4M /image && xenplugin copy -q /image /copy && cmp /image /copy
test -n "$(find /usr/lib/python3/dist-packages/xenplugin -name 'config.*.pyc')"
xenplugin status
xenplugin status --json | python3 -m json.tool
xenplugin recover
bash -n /usr/share/bash-completion/completions/xenplugin
apt-get install -y -q --reinstall --no-install-recommends /xenplugin.deb
mkdir -p /var/lib/xen/xenplugin/migrations
echo '{"state": "handing"}' >/var/lib/xen/xenplugin/migrations/1.source.json
apt-get purge -y -q xenplugin
test -e /var/lib/xen/xenplugin/migrations/1.source.json
test ! -e /usr/bin/xenplugin -a ! -e /usr/lib/python3/dist-packages/xenplugin -a ! -e /etc/xen/xenplugin.conf
apt-get install -y -q --no-install-recommends /xenplugin.deb
echo '{"state": "removed"}' >/var/lib/xen/xenplugin/migrations/1.source.json
printf '#!/bin/sh\\n# xenplugin shim\\n' >/usr/local/sbin/xl
apt-get purge -y -q xenplugin
test ! -e /usr/local/sbin/xl -a ! -e /var/lib/xen/xenplugin
# Debian's xl: a link to a wrapper, which says here that there is no hypervisor
link=../lib/xen-common/bin/xen-utils-wrapper
apt-get install -y -q --no-install-recommends /xenplugin.deb xen-utils-common
for round in 1 2; do
    xenplugin enable
    grep -q 'xenplugin shim' /usr/sbin/xl && test "$(readlink /usr/libexec/xl)" = $link
    /usr/sbin/xl list 2>&1 | grep -qi hypervisor
    apt-get install -y -q --reinstall --no-install-recommends xen-utils-common
    grep -q 'xenplugin shim' /usr/sbin/xl && test "$(readlink /usr/libexec/xl)" = $link
    if [ $round = 1 ]; then xenplugin disable; else apt-get purge -y -q xenplugin; fi
    test "$(readlink /usr/sbin/xl)" = $link -a ! -L /usr/libexec/xl
    test -z "$(dpkg-divert --list '*/xl')$(dpkg -V xen-utils-common | grep bin/xl)"
    /usr/sbin/xl list 2>&1 | grep -qi hypervisor
done
"""


@needs_debhelper
@pytest.mark.lab
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mmdebstrap") is None, reason="needs root and mmdebstrap")
@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_on_a_fresh_debian_it_installs_works_and_is_removed(package: Path, tmp_path: Path, release: str) -> None:
    script = tmp_path / "script"
    script.write_text(_ON_DEBIAN)
    words = ["mmdebstrap", "--mode=root", "--variant=apt", "--dpkgopt=force-unsafe-io"]
    words += [f'--customize-hook=cp "{package}" "$1/xenplugin.deb"', f'--customize-hook=cp "{script}" "$1/script"']
    words += [f'--customize-hook=chroot "$1" sh /script {_version()}', release, "/dev/null"]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def _version() -> str:
    from xenplugin import __version__

    return __version__
