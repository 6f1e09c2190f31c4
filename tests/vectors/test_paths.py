"""The path in a job is bytes, whatever they are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from xenplugin import errors
from xenplugin.transfer.sessions.job import Job

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text(encoding="utf-8"))["paths"]


def line(path: str) -> bytes:
    """The job with the JSON text `path`."""
    text = Job.fresh(None, False, size=1, path="PATH").line().decode()
    assert text.count('"PATH"') == 1
    return text.replace('"PATH"', path).encode()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["json"])
def test_a_path_is_read(vector: dict[str, Any]) -> None:
    if vector["error"]:
        with pytest.raises(getattr(errors, vector["error"])):
            Job.parse(line(vector["json"]))
        return
    path = Job.parse(line(vector["json"])).path
    assert os.fsencode(path).hex() == vector["bytes"]
    assert path == os.fsdecode(bytes.fromhex(vector["bytes"]))  # one text for one path
    assert Job.parse(Job.fresh(None, False, size=1, path=path).line()).path == path
