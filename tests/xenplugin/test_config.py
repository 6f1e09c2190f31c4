"""Settings from the file and the command line, good and bad."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from xenplugin import config as config_module
from xenplugin.cli.common import Invocation
from xenplugin.codec.compress import STORE
from xenplugin.config import Config, load, option_text
from xenplugin.errors import ConfigError, UsageError
from xenplugin.image import state_folder

GOOD: list[tuple[str, str, Any]] = [
    ("ssh", '"ssh -p 22"', "ssh -p 22"),
    ("ssh", '""', ""),
    ("remote_program", '"/opt/x y"', "/opt/x y"),
    ("rate", "0", 0),
    ("rate", '"200mbit"', 25_000_000),
    ("rate", '"1.5 Gbit/s"', 187_500_000),
    ("rate", '"64 kbit/s"', 8000),
    ("level", '"auto"', None),
    ("level", '"store"', STORE),
    ("level", "-7", -7),
    ("level", '"19"', 19),
    ("cipher", '"auto"', None),
    ("cipher", '"chacha20-poly1305"', "chacha20-poly1305"),
    ("streams", '"auto"', 0),
    ("streams", "32", 32),
    ("congestion", '"cubic"', "cubic"),
    ("address", '"192.0.2.1"', "192.0.2.1"),
    ("address", '"2001:DB8:0::1"', "2001:db8::1"),
    ("ports", "0", "0-0"),
    ("ports", '"49300-49399"', "49300-49399"),
    ("ports", "50000", "50000-50000"),
    ("whole", "true", True),
    ("whole", "false", False),
    ("connect_timeout", '"2.5s"', 2.5),
    ("connect_timeout", '"1500 ms"', 1.5),
    ("silence", '"1min"', 60.0),
    ("patience", '"24h"', 86400.0),
    ("patience", '"0.5 H"', 1800.0),
    ("no_progress", '"10min"', 600.0),
    ("max_downtime", '"30s"', 30.0),
    ("long_downtime", '"go-on"', "go-on"),
    ("state_dir", '"/srv/state"', Path("/srv/state")),
    ("mode", '"static"', "static"),
    ("left_disks", '"keep-aside"', "keep-aside"),
    ("left_disks", '"remove"', "remove"),
    ("config", '"move"', "move"),
    ("config", '"copy"', "copy"),
    ("config", '"leave"', "leave"),
    ("shared", "[]", ()),
    ("shared", '["/dev/vg_san", "/nfs/g1.img"]', ("/dev/vg_san", "/nfs/g1.img")),
    ("cds", '"copy"', "copy"),
    ("cds", '"eject"', "eject"),
    ("bridges", "{}", ()),
    ("bridges", '{"xenbr1" = "br1", "xenbr0" = "ovs0.10:20"}', (("xenbr0", "ovs0.10:20"), ("xenbr1", "br1"))),
    ("larger_device", '"keep"', "keep"),
    ("larger_device", '"zero"', "zero"),
    ("formats", "{}", ()),
    ("formats", '{"qcow2" = "raw"}', (("qcow2", "raw"),)),
    ("backing", '"keep"', "keep"),
    ("backing_folders", '["/srv/base", "/dev/vg0"]', ("/srv/base", "/dev/vg0")),
    ("paths", "{}", ()),
    ("paths", '{"/a//b/" = "/c", "/a/b/c" = "/"}', (("/a/b/c", "/"), ("/a/b", "/c"))),
]
BAD: list[tuple[str, str]] = [
    *[("ssh", value) for value in ("5", "true", "[]", '"a\\nb"', '"a\\u0000b"')],
    *[("remote_program", value) for value in ("5", "{}")],
    *[
        ("rate", value)
        for value in (
            "true",
            "-1",
            '"fast"',
            '"200 Mbyte"',
            '"10mbps"',
            "1000000",
            '"1000000"',
            '"7999bit"',
            '"1e9"',
            '""',
            '"' + "9" * 400 + '"',
        )
    ],
    *[("level", value) for value in ("20", "-8", "true", "3.7", '"high"', '""', "[3]", "100000000000")],
    *[("cipher", value) for value in ('"aes"', "1", "true", '"AES-128-GCM"', '""')],
    *[("streams", value) for value in ("33", "-1", "true", "2.5", '"many"')],
    *[("congestion", value) for value in ("1", "false")],
    *[("address", value) for value in ('"host"', "1", '"1.2.3"', '"1.2.3.4:22"')],
    *[
        ("ports", value)
        for value in ('"2-1"', '"1-65536"', "70000", "-1", '"a"', "true", '"0-100"', '"1-2-3"', '"٣"')
    ],
    *[("whole", value) for value in ('"false"', "0", "1", '"yes"')],
    *[("config", value) for value in ('"keep"', '""', "true", "[]", '"Move"')],
    *[
        ("bridges", value)
        for value in ('"br0"', "5", '{"a" = 5}', '{"a" = ""}', '{"a b" = "c"}', '{"a" = "b,c"}', '{"a" = "b/c"}')
    ],
    *[("shared", value) for value in ('"/srv"', "5", '["srv"]', '["/srv/../etc"]', "[5]", '["/"]', '["//"]')],
    *[("cds", value) for value in ('"keep"', '""', "true", "[]", '"Eject"')],
    *[("backing", value) for value in ('""', '"all"', "true")],
    *[("backing_folders", value) for value in ('"/srv"', "5", '["srv"]', '["/srv/../etc"]', "[5]")],
    *[("formats", value) for value in ('"raw"', "5", '{"qcow2" = "none"}', '{"qcow2" = 5}', '{"" = "raw"}')],
    *[("left_disks", value) for value in ('"keep"', '""', "true", "[]")],
    *[("larger_device", value) for value in ('"grow"', '""', "true", "[]")],
    *[
        ("connect_timeout", value)
        for value in (
            "0",
            "10",
            "2.5",
            '"10"',
            '"0.9s"',
            '"999ms"',
            "nan",
            "inf",
            "true",
            '"soon"',
            '"86401s"',
            '"-5s"',
            '"1e2s"',
            '"10 sec"',
            '"2m"',
            "[]",
            '"s"',
        )
    ],
    *[("silence", value) for value in ("0", "30", '""', '"5s"', '"5000ms"')],
    *[("patience", value) for value in ("0", "120", "1e9", '"25h"', '"' + "9" * 400 + 's"')],
    *[(name, value) for name in ("no_progress", "max_downtime") for value in ("0", "60", '"0s"', '"25h"')],
    *[("long_downtime", value) for value in ('"stop"', '""', "1", "true", "[]")],
    *[("state_dir", value) for value in ("5", "true", '""', '"state"', '"~/state"', '"/a\\u0000"')],
    *[("mode", value) for value in ('"fast"', '""', "1", "true", "[]")],
    *[
        ("paths", value)
        for value in (
            '"/a"',
            "[]",
            '{a = "/b"}',
            '{"/a" = "b"}',
            '{"/a" = 1}',
            '{"/a/../b" = "/c"}',
            '{"/a" = "/.."}',
            '{"/a" = "/b", "/a/" = "/c"}',
            '{"/a" = "/b\\u0000"}',
            '{"" = "/b"}',
        )
    ],
]


def from_text(tmp_path: Path, text: str) -> Config:
    (tmp_path / "conf").write_text(text)
    return load(tmp_path / "conf")


@pytest.mark.parametrize(("key", "value", "expected"), GOOD)
def test_good_settings(tmp_path: Path, key: str, value: str, expected: Any) -> None:
    got = getattr(from_text(tmp_path, f"{key} = {value}"), key)
    assert got == expected


@pytest.mark.parametrize(("key", "value"), BAD)
def test_bad_settings_are_named_with_their_place(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_text(tmp_path, f"{key} = {value}")
    assert str(tmp_path / "conf") in caught.value.message


def test_every_setting_is_tried_here_with_good_and_bad_values() -> None:
    names = {field.name for field in fields(Config) if field.metadata}
    assert {key for key, _, _ in GOOD} == {key for key, _ in BAD} == names


def test_defaults_survive_their_own_parsing() -> None:
    for field in (field for field in fields(Config) if field.metadata):
        default = getattr(Config(), field.name)
        if default is not None:
            given = option_text(field.name, default) if isinstance(default, float) else default
            assert field.metadata["parse"](given) == default
        assert field.metadata["help"]


@pytest.mark.parametrize(("key", "text", "value"), GOOD)
def test_an_option_can_be_written_for_every_value(key: str, text: str, value: object) -> None:
    (setting,) = (field for field in fields(Config) if field.name == key)
    if (setting.metadata["flag"] or setting.type == "float") and setting.type != "bool":
        assert setting.metadata["parse"](option_text(key, value)) == value


@pytest.mark.parametrize("text", ["rate = ", "rate = 1\nrate = 2", "= 3", "a b", "[a", "rate = 0x", "\x00"])
def test_text_that_is_no_toml(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_text(tmp_path, text)
    assert str(tmp_path / "conf") in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        f"rate = {'9' * 5000}",
        f"rate = 0x{'f' * 5000}",
        f"level = -{'9' * 5000}",
        f"rate = {'[' * 5000}{']' * 5000}",
        "rate = 1e999",
        "connect_timeout = -inf",
    ],
    ids=["long", "long-hex", "long-negative", "nested", "large", "infinite"],
)
def test_odd_numbers_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_text(tmp_path, text)
    assert len(caught.value.message) < 400 + len(str(tmp_path)) and "\n" not in caught.value.message


def test_unknown_settings_and_tables_are_refused(tmp_path: Path) -> None:
    for text in ("speed = 1", "[rate]\nx = 1", "Rate = 1"):
        with pytest.raises(ConfigError):
            from_text(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        from_text(tmp_path, "speed = 1")
    assert "speed" in caught.value.message and caught.value.hint and "rate" in caught.value.hint


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError):
        load(tmp_path / "absent")
    with pytest.raises(ConfigError):
        load(tmp_path)
    (tmp_path / "latin").write_bytes(b"ssh = '\xff'")
    with pytest.raises(ConfigError):
        load(tmp_path / "latin")
    monkeypatch.setattr(config_module, "CONFIG_FILE", tmp_path / "absent")
    assert load(None) == Config()  # without one all is as it comes
    monkeypatch.setattr(config_module, "CONFIG_FILE", tmp_path / "usual")
    (tmp_path / "usual").write_text("streams = 3")
    assert load(None).streams == 3


def test_options_win_over_the_file_and_a_bad_one_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("streams = 3\nlevel = 9\n")
    options = {"config": str(tmp_path / "conf"), "level": "store", "rate": None}
    got = Invocation(dict(options)).config()
    assert (got.streams, got.level, got.rate) == (3, STORE, 0)
    with pytest.raises(UsageError) as caught:
        Invocation({**options, "rate": "fast"}).config()
    assert "rate" in caught.value.message
    with pytest.raises(UsageError):
        Invocation({**options, "cipher": "rot13"}).config()
    (tmp_path / "conf").write_text("streams = -3")
    with pytest.raises(ConfigError):
        Invocation({**options, "rate": "fast"}).config()


@pytest.mark.parametrize(
    ("state", "home", "expected"),
    [
        ("/xdg", "/home/a", "/xdg/xenplugin"),
        ("", "/home/a", "/home/a/.local/state/xenplugin"),
        ("state", "/home/a", "/home/a/.local/state/xenplugin"),  # the XDG specification: relative ones are ignored
    ],
)
def test_the_state_directory_of_an_ordinary_user_is_absolute(
    monkeypatch: pytest.MonkeyPatch, state: str, home: str, expected: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setenv("XDG_STATE_HOME", state)
    monkeypatch.setenv("HOME", home)
    assert state_folder.default() == Path(expected)
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("HOME", "home")
    assert state_folder.default().is_absolute()
