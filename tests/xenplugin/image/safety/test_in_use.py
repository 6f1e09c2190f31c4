"""A file that is kept closed: nothing has it open, and nothing can open it for that moment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers.image_kit import needs_root
from xenplugin.errors import RefusedError
from xenplugin.image.safety.in_use import kept_closed, refuse_mount_point
from xenplugin.image.source.raw import open_source


def opened_at_once(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except BlockingIOError:  # open(2): a lease is held on it
        return False
    return True


def test_nothing_opens_it_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"old")
    with open_source(path) as source:
        with kept_closed(str(path), source.fileno()):
            assert not opened_at_once(path)
        assert opened_at_once(path)
        with pytest.raises(KeyError), kept_closed(str(path), source.fileno()):
            raise KeyError
        assert opened_at_once(path)


def test_what_is_open_is_refused_and_no_lease_is_left(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"old")
    with open_source(path) as source:
        with path.open("rb"), pytest.raises(RefusedError, match="has it open"):
            kept_closed(str(path), source.fileno()).__enter__()
        assert opened_at_once(path)


@pytest.mark.root
@needs_root[1]
def test_a_mount_point(bind_mount: Path) -> None:
    with pytest.raises(RefusedError, match="is a mount point") as caught:
        refuse_mount_point(str(bind_mount))
    assert caught.value.hint and "unmount it" in caught.value.hint
    refuse_mount_point(str(bind_mount.with_name("plain.img")))
