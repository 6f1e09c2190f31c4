"""The smallest edit of a configuration's text, and what the real xl reads (tests/data/xen/configurations)."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lab.fakexen import config_file
from xenplugin.config import Config
from xenplugin.migrate.guest_config.mapped_config import mapped
from xenplugin.xen import config_text

DATA = Path(__file__).parents[2] / "data" / "xen" / "configurations"
TEXTS = sorted(DATA.glob("*.cfg"))
HERE = Config(
    paths=(("/srv/guests", "/x/y"), ("/dev/vg0", "/dev/vg1"), ("/srv", "/z"), ("/boot", "/k"), ("/dev/vg", "/w")),
    bridges=(("xenbr0", "br0"), ("xenbr1", "br1")),
)
#: The settings of b_info that the fake xl knows.
KNOWN = ("kernel", "ramdisk", "max_memkb", "target_memkb")


def real(path: Path) -> dict[str, Any]:
    """What the real xl reads in it."""
    found: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return found


def edited(text: str, before: dict[str, Any], here: Config = HERE) -> str:
    return config_text.edited(text, before, mapped(before, here, exists=lambda path: True))


def read(text: str, folder: Path) -> dict[str, Any]:
    """What the fake xl reads in it, without the uuid that it may have made up."""
    path = folder / "read.cfg"
    path.write_text(text)
    found = config_file.read(str(path), [])
    found["c_info"].pop("uuid")
    return found


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_the_fake_xl_reads_what_the_real_one_does(path: Path) -> None:
    fake, xl = config_file.read(str(path), []), real(path)
    assert (fake.get("disks"), fake.get("nics")) == (xl.get("disks"), xl.get("nics"))
    assert (fake["c_info"]["name"], fake["c_info"]["type"]) == (xl["c_info"]["name"], xl["c_info"]["type"])
    assert [fake["b_info"].get(name) for name in KNOWN] == [xl["b_info"].get(name) for name in KNOWN]
    assert config_text.assigns(path.read_text(), "uuid") == (fake["c_info"]["uuid"] == xl["c_info"]["uuid"])


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_what_xl_reads_afterwards(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    before = read(text, tmp_path)
    assert edited(text, before, Config()) == text
    new = edited(text, before)
    assert new != text and read(new, tmp_path) == mapped(before, HERE, exists=lambda path: True)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_nothing_else_is_changed(path: Path) -> None:
    """Only paths below those that are mapped, and bridges; comments stay."""
    text = path.read_text()
    changes = difflib.SequenceMatcher(None, text, edited(text, real(path)), autojunk=False)
    for _, start, end, _, _ in (change for change in changes.get_opcodes() if change[0] != "equal"):
        line = text[text.rfind("\n", 0, start) + 1 : end]
        assert "#" not in line and "\n" not in text[start:end], line


def test_every_kind_of_value() -> None:
    text = (DATA / "everything.cfg").read_text()
    new = edited(text, real(DATA / "everything.cfg"))
    lines = [after for before, after in zip(text.splitlines(), new.splitlines(), strict=True) if before != after]
    assert lines == [
        'kernel = "/z/xen/vmlinuz"',
        'ramdisk = "/z/xen/initrd.img" # beside /srv/xen/vmlinuz',
        "disk = [ 'phy:/dev/vg1/web,xvda,w', # the system: /dev/vg0/web",
        '   "format=raw, vdev=xvdb, access=rw, target=/z/xen/web data.img",',
        "   '/z/xen/web.img,raw,xvdc,rw' , \"/z/xen/web.img2,raw,xvdd,ro\",",
        "   'file:/z/xen/debian.iso,hdc:cdrom,r',",
        '\t"tap:aio:/z/xen/logs.img,xvde,w",',
        "disk += [ '/dev/vg1/web-swap,,xvdf' ]",
        "vif = [ 'mac=00:16:3e:00:00:01, bridge=br0',\"bridge=xenbr01,script=vif-bridge,mac=00:16:3e:00:00:02\","
        " 'bridge=br0',",
        "        'mac=00:16:3e:00:00:03,bridge=br0' ]",
    ]


def test_the_last_setting_counts() -> None:
    """An earlier one, which means nothing, stays."""
    text = (DATA / "twice.cfg").read_text()
    new = edited(text, real(DATA / "twice.cfg"))
    assert new == text.replace("/srv/b.img", "/z/b.img").replace("xenbr1", "br1")


@pytest.mark.parametrize("new", ["/it's", '/a"b', "/a\\b", "/a\nb", "/a\x1fb"])
def test_what_would_end_a_string(new: str) -> None:
    text = "name = 'g1'\ndisk = ['/srv/a.img,raw,xvda,rw']\n"
    before = {"disks": [{"pdev_path": "/srv/a.img"}]}
    assert config_text.edited(text, before, {"disks": [{"pdev_path": new}]}) == text


def test_paths_that_take_each_others_place() -> None:
    text = "disk = ['/a,raw,xvda,rw', '/b,raw,xvdb,rw', '/ab,raw,xvdc,rw', '/a/b,raw,xvdd,rw']"
    before, after = ({"disks": [{"pdev_path": path} for path in paths]} for paths in (("/a", "/b"), ("/b", "/a")))
    assert config_text.edited(text, before, after) == (
        "disk = ['/b,raw,xvda,rw', '/a,raw,xvdb,rw', '/ab,raw,xvdc,rw', '/a/b,raw,xvdd,rw']"
    )


@pytest.mark.parametrize(
    "text", ["vif = ['bridge=xenbr0'", "vif = ['bridge=xenbr0', 'x']", "vif = 'bridge=xenbr0'\nvif = []", "vif 'x'"]
)
def test_a_text_that_is_not_what_xl_has_read(text: str) -> None:
    """It is no error: the caller has xl read the result."""
    before = {"nics": [{"bridge": "xenbr0"}]}
    assert config_text.edited(text, before, {"nics": [{"bridge": "br0"}]}) in (text, text.replace("xenbr0", "br0"))


SPACE = st.sampled_from(["", " ", "\t", "  "])
BREAK = st.sampled_from(["", " ", "\n", " # it's a [comment] with /srv/a.img and bridge=xenbr0\n", "\n\n\t"])
QUOTE = st.sampled_from("'\"")
PATH = st.sampled_from(
    ["/srv/a.img", "/srv/a.img2", "/srv/guests/a b.img", "/dev/vg0/a", "/dev/vg0/a-b", "/other/c"]
)
BRIDGE = st.sampled_from(["", "bridge=xenbr0", "bridge=xenbr1", "bridge=xenbr01", "bridge=other"])


@st.composite
def disk(draw: st.DrawFn) -> str:
    path, space = draw(PATH), draw(SPACE)
    forms = [f"{path},raw,xvda,rw", f"format=raw,{space}vdev=xvda,{space}target={path}"]
    forms += [f"phy:{path},xvda,w", f"vdev=xvda, {path}", f"{path},{space},xvda"]
    return draw(st.sampled_from(forms))


@st.composite
def nic(draw: st.DrawFn) -> str:
    words = [word for word in (draw(st.sampled_from(["", "mac=00:16:3e:00:00:01"])), draw(BRIDGE)) if word]
    return f",{draw(SPACE)}".join(draw(st.permutations(words)))


@st.composite
def configuration(draw: st.DrawFn) -> str:
    def several(name: str, part: st.SearchStrategy[str]) -> str:
        made = ""
        for text in draw(st.lists(part, max_size=3)):
            quote = draw(QUOTE)
            made += f"{draw(BREAK)}{quote}{text}{quote}{draw(BREAK)},"
        return f"{name}{draw(SPACE)}{draw(st.sampled_from(['=', '+=']))}{draw(SPACE)}[{made}{draw(BREAK)}]"

    lines = ["name = 'g1'", "kernel = '/boot/k'", "extra = 'disk=/srv/a.img bridge=xenbr0 #'"]
    lines += [several("disk", disk()) for _ in range(draw(st.integers(0, 2)))]
    lines += [several("vif", nic()) for _ in range(draw(st.integers(0, 2)))]
    return "".join(
        line + draw(st.sampled_from(["\n", ";\n", " # /srv/a.img\n"])) for line in draw(st.permutations(lines))
    )


@given(configuration())
def test_any_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    before = read(text, folder)
    new = edited(text, before)
    assert read(new, folder) == mapped(before, HERE, exists=lambda path: True)
    assert edited(text, before, Config()) == text
    assert new.count("#") == text.count("#") and new.count("\n") == text.count("\n")


@given(st.text(alphabet=" \n\t#;=+[],'\"\\abdisk/xv\xe4", max_size=60))
@example("'\\")
@example("disk = ['")
@example("]]]disk=['/srv/a.img,']")
def test_any_characters(text: str) -> None:
    before = {"disks": [{"pdev_path": "/srv/a.img"}], "nics": [{}], "b_info": {"kernel": "/a"}}
    config_text.assigns(text, "disk")
    assert isinstance(edited(text, before), str)
