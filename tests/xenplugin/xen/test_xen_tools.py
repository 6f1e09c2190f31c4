"""What Xen's tools say, and what is made of their failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from xenplugin.errors import PeerError, RefusedError, XenpluginError
from xenplugin.xen import xen_tools
from xenplugin.xen.xl import XlCommand


@pytest.mark.parametrize(
    ("says", "error", "words"),
    [
        ("echo \"Error: Domain '7' does not exist.\" >&2; exit 1", RefusedError, "domain 7 is not on this host"),
        ("echo libxl failed >&2; exit 1", PeerError, "xl list failed .*libxl failed"),
        ("echo '((domain 7))'", PeerError, "another format than JSON"),
        ("echo '[]'", PeerError, "just starting or ending"),
        ("echo '[{\"domid\": 8, \"config\": {}}]'", PeerError, "not the configuration of that domain"),
    ],
)  # fmt: skip
def test_a_domain_without_a_configuration(
    tmp_path: Path, says: str, error: type[XenpluginError], words: str
) -> None:
    program = tmp_path / "xl"
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    with pytest.raises(error, match=words):
        xen_tools.configuration(XlCommand(program), 7)
