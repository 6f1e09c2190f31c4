"""The verbs that move one image: `copy` over a link; `seal`, `open` and `verify` as a file."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xenplugin import events
from xenplugin.cli.common import LINK, Invocation, data_output, options, refuse_taken
from xenplugin.config import CONFIG_FILE, Config
from xenplugin.errors import UsageError
from xenplugin.image.formats.kinds import KEPT, RAW

if TYPE_CHECKING:
    from xenplugin.image.standard_streams import StandardOutput

_FORMATS = click.Choice([RAW, *KEPT])
_format = click.option(
    "--format", type=_FORMATS, help="How SRC is stored, by QEMU's names (default: found by its first bytes)."
)
_sealed_with = click.option("--key-file", required=True, metavar="KEY", help="Key file that FILE was sealed with.")


def split_target(text: str, command: bool = False) -> tuple[str | None, str]:
    """Split '[HOST:]PATH' into (HOST or None, PATH). As in scp, a colon after a slash belongs to the path, and an
    IPv6 address is written in brackets. `command`: HOST is a whole command, which ends at the last colon."""
    if command and ":" in text:
        host, _, path = text.rpartition(":")
        return host, path
    match = re.match(r"((?:[^:/\[\]]+@)?\[[^\]/]+\]|[^:/\[\]]+):(.*)$", text, re.DOTALL)
    if match is None:
        return None, text
    return match[1], match[2]


def split_source(text: str, command: bool = False) -> tuple[str | None, str]:
    """Split SRC as `split_target` splits DST; with `command`, an existing file's name is not split."""
    return (None, text) if command and os.path.lexists(text) else split_target(text, command)


def named_file(path: str, name: str, far: bool = False) -> str:
    """Return the file that DST `path` names for a source called `name`: a path that can only be a folder (its last
    part is empty, '.' or '..') gets that name. On the `far` host, '' and '~USER' are home directories."""
    if far and re.fullmatch("(~[^/]*)?", path):
        path = f"{path or '~'}/"
    return os.path.join(path, name) if os.path.basename(path) in ("", ".", "..") and path else path


@click.command()
@options(*LINK, "backing", "larger_device")
@click.option(
    "-N", "--dry-run", is_flag=True, help="Say what would be sent and how long it would take; move nothing."
)
@_format
@click.option(
    "--force",
    type=click.Choice(["room"]),
    help="Copy although DST's file system seems to have no room for SRC's data, much of which may be zeros.",
)
@click.argument("src")
@click.argument("dst")
def copy(src: str, dst: str, format: str | None, force: str | None, **values: Any) -> None:
    """Copy the image or block device [HOST:]SRC to [HOST:]DST.

    Only what differs from DST's present content is sent. After an interruption the same command continues.
    SRC may be - for standard input, if that is a file or a block device.
    """
    with Invocation(values) as verb:
        if dst == "-":
            raise UsageError(
                "copy does not write to standard output",
                hint="seal SRC - writes a sealed stream there, and open FILE - an image; a file called - is ./-",
            )
        config = verb.config()
        ends = _ends(_image(src), dst, command=not config.ssh.strip())
        if ends.source_host is not None:
            _pull(verb, config, ends, format, (src, dst), room=not force)
        else:
            _push(verb, config, ends, format, room=not force)


@dataclass(frozen=True)
class _Ends:
    """Two images, each with the host that has it, as ssh takes its name (None: this one)."""

    source_host: str | None
    source: str
    target_host: str | None
    target: str


def _ends(src: str, dst: str, command: bool) -> _Ends:
    """Return what `copy` was told to copy; `command`: HOST is a whole command. Raises UsageError."""
    target_host, target = split_target(dst, command)
    source_host, source = split_source(src, command) if target_host is None or not command else (None, src)
    if source_host is not None and target_host is not None:
        by_hand = shlex.join(["xenplugin", "copy", source, dst])
        raise UsageError(
            f"SRC and DST are both on other hosts: {source_host} and {target_host}",
            hint=f"run it on one of them: ssh {source_host} {shlex.quote(by_hand)}",
        )
    if source_host is not None and os.path.basename(source) in ("", ".", "..", "~"):
        raise UsageError(f"SRC names no file on the far host: {src}")
    target = named_file(target, os.path.basename(os.path.abspath(source)), far=target_host is not None)
    if not target:
        raise UsageError("DST is empty", hint="name the file or the block device to write")
    if target_host is None:
        target = os.path.abspath(target)
    return _Ends(_for_ssh(source_host, command), source, _for_ssh(target_host, command), target)


def _push(verb: Invocation, config: Config, ends: _Ends, format: str | None, room: bool) -> None:
    from xenplugin.image.safety.distinct import refuse_inputs, written
    from xenplugin.image.source.at_rest import open_at_rest
    from xenplugin.transfer.disks import send_disk

    refuse_taken(ends.source, config.state_dir)
    if ends.target_host is None:
        refuse_inputs(written(ends.target), {"SRC": ends.source, **_settings(config)})
    with open_at_rest(ends.source, format, verb.notice, config.backing_folders) as source:
        target = send_disk.RemotePath(ends.target_host, ends.target)
        verb.ui(events.Started("copy", ends.source, str(target), source.size))
        if not verb.dry_run:
            verb.finish(send_disk.copy(source, target, config, verb.ui, data=None if room else 0))
            return
        from xenplugin.migrate.forecast.forecast import DiskToMove, Forecast

        data = (source.taken() or 0) if room else 0
        disk = DiskToMove(os.path.basename(ends.source), source, ends.target, source.size, data)
        verb.planned(Forecast([disk], ends.target_host, config, verb.ui).run())


