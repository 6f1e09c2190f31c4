"""Every setting once: its key in the configuration file, its option, its help and its default.

`/etc/xen/xenplugin.conf` is TOML with the keys of `Config`; options of a verb override it. The command line, the
man pages and the packaged configuration file are made from the same fields, so none can differ from the others.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from xenplugin import setting_values
from xenplugin.codec.compress import LEVELS, STORE
from xenplugin.codec.seal import cipher_named
from xenplugin.errors import ConfigError
from xenplugin.image import path_mapping, state_folder
from xenplugin.image.formats.kinds import Format
from xenplugin.image.safety import declared_shared
from xenplugin.image.small_file import read_small
from xenplugin.image.target.device_size import LARGER_DEVICE, REFUSE
from xenplugin.link.tcp import MAX_STREAMS

CONFIG_FILE = Path("/etc/xen/xenplugin.conf")
MODES = ("live", "static", "full")
LONG_DOWNTIME = ("give-up", "go-on")
LEFT_DISKS = (KEEP_ASIDE, REMOVE) = ("keep-aside", "remove")
BACKING = (FLATTEN, KEEP_BACKING) = ("flatten", "keep")
MOVE_CONFIG = (MOVE, COPY, LEAVE) = ("move", "copy", "leave")
CDS = (COPY, EJECT) = (COPY, "eject")
_RATE_UNITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_LEAST_RATE = 1000  # bytes/s
_LARGEST = 1 << 20  # bytes of a configuration file


def parse_rate(text: str | int) -> int:
    """Return bytes/s from a rate in bits/s: 25000000 from '200mbit', 0 (no limit) from 0. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]+)?)\s*([a-z]*?)(?:/s|ps)?", str(text).strip().lower())
    if match is None or match[2] not in ("", *_RATE_UNITS):
        raise ValueError("a rate is a number with a unit: bit, kbit, mbit or gbit, like 200mbit")
    if float(match[1]) == 0:
        return 0
    if not match[2]:
        raise ValueError("a rate needs a unit: bit, kbit, mbit or gbit, like 200mbit")
    rate = int(float(match[1]) * _RATE_UNITS[match[2]] / 8)
    if rate < _LEAST_RATE:
        raise ValueError("a rate below 8kbit is too low to move an image")
    return rate


def option_text(name: str, value: Any) -> str:
    """Return the text that the parser of the setting `name` reads as `value`."""
    if value is None:
        return "auto"
    if name == "level" and value == STORE:
        return "store"
    if isinstance(value, float):
        return f"{value:.12g}s"
    return f"{8 * value}bit" if name == "rate" and value else str(value)


def parse_level(text: str | int) -> int | None:
    """Return None for 'auto' (adaptive), STORE for 'store' (no compression), or the zstd level. Raises
    ValueError."""
    if text == "auto":
        return None
    if text == "store":
        return STORE
    level = _whole_number(text)
    if level not in LEVELS:
        raise ValueError(f"a level is auto, store, or {LEVELS.start} to {LEVELS.stop - 1}")
    return level


def _whole_number(text: str | int) -> int | None:
    """Return the number, None for anything else; a configuration file may also hold booleans and fractions."""
    if type(text) is int:
        return text
    return int(text) if isinstance(text, str) and re.fullmatch(r"[+-]?[0-9]{1,9}", text.strip()) else None


def parse_ports(text: str | int) -> str:
    """Return the range as text, '49300-49399', from a range, one port, or 0 (the data goes through ssh).
    Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", str(text).strip())
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (-1, -1)
    if not 0 <= low <= high <= 65535 or low == 0 < high:
        raise ValueError("ports are a range like 49300-49399, one port, or 0")
    return f"{low}-{high}"


def _parse_streams(text: str | int) -> int:
    if text == "auto":
        return 0
    streams = _whole_number(text)
    if streams is None or not 0 <= streams <= MAX_STREAMS:
        raise ValueError(f"streams are auto or 1 to {MAX_STREAMS}")
    return streams


def _parse_cipher(text: str) -> str | None:
    return None if text == "auto" else cipher_named(text).label


def parse_mode(text: str) -> str:
    """Return the mode of a migration, which is one of MODES. Raises ValueError."""
    if text not in MODES:
        raise ValueError(f"a mode is {', '.join(MODES[:-1])} or {MODES[-1]}")
    return text


def parse_move_config(text: str) -> str:
    """Return what becomes of a guest's configuration file, one of MOVE_CONFIG. Raises ValueError."""
    return setting_values.one_of(MOVE_CONFIG)(text)


