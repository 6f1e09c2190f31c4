"""The text of a note: any names, and a limit."""

from __future__ import annotations

import pytest

from xenplugin.errors import RefusedError
from xenplugin.transfer.streams.receive_stream import note_fields, note_text
from xenplugin.wire.frames import MAX_NOTE


@pytest.mark.parametrize("path", ["/disk", "/dis\udcff", "/üé€"])
def test_any_path_passes(path: str) -> None:
    text = note_text({"path": path})
    assert note_fields(text.encode().decode()) == {"path": path}


def test_paths_that_are_too_long_together_are_refused() -> None:
    long = {"disks": [{"path": 4000 * "\udcff"}]}
    with pytest.raises(RefusedError, match="guest's disks takes") as info:
        note_text(long)
    assert "shorter paths" in str(info.value.hint)
    assert len(note_text({"x": (MAX_NOTE - 8) * "y"})) == MAX_NOTE
