"""A disk gets another format, however its text is written, and all else stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.fakexen import config_file
from xenplugin.xen.disk_text import format_edits


def edited(text: str, format: str) -> str:
    for start, end, new in sorted(format_edits(text, format), reverse=True):
        text = text[:start] + new + text[end:]
    return text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/srv/a.img,raw,xvda,rw", "/srv/a.img,qcow2,xvda,rw"),
        ("/srv/a.img,,xvda,w", "/srv/a.img,qcow2,xvda,w"),
        ("/srv/a.img,vdev=xvda", "/srv/a.img,qcow2,vdev=xvda"),
        ("phy:/dev/vg0/a,xvda,w", "/dev/vg0/a,qcow2,xvda,w"),
        ("file:/srv/a.img,xvda,w", "/srv/a.img,qcow2,xvda,w"),
        ("tap:aio:/srv/a.img,xvda,w", "/srv/a.img,qcow2,xvda,w"),
        ("tap2:vhd:/srv/a.img,xvda,w", "/srv/a.img,qcow2,xvda,w"),
        (
            "format=raw, vdev=xvda, access=rw, target=/srv/a.img",
            "format=qcow2, vdev=xvda, access=rw, target=/srv/a.img",
        ),
        ("vdev=xvda,target=/srv/format=raw,a", "format=qcow2,vdev=xvda,target=/srv/format=raw,a"),
        ("/srv/a.img,raw,xvda,w,backendtype=phy", "/srv/a.img,qcow2,xvda,w"),
        ("backendtype=qdisk,vdev=xvda,format=vhd,target=/srv/a", "vdev=xvda,format=qcow2,target=/srv/a"),
        ("vdev=xvda,backendtype=qdisk,target=/srv/a", "format=qcow2,vdev=xvda,target=/srv/a"),
        ("/srv/a.img,backendtype=phy,vdev=xvda", "/srv/a.img,qcow2,vdev=xvda"),
        ("direct-io-safe,/srv/a.img,raw,xvda", "direct-io-safe,/srv/a.img,qcow2,xvda"),
        ("target=/srv/a.img", "format=qcow2,target=/srv/a.img"),
    ],
)
def test_the_format_changes(before: str, after: str) -> None:
    assert edited(before, "qcow2") == after


@given(
    st.sampled_from(["raw", "qcow2", "vhd"]),
    st.sampled_from([None, "raw", "qcow2", ""]),
    st.permutations(["vdev=xvda", "access=rw", "backendtype=qdisk", "discard"]),
    st.sampled_from(["target=/srv/a b", "/srv/a", "file:/srv/a", "tap:qcow2:/srv/a", "/srv/a,raw"]),
)
def test_xl_reads_it(format: str, given: str | None, words: list[str], target: str) -> None:
    words = [*([f"format={given}"] if given and "," not in target else []), *words]
    text = ",".join([*words, target] if target.startswith("target") else [target, *words])
    found = config_file._disk(edited(text, format), 0)
    assert (found["format"], found["vdev"], found.get("backend")) == (format, "xvda", None)
    assert found["pdev_path"] == config_file._disk(text, 0)["pdev_path"] and found["readwrite"] == 1


@given(st.text(alphabet="a,=/ :", max_size=20))
def test_any_text_has_an_edit(text: str) -> None:
    assert "qcow2" in edited(text, "qcow2")