def parse_cds(text: str) -> str:
    """Return what becomes of a guest's CD image, one of CDS. Raises ValueError."""
    return setting_values.one_of(CDS)(text)


def _setting(default: Any, help: str, parse: Callable[[Any], Any], flag: str | None = None) -> Any:
    """Return a field of Config. `flag` is its option; None if only the configuration file has the setting."""
    return field(default=default, metadata={"help": help, "parse": parse, "flag": flag})


_STATE_DIR = state_folder.default()


@dataclass(frozen=True)
class Config:
    """The settings, parsed. Times are in seconds, the rate in bytes/s. In files and options both have a unit, and
    the rate is in bits/s."""

    ssh: str = _setting(
        "ssh",
        "Command that reaches the far host; '' makes HOST the whole command.",
        setting_values.parse_text,
        "-s",
    )
    remote_program: str = _setting(
        "xenplugin", "How the far host starts this program.", setting_values.parse_text, "--remote-program"
    )
    rate: int = _setting(
        0, "Send at most at this rate, like 200mbit (bits per second; 0: no limit).", parse_rate, "--rate"
    )
    level: int | None = _setting(
        None,
        "zstd level -7 to 19, 'store', or 'auto': adapts to the link (no compression on one machine).",
        parse_level,
        "--level",
    )
    cipher: str | None = _setting(
        None, "aes-128-gcm, aes-256-gcm, chacha20-poly1305 or auto.", _parse_cipher, "--cipher"
    )
    streams: int = _setting(
        0, "Number of TCP connections, 1 to 32, or auto: chosen by RTT and rate.", _parse_streams, "--streams"
    )
    congestion: str | None = _setting(
        None,
        "TCP congestion control (default: cubic; bbr where packets are lost without congestion).",
        setting_values.parse_congestion,
        "--congestion",
    )
    address: str | None = _setting(
        None,
        "IP address of the destination for the data (default: found automatically).",
        setting_values.parse_address,
        "--address",
    )
    ports: str = _setting(
        "49300-49399", "Ports on which the far host receives data; 0: the data goes through ssh.", parse_ports
    )
    whole: bool = _setting(
        False, "Send everything, also what the target already has.", setting_values.parse_flag, "--whole"
    )
    connect_timeout: float = _setting(
        10.0, 'Time in which a connection must open, like "10s".', setting_values.parse_time
    )
    silence: float = _setting(
        30.0, 'Silence after which a connection is lost, like "30s".', setting_values.parse_silence
    )
    patience: float = _setting(
        120.0, 'Time without any connection before giving up, like "2min".', setting_values.parse_time
    )
    no_progress: float = _setting(
        300.0,
        'Time in which the far host must acknowledge some of the data, like "5min"; after it the transfer ends.',
        setting_values.parse_time,
    )
    max_downtime: float = _setting(
        120.0,
        'Time for which a guest may be suspended in mode live, like "2min"; after it the guest is resumed here.',
        setting_values.parse_time,
    )
    long_downtime: str = _setting(
        "give-up",
        "What to do if the guest writes so much that it would be suspended for longer than max_downtime: give-up "
        "(before it is suspended), go-on.",
        setting_values.one_of(LONG_DOWNTIME),
    )
    mode: str = _setting(
        "live",
        "How a guest moves: live (it keeps running), static (it is suspended meanwhile), full (the same, with the "
        "whole disk, not compressed).",
        parse_mode,
        "--mode",
    )
    larger_device: str = _setting(
        REFUSE,
        "What becomes of the rest of a target device that is larger than the image: refuse (it is not written to), "
        "keep (the rest stays as it is), zero. For a guest's disk the far host's setting counts.",
        setting_values.one_of(LARGER_DEVICE),
        "--larger-device",
    )
    paths: tuple[tuple[str, str], ...] = _setting(
        (),
        "Where the disks of arriving guests go, if not to the same path: a table of old and new paths.",
        path_mapping.parse,
    )
    formats: tuple[tuple[str, str], ...] = _setting(
        (),
        "How arriving images are stored in files, if not as on the source: a table of formats, by QEMU's names.",
        setting_values.parse_formats,
    )
    shared: tuple[str, ...] | None = _setting(
        None,
        "The disks that both hosts share and that cannot be recognised as shared, a list of paths of disks or of "
        "folders (/dev/VG, for example); to be set on both hosts. An empty list: there are none.",
        setting_values.parse_shared,
    )
    cds: str = _setting(
        COPY,
        "What becomes of a guest's CD image that the far host does not have: copy (it moves along), eject (the "
        "guest arrives with an empty drive).",
        parse_cds,
    )
    backing: str = _setting(
        FLATTEN,
        "What becomes of an image's backing file: flatten (the image arrives without it), keep (the image is based "
        "on the far host's file that holds the same).",
        setting_values.one_of(BACKING),
        "--backing",
    )
    backing_folders: tuple[str, ...] = _setting(
        (),
        "Folders whose files may be backing files of images that lie elsewhere: a list of absolute paths.",
        setting_values.parse_folders,
    )
    left_disks: str = _setting(
        KEEP_ASIDE,
        "What becomes of the disks that a guest leaves behind: keep-aside (they are renamed, and make the way back "
        "short), remove (they are removed once it runs on the far host).",
        setting_values.one_of(LEFT_DISKS),
    )
    bridges: tuple[tuple[str, str], ...] = _setting(
        (),
        "The bridges of arriving guests, if not those of the same names: a table of old and new names.",
        setting_values.parse_bridges,
    )
    config: str = _setting(
        MOVE,
        "What becomes of the guest's configuration file and its links in /etc/xen/auto: move (to the far host), "
        "copy, leave.",
        parse_move_config,
    )
    file: Path | None = None  #: where these come from, if it was named
    state_dir: Path = _setting(
        _STATE_DIR,
        "Directory of the journals and of the records which host has which guest, an absolute path. It must be on "
        "a disk; do not change it while xenplugin status shows anything.",
        state_folder.parse,
    )

    @property
    def port_range(self) -> range:
        """The ports to listen on, in order; empty if `ports` is 0."""
        low, high = map(int, self.ports.split("-"))
        return range(low, high + 1) if low else range(0)

    def mapped(self, path: str) -> str:
        """Return the path on this host of the disk at `path` on the source. Raises RefusedError (path_mapping)."""
        return path_mapping.mapped(self.paths, path)

    def shares(self, path: str) -> bool:
        """Return whether the administrator has declared the disk `path` as shared."""
        return declared_shared.names(self.shared or (), path)

    def bridge(self, name: str) -> str:
        """Return the bridge of this host for a guest that has the bridge `name` on the source."""
        return dict(self.bridges).get(name, name)

    def stored(self, format: Format) -> Format:
        """Return how this host stores an image that the source stores as `format`."""
        name = dict(self.formats).get(format.name, format.name)
        return format if name == format.name else Format(name)

    def with_values(
        self, values: Mapping[str, Any], file: Path | None = None, only: Collection[str] | None = None
    ) -> Config:
        """Return this configuration with `values` (unparsed, by key) from `file`, or from options. `only`: the
        settings that are wanted; all others keep their values. Raises ConfigError; its message names the place."""
        known = {f.name: f for f in fields(self) if f.metadata}
        parsed: dict[str, Any] = {}
        for key, value in values.items():
            if key not in known:  # even if it is not wanted: it may be a wanted one, misspelt
                raise ConfigError(f"{file}: unknown setting {key!r}", hint=f"use one of {', '.join(known)}")
            if only is not None and key not in only:
                continue
            setting = known[key].metadata
            try:
                parsed[key] = setting["parse"](value)
            except (ConfigError, ValueError, TypeError, OverflowError, RecursionError) as exc:
                name = key if file else setting["flag"]
                given = (
                    f"{file}: {key} = {setting_values.shown(value)}"
                    if file
                    else f"{name} {shlex.quote(str(value))}"
                )
                raise ConfigError(f"{given}: {exc}", hint=f"{name}: {setting['help']}") from None
        return replace(self, **parsed)


def load(path: Path | None, only: Collection[str] | None = None) -> Config:
    """Return the configuration in `path`; without a path that in CONFIG_FILE, if there is one. `only`: the settings
    that are wanted; all others have their defaults, whatever the file says. Raises ConfigError."""
    where = path or CONFIG_FILE
    try:
        text = read_small(where, _LARGEST, follow=True).decode("utf-8")
    except FileNotFoundError:
        if path is None:
            return Config()
        raise ConfigError(f"there is no configuration file {where}") from None
    except OSError as exc:
        raise ConfigError(f"cannot read {where}: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise ConfigError(f"cannot read {where}: {exc}") from None
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{where}: values are nested too deeply") from None
    except ValueError as exc:  # TOMLDecodeError, or a number of thousands of digits
        raise ConfigError(f"{where}: {exc}") from None
    return replace(Config().with_values(values, where, only), file=path)
