"""status and recover as they are typed: what they say where nothing is left, and what they need to work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.program import Program

ID = "0123456789abcdef0123456789abcdef"
UUID = "3f2a9d1c-0b7e-4c55-9a10-6f1d2e3c4b5a"


def test_nothing_to_recover_is_said(program: Program) -> None:
    assert "nothing to settle: no migration was interrupted on this host" in program.run("recover").err


@pytest.mark.parametrize("setting", ["rate = 200", "patience = 120", "cipher = 'rot13'", "paths = 5"])
def test_a_bad_setting_of_transfers_stops_no_recovery(program: Program, tmp_path: Path, setting: str) -> None:
    (tmp_path / "conf").write_text(f"{setting}\nstate_dir = '{tmp_path}/state'\n")
    assert "unknown" in program.run("recover", "--config", "conf", "--answer", ID, "--guest", UUID).out
    program.run("recover", "--config", "conf")
    program.run("status", "--config", "conf")
    program.run("migrate", "--config", "conf", "g1", "hostb", code=10)


@pytest.mark.parametrize("text", ["state_dir = 5", "statedir = '/srv'", "state_dir = '/srv"])
def test_where_the_records_are_must_be_known(program: Program, tmp_path: Path, text: str) -> None:
    """A host that looked for its records elsewhere would answer that it does not know the guest."""
    (tmp_path / "conf").write_text(text)
    for words in (["recover"], ["recover", "--answer", ID, "--guest", UUID], ["status"]):
        assert "conf: " in program.run(*words, "--config", "conf", code=10).error
