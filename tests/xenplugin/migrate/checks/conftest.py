"""Fixtures of the tests of checks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.fakexen.xenstored import Xenstored
from xenplugin.migrate.checks import survey
from xenplugin.xen import xen_tools

NODES = {
    "/local/domain/0/name": "Domain-0",
    "/local/domain/0/memory/target": "1048576",
    "/local/domain/3/name": "other",
    "/local/domain/3/vm": "/vm/00000000-0000-4000-8000-000000000003",
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Xenstored]:
    """A host whose xl and xen-cpuid print what is in files of tmp_path."""
    (tmp_path / "bin").mkdir()
    for name in ("xl", "xen-cpuid"):
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\nexec cat {tmp_path}/{name}.txt\n")
        program.chmod(0o755)
    (tmp_path / "xl.txt").write_text(
        "nr_cpus : 2\nvirt_caps : pv hvm hap\ntotal_memory : 2047\nfree_memory : 900\nxen_major : 4\n"
        "xen_minor : 17\nxen_extra : .5\nxen_commandline : dom0_mem=1G\n"
    )
    (tmp_path / "xen-cpuid.txt").write_text(
        "".join(
            f"{name} policy: 1 leaves, 0 MSRs\n  00000001:ffffffff -> 00000000:00000000:00000000:0000000{bit}\n"
            for bit, name in enumerate(("PV Max", "HVM Max", "Domain 7"))
        )
    )
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "xenstored"))
    monkeypatch.setattr(survey, "SYS_NET", tmp_path / "net")
    monkeypatch.setattr(xen_tools, "_XL_CONF", str(tmp_path / "xl.conf"))
    store = Xenstored(tmp_path / "xenstored", NODES)
    yield store
    store.close()
