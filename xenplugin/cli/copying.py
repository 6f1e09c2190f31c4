"""The verbs that move one image: `copy` over a link; `seal`, `open` and `verify` as a file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from xenplugin import events
from xenplugin.cli.common import LINK, Invocation, options
from xenplugin.errors import RefusedError, UsageError

_raw = click.option("--raw", is_flag=True, help="Treat SRC as a raw image, whatever its first bytes are.")
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


@click.command()
@options(*LINK)
@click.option(
    "-N", "--dry-run", is_flag=True, help="Say what would be sent and how long it would take; move nothing."
)
@_raw
@click.argument("src")
@click.argument("dst")
def copy(src: str, dst: str, raw: bool, **values: Any) -> None:
    """Copy the image or block device SRC to [HOST:]DST.

    Only what differs from DST's present content is sent. After an interruption the same command continues.
    """
    with Invocation(values) as verb:
        from xenplugin.image.source.raw import open_source
        from xenplugin.transfer import send_disk

        config = verb.config()
        host, path = split_target(dst, command=not config.ssh.strip())
        if not path:
            raise UsageError(f"{dst!r} does not name a file on the far host")
        if path.endswith("/"):
            path += os.path.basename(os.path.abspath(src))
        if host is None:
            path = os.path.abspath(path)
        if host and config.ssh.strip():
            host = host.replace("[", "").replace("]", "")  # ssh takes no brackets, and host names have none
        _refuse_taken(src, config.state_dir)
        with open_source(src, raw=raw) as source:
            target = send_disk.RemotePath(host, path)
            verb.ui(events.Started("copy", src, str(target), source.size))
            if not verb.dry_run:
                verb.finish(send_disk.copy(source, target, config, verb.ui))
                return
        from xenplugin.migrate.forecast.forecast import DiskToMove, Forecast

        disk = DiskToMove(os.path.basename(src), src, path)
        verb.planned(Forecast([disk], host, config, verb.ui).run())


@click.command()
@options("rate", "level", "cipher")
@click.option("--key-file", required=True, metavar="KEY", help="Key file; created (mode 600) if it does not exist.")
@_raw
@click.argument("src")
@click.argument("file")
def seal(src: str, file: str, key_file: str, raw: bool, **values: Any) -> None:
    """Seal the image SRC into FILE, which can be carried by any means."""
    with Invocation(values) as verb:
        from xenplugin.codec.seal import make_key_file, read_key_file, remove_key_file
        from xenplugin.image.source.raw import open_source
        from xenplugin.transfer import archive

        config = verb.config("rate", "level", "cipher", "state_dir")
        _refuse_taken(src, config.state_dir)
        with open_source(src, raw=raw) as source:
            known = os.path.lexists(key_file)
            secret = read_key_file(key_file) if known else make_key_file(key_file)
            sealed_before = os.path.lexists(file)
            try:
                verb.ui(events.Started("seal", src, file, source.size))
                result = archive.seal(source, file, secret, config, verb.ui)
            except BaseException:
                if not known and (sealed_before or not os.path.lexists(file)):  # the new key opens nothing
                    remove_key_file(key_file, secret)
                raise
            if not known:
                verb.notice(f"a new key is in {key_file}: carry it separately from {file}")
            verb.finish(result)


@click.command("open")
@options()
@_sealed_with
@click.argument("file")
@click.argument("dst")
def open_(file: str, dst: str, key_file: str, **values: Any) -> None:
    """Open the sealed FILE into the image DST."""
    _unseal(file, dst, key_file, values)


@click.command()
@options()
@_sealed_with
@click.argument("file")
def verify(file: str, key_file: str, **values: Any) -> None:
    """Check the sealed FILE to its last byte; write nothing."""
    _unseal(file, None, key_file, values)


def _unseal(file: str, dst: str | None, key_file: str, values: dict[str, Any]) -> None:
    with Invocation(values) as verb:
        from xenplugin.codec.seal import read_key_file
        from xenplugin.migrate.claims import Claims
        from xenplugin.transfer import archive

        config = verb.config("state_dir")
        secret = read_key_file(key_file)
        verb.finish(archive.unseal(file, dst, secret, config, Claims(config.state_dir).attached, verb.ui))


def _refuse_taken(src: str, state_dir: Path) -> None:
    """Raise RefusedError if a guest has `src` as a disk, or arrives with it: what is written to it during the copy
    would silently leave the copy inconsistent."""
    from xenplugin.migrate.claims import Claims

    domain = Claims(state_dir).attached(src)
    if domain is not None:
        raise RefusedError(f"{src} is a disk of the guest {domain}", hint="shut the guest down first")
