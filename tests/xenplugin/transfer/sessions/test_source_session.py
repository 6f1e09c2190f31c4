"""What the source of a session says when nothing arrives any more."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from xenplugin.config import Config
from xenplugin.errors import LinkError
from xenplugin.link.stall import Stall
from xenplugin.transfer.sessions.source_session import SourceSession


@pytest.mark.parametrize(
    ("tried_all", "hint"), [(False, "disks and load"), (True, "smaller MTU")], ids=["disk", "large-packets"]
)
def test_the_hint_names_the_likely_reason(tried_all: bool, hint: str) -> None:
    session = SourceSession.__new__(SourceSession)
    session._config, session._host = Config(no_progress=60.0), "hostb"
    session._stall, session._awaiting = Stall(), 0.0
    stub = SimpleNamespace(waiting=1, delivered=0, ending=False, tried_all=tried_all, drop_stuck=lambda: None)
    session.pool = session._connector = stub  # type: ignore[assignment]
    for _ in range(60):
        session._look_for_progress(1.0)
    with pytest.raises(LinkError, match="nothing was delivered to hostb for 60 s") as caught:
        session._look_for_progress(1.0)
    assert caught.value.hint and hint in caught.value.hint