def _pull(
    verb: Invocation, config: Config, ends: _Ends, format: str | None, shown: tuple[str, str], room: bool
) -> None:
    from xenplugin.image.safety.distinct import refuse_inputs, written
    from xenplugin.migrate.ownership.claims import Claims
    from xenplugin.transfer.disks.pull import pull
    from xenplugin.transfer.disks.request import OPTIONS, Request

    if verb.dry_run:
        raise UsageError("-N is for a SRC on this host only", hint="run it on SRC's host")
    refuse_inputs(written(ends.target), _settings(config))
    request = Request(ends.source, ends.target, format or "", verb.given(*OPTIONS))
    attached = Claims(config.state_dir).attached
    assert ends.source_host is not None
    verb.finish(pull(ends.source_host, request, shown, config, attached, verb.ui, room=room))


def _for_ssh(host: str | None, command: bool) -> str | None:
    """Return `host` without brackets: ssh takes none, and host names have none."""
    return host if command or host is None else host.replace("[", "").replace("]", "")


@click.command()
@options("rate", "level", "cipher")
@click.option("--key-file", required=True, metavar="KEY", help="Key file; created (mode 600) if it does not exist.")
@_format
@click.argument("src")
@click.argument("file")
def seal(src: str, file: str, key_file: str, format: str | None, **values: Any) -> None:
    """Seal the image SRC into FILE, which can be carried by any means.

    FILE may be - for standard output, and SRC for standard input, if that is a file or a block device.
    """
    with Invocation(values) as verb:
        from xenplugin.codec.seal import make_key_file, read_key_file, remove_key_file
        from xenplugin.image.safety.distinct import refuse_inputs
        from xenplugin.image.source.at_rest import open_at_rest
        from xenplugin.image.standard_streams import OUTPUT
        from xenplugin.transfer import archive

        config = verb.config("rate", "level", "cipher", "state_dir", "backing_folders")
        src = _image(src)
        output = data_output(verb) if file == "-" else None
        refuse_taken(src, config.state_dir)
        refuse_inputs([_path_of(output or file)], {"SRC": src, "the key file": key_file, **_settings(config)})
        with open_at_rest(src, format, verb.notice, config.backing_folders) as source:
            known = os.path.lexists(key_file)
            secret = read_key_file(key_file) if known else make_key_file(key_file)
            sealed_before = os.path.lexists(file)
            try:
                verb.ui(events.Started("seal", src, file, source.size))
                result = archive.seal(source, output or file, secret, config, verb.ui)
            except BaseException:
                opens_nothing = output is not None or sealed_before or not os.path.lexists(file)
                if not known and opens_nothing:
                    remove_key_file(key_file, secret)
                raise
            if not known:
                verb.notice(f"a new key is in {key_file}: carry it separately from {OUTPUT if output else file}")
            verb.finish(result)


@click.command("open")
@options("larger_device")
@_sealed_with
@click.option("--format", type=_FORMATS, help="How to store DST, by QEMU's names (default: raw).")
@click.argument("file")
@click.argument("dst")
def open_(file: str, dst: str, key_file: str, format: str | None, **values: Any) -> None:
    """Open the sealed FILE into the image DST.

    Each may be - for standard input or output. Each chunk is checked before it is written there, but only exit
    code 0 says that the image is whole.
    """
    _unseal(file, dst, key_file, values, format)


@click.command()
@options()
@_sealed_with
@click.argument("file")
def verify(file: str, key_file: str, **values: Any) -> None:
    """Check the sealed FILE to its last byte; write nothing.

    FILE may be - for standard input.
    """
    _unseal(file, None, key_file, values)


def _unseal(file: str, dst: str | None, key_file: str, values: dict[str, Any], format: str | None = None) -> None:
    with Invocation(values) as verb:
        from xenplugin.codec.seal import read_key_file
        from xenplugin.image.safety.distinct import refuse_inputs, written
        from xenplugin.migrate.ownership.claims import Claims
        from xenplugin.transfer import archive

        config = verb.config("state_dir", "formats", "larger_device")
        if format is not None:
            config = replace(config, formats=((RAW, format),))
        if dst == "-" and format not in (None, RAW):
            raise UsageError(
                f"standard output cannot be {format}, which is not written in order", hint="name a file"
            )
        inputs: dict[str, str | Path] = {"the key file": key_file, **_settings(config)}
        sealed: str | int = file
        if file == "-":
            if os.isatty(0):
                raise UsageError("standard input is a terminal", hint="redirect a sealed file or a pipe")
            sealed = os.dup(0)
        inputs["the sealed file"] = _path_of(sealed)
        output = data_output(verb) if dst == "-" else None
        if output or dst is not None:
            refuse_inputs([_path_of(output)] if output else written(str(dst)), inputs)
        secret = read_key_file(key_file)
        attached = Claims(config.state_dir).attached
        verb.finish(archive.unseal(sealed, output or dst, secret, config, attached, verb.ui))


def _image(src: str) -> str:
    """Return the path of the image SRC, which may be standard input."""
    from xenplugin.image.standard_streams import image_path

    return image_path() if src == "-" else src


def _path_of(place: str | int | StandardOutput) -> str:
    """Return the path of a file, or of what a descriptor leads to."""
    if isinstance(place, str):
        return place
    return os.path.realpath(f"/proc/self/fd/{place if isinstance(place, int) else place.fd}")


def _settings(config: Config) -> dict[str, Path]:
    """Return the configuration file, which is an input of every verb."""
    return {"the configuration file": config.file or CONFIG_FILE}
