"""What `xl info` and xl.conf say about a host."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.errors import PeerError
from xenplugin.xen import host_info

DATA = Path(__file__).parents[2] / "data" / "xen"
# The lines that are read, between others, as output_physinfo and output_xeninfo print them.
TEXT = """\
host                   : host-a
nr_cpus                : 2
hw_caps                : 178bf3ff:f6d8320b:2e500800:244037ff:0000000f:219c91a9:00400004:00000500
virt_caps              : pv hvm hap shadow vpmu gnttab-v1
total_memory           : 2047
free_memory            : 925
free_cpus              : 0
xen_major              : 4
xen_minor              : 17
xen_extra              : .7
xen_version            : 4.17.7
xen_commandline        : placeholder dom0_mem=1024M,max:1024M com1=115200,8n1
xend_config_format     : 4
"""


def test_a_real_host() -> None:
    found = host_info.parse((DATA / "xl-info.txt").read_text())
    assert found.version == "4.17.5" and {"pv", "hvm", "hap", "shadow"} < set(found.caps)
    assert (found.free, found.total, found.cpus) == (872 << 10, 2047 << 10, 1)
    assert not host_info.autoballoon("", found.command_line)


def test_the_lines_that_are_read() -> None:
    found = host_info.parse(TEXT)
    assert (found.major, found.minor, found.extra, found.version) == (4, 17, ".7", "4.17.7")
    assert found.caps == ("pv", "hvm", "hap", "shadow", "vpmu", "gnttab-v1")
    assert (found.free, found.total, found.cpus) == (925 << 10, 2047 << 10, 2)
    assert found.command_line == "placeholder dom0_mem=1024M,max:1024M com1=115200,8n1"


def test_a_host_that_can_run_nothing() -> None:
    assert (
        host_info.parse(
            TEXT.replace("virt_caps              : pv hvm hap shadow vpmu gnttab-v1", "virt_caps :")
        ).caps
        == ()
    )


@pytest.mark.parametrize("lost", ["virt_caps", "free_memory", "xen_minor", "nr_cpus"])
def test_a_line_that_lacks_is_an_error(lost: str) -> None:
    with pytest.raises(PeerError, match=f"xl info has no {lost}"):
        host_info.parse("".join(line for line in TEXT.splitlines(True) if not line.startswith(lost)))


@given(st.text(max_size=300))
def test_anything_else_is_one_error(text: str) -> None:
    with pytest.raises(PeerError):
        host_info.parse(text)


def test_a_number_that_is_none() -> None:
    with pytest.raises(PeerError):
        host_info.parse(TEXT.replace(": 925", ": 925 MiB"))


@pytest.mark.parametrize(
    ("conf", "command_line", "expected"),
    [
        ("", "", True),
        ("", "dom0_mem=1024M,max:1024M", False),
        ("", "loglvl=all dom0_mem=2G console=vga", False),
        ("", "dom0_mem=min:512M,max:10%", False),
        ("", "nodom0_mem=1G", True),
        ("", "dom0_mem=everything", True),
        ('autoballoon="auto"\n', "dom0_mem=1G", False),
        ('#autoballoon="off"\n', "", True),
        ('autoballoon="off"\n', "", False),
        ("autoballoon=0\n", "", False),
        ("  autoballoon = 'on'\n", "dom0_mem=1G", True),
        ('autoballoon="off"\nautoballoon="on"\n', "dom0_mem=1G", True),
        ('autoballoon="perhaps"\n', "dom0_mem=1G", False),
    ],
)
def test_when_xl_takes_memory_from_dom0(conf: str, command_line: str, expected: bool) -> None:
    """As auto_autoballoon and parse_global_config of tools/xl/xl.c."""
    assert host_info.autoballoon(conf, command_line) is expected
