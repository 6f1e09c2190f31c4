"""Debian packages for a machine of the lab, which has no way to the archive: this machine fetches them."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from lab.hosts.interface import Node


def codename() -> str:
    """Return the name of this machine's release."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return next((line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME=")), "")


def install(node: Node, names: Sequence[str], folder: Path) -> None:
    """Install packages, of this machine's release, and what they need on `node`. `folder` is for the downloads."""
    (folder / "status").write_text(node.check(["cat", "/var/lib/dpkg/status"]), encoding="utf-8")
    (folder / "archives" / "partial").mkdir(parents=True)
    _fetch(folder, "--download-only", "--no-install-recommends", "install", *names)
    packages = list((folder / "archives").glob("*.deb"))
    if not packages:
        return  # it has them all
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for package in packages:
            tar.add(package, package.name)
    node.put(packed.getvalue(), "/var/tmp/packages.tar")
    script = """
        mkdir -p /var/tmp/packages && cd /var/tmp/packages && tar -xf ../packages.tar
        DEBIAN_FRONTEND=noninteractive dpkg -i *.deb >&2
        status=$?
        rm -r /var/tmp/packages /var/tmp/packages.tar
        exit $status"""
    node.check(["sh", "-c", script], timeout=600)


def unpack(node: Node, name: str, top: str, folder: Path) -> None:
    """Put the files below `top` of a package of this machine's release on `node`, and nothing that it needs."""
    subprocess.run(["apt-get", "-q", "download", name], cwd=folder, check=True, capture_output=True)
    (package,) = folder.glob(f"{name}_*.deb")
    packed = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
    node.put(packed, "/var/tmp/package.tar")
    node.check(["tar", "-C", "/", "-xf", "/var/tmp/package.tar", f"./{top}"])
    node.check(["rm", "/var/tmp/package.tar"])


def _fetch(folder: Path, *words: str) -> None:
    options = {
        "Dir::State::status": folder / "status",
        "Dir::Cache::archives": folder / "archives",
        "Debug::NoLocking": 1,
        "APT::Sandbox::User": "root",
    }
    given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    done = subprocess.run(["apt-get", "-q", "-y", *given, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
