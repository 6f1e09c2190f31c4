"""The verbs. Each reads its options, wires a few objects together and turns errors into exit codes."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from typing import Any

import click

from xenplugin import __version__, events
from xenplugin.cli.common import Context, run, shared
from xenplugin.errors import OwnershipError, RefusedError, UsageError, XenpluginError

LINK = ("ssh", "remote_program", "rate", "level", "cipher", "streams", "congestion", "address", "whole")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="xenplugin")
def cli() -> None:
    """Moves Xen guests with their local disks: sealed end to end, compressed, resumable."""


def split_target(text: str, command: bool = False) -> tuple[str | None, str]:
    """'[HOST:]PATH' -> (HOST or None, PATH). As in scp, a colon after a slash belongs to the path, and an
    IPv6 address is written in brackets. `command`: HOST is a whole command, which ends at the last colon."""
    if command and ":" in text:
        host, _, path = text.rpartition(":")
        return host, path
    match = re.match(r"((?:[^:/\[\]]+@)?\[[^\]/]+\]|[^:/\[\]]+):(.*)$", text, re.DOTALL)
    if match is None:
        return None, text
    return match[1], match[2]


@cli.command()
@shared(*LINK)
@click.option("-N", "--dry-run", is_flag=True, help="Check what can be checked here, move nothing.")
@click.option("--raw", is_flag=True, help="SRC is a raw image, whatever its first bytes say.")
@click.argument("src")
@click.argument("dst")
def copy(src: str, dst: str, raw: bool, **options: Any) -> None:
    """Copy the image or block device SRC to [HOST:]DST.

    What DST holds already is the base of a difference. Interrupted, the same command goes on.
    """
    context = Context(options)

    def work() -> None:
        from xenplugin.image.source.raw import open_source
        from xenplugin.transfer import send_disk

        config = context.config()
        host, path = split_target(dst, command=not config.ssh.strip())
        if not path:
            raise UsageError(f"{dst!r} names no file on the far host")
        if path.endswith("/"):
            path += os.path.basename(os.path.abspath(src))
        if host is None:
            path = os.path.abspath(path)
        if host and config.ssh.strip():
            host = host.replace("[", "").replace("]", "")  # ssh wants none, and none are in names
        _refuse_attached(src)
        with open_source(src, raw=raw) as source:
            target = send_disk.RemotePath(host, path)
            context.ui(events.Started("copy", src, str(target), source.size))
            if context.dry_run:
                return
            context.finish(send_disk.copy(source, target, config, context.ui))

    run(context, work)


@cli.command()
@shared("rate", "level", "cipher")
@click.option("--key-file", required=True, metavar="KEY", help="Key file; made (mode 600) if there is none.")
@click.option("--raw", is_flag=True, help="SRC is a raw image, whatever its first bytes say.")
@click.argument("src")
@click.argument("file")
def seal(src: str, file: str, key_file: str, raw: bool, **options: Any) -> None:
    """Seal the image SRC into FILE, to be carried by any means."""
    context = Context(options)

    def work() -> None:
        from xenplugin.codec.seal import make_key_file, read_key_file
        from xenplugin.image.source.raw import open_source
        from xenplugin.transfer import archive

        config = context.config()
        _refuse_attached(src)
        with open_source(src, raw=raw) as source:
            known = os.path.lexists(key_file)
            secret = read_key_file(key_file) if known else make_key_file(key_file)
            context.ui(events.Started("seal", src, file, source.size))
            if not known:
                context.ui(events.Notice(f"a new key is in {key_file}: carry it apart from {file}"))
            context.finish(archive.seal(source, file, secret, config, context.ui))

    run(context, work)


@cli.command("open")
@shared()
@click.option("--key-file", required=True, metavar="KEY", help="The key file it was sealed with.")
@click.argument("file")
@click.argument("dst")
def open_(file: str, dst: str, key_file: str, **options: Any) -> None:
    """Open the sealed FILE into the image DST."""
    _unseal(Context(options), file, dst, key_file)


@cli.command()
@shared()
@click.option("--key-file", required=True, metavar="KEY", help="The key file it was sealed with.")
@click.argument("file")
def verify(file: str, key_file: str, **options: Any) -> None:
    """Check the sealed FILE to its last byte, write nothing."""
    _unseal(Context(options), file, None, key_file)


def _refuse_attached(src: str) -> None:
    """A disk that a guest writes to meanwhile would arrive torn, and nobody would notice."""
    from xenplugin.xen.xenstore import attached

    domain = attached(src)
    if domain is not None:
        raise RefusedError(f"the guest {domain} has {src} as a disk", hint="shut it down first")


def _unseal(context: Context, file: str, dst: str | None, key_file: str) -> None:
    def work() -> None:
        from xenplugin.codec.seal import read_key_file
        from xenplugin.transfer import archive
        from xenplugin.xen.xenstore import attached

        config = context.config()
        secret = read_key_file(key_file)
        context.finish(archive.unseal(file, dst, secret, config, attached, context.ui))

    run(context, work)


@cli.command()
@shared(progress=False)
@click.option("--image", metavar="FILE", help="Measure with this image's content (default: made-up data).")
def bench(image: str | None, **options: Any) -> None:
    """Measure this host's ceilings and say which one bounds a copy."""
    context = Context(options)

    def work() -> None:
        from xenplugin import bench as measure

        figures = measure.run(image, context.ui)
        if context.json:
            print(json.dumps(figures))
        else:
            measure.show(figures)

    run(context, work)


@cli.command(hidden=True)
@click.option("--config", metavar="FILE")
def receive(config: str | None) -> None:
    """Started by the source at the far side; speaks over standard input and output."""
    context = Context({"config": config, "quiet": True})

    def work() -> None:
        from xenplugin.link.endpoint import PipeEndpoint
        from xenplugin.link.remote_process import ready_line
        from xenplugin.transfer.destination_session import read_job
        from xenplugin.transfer.job import DOMAIN
        from xenplugin.transfer.receive_disk import DiskReceiver
        from xenplugin.xen.xenstore import attached

        settings = context.config()
        # Nothing else may ever write to the channel: what prints goes to standard error.
        source, sink = os.dup(0), os.dup(1)
        os.dup2(2, 1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        random = os.urandom(32)
        channel = PipeEndpoint(source, sink)
        channel.send(ready_line(random))
        job = read_job(channel)
        serving: Any
        if job.kind == DOMAIN:
            from xenplugin.migrate.destination import DestinationMigration

            serving = DestinationMigration(channel, random, settings, job)
        else:
            serving = DiskReceiver(channel, random, settings, job, attached)
        try:
            serving.run()
        except XenpluginError as exc:
            if serving.reported:  # the source shows it
                sys.exit(exc.code)
            raise

    run(context, work)


GUEST = (*LINK, "mode")


@cli.command()
@shared(*GUEST)
@click.option("-C", "xl_config", metavar="FILE", help="As xl's: another configuration for the guest.")
@click.option("-e", "no_wait", is_flag=True, help="As xl's: no daemon that waits for the guest at the far host.")
@click.option("-p", "paused", is_flag=True, help="As xl's: leave the guest paused at the far host.")
@click.option("-D", "preserve", is_flag=True, help="As xl's: keep the domain id.")
@click.option("--debug", is_flag=True, help="As xl's: log every page.")
@click.option("--xl-arguments", is_flag=True, hidden=True)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="DOMAIN HOST")
def migrate(xl_arguments: bool, words: tuple[str, ...], **options: Any) -> None:
    """Move the running guest DOMAIN with its disks to HOST.

    In mode live it runs meanwhile, and stands still for a moment at the end. If that fails, the guest goes on here
    and the same command goes on with what has arrived of its disks; exit status 20: `xenplugin recover` settles it.
    """
    from xenplugin.migrate import commands

    given = {"-C": options.pop("xl_config"), "-e": options.pop("no_wait"), "-p": options.pop("paused"),
             "-D": options.pop("preserve"), "--debug": options.pop("debug")}  # fmt: skip
    chosen = frozenset(name for name in ("mode", "rate") if options.get(name) is not None)
    context = Context(options)
    if xl_arguments:
        run(context, lambda: sys.exit(commands.as_xl(words, context.config(), context.ui)))
        return

    def work() -> None:
        if len(words) != 2:
            raise UsageError("xenplugin migrate DOMAIN HOST")
        own = [word for flag, value in given.items() if value for word in (flag, value) if word is not True]
        context.finish(commands.guest(words[0], words[1], context.config(), context.ui, own, chosen))

    run(context, work)


@cli.command(hidden=True, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@shared(*GUEST)
@click.option("--lifeline", type=int, hidden=True)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def transport(words: tuple[str, ...], lifeline: int | None, **options: Any) -> None:
    """Started by xl: xl migrate -s 'xenplugin transport' DOMAIN HOST."""
    from xenplugin.ui.jsonl import JsonLines

    held = None
    if lifeline is not None:
        import socket

        held = socket.socket(fileno=lifeline)
        options["log_json"] = True
    given = frozenset(name for name in ("mode", "rate") if options.get(name) is not None)
    context = Context(options)
    if held is not None:

        class Heard(JsonLines):
            def __call__(self, event: events.Event) -> None:
                with suppress(OSError):  # whoever listened may be gone: the guest matters more
                    super().__call__(event)

        context.ui = Heard(held.makefile("w", encoding="utf-8"))

    def work() -> None:
        from xenplugin.migrate import commands, transport

        if held is None:
            commands.by_hand(context.config(), context.ui)
        context.ui(events.Finished(transport.run(words, context.config(), context.ui, held, given)))

    run(context, work)


@cli.command()
@shared(result=False, progress=False)
def enable(**options: Any) -> None:
    """Make plain `xl migrate DOMAIN HOST` move guests with their disks.

    A small script, /usr/local/sbin/xl, comes before the real xl in root's PATH; all other commands pass through it.
    """
    from xenplugin.migrate import xl_shim

    run(context := Context(options), lambda: xl_shim.enable(lambda text: context.ui(events.Notice(text))))


@cli.command()
@shared(result=False, progress=False)
def disable(**options: Any) -> None:
    """Make plain `xl migrate` move guests without their disks, as before `enable`."""
    from xenplugin.migrate import xl_shim

    run(context := Context(options), lambda: xl_shim.disable(lambda text: context.ui(events.Notice(text))))


@cli.command()
@shared(progress=False)
def status(**options: Any) -> None:
    """Say what runs on this host, what was left behind, and what to type next."""
    context = Context(options)

    def work() -> None:
        from xenplugin.migrate import policy, publish, status, xl_shim
        from xenplugin.xen.xenstore import Store, socket_path

        def told(uuid: str) -> dict[str, str] | None:
            with suppress(XenpluginError), Store() as store:
                return publish.progress(store, uuid)
            return None

        def enabled() -> bool:
            if not xl_shim.installed():
                return False
            if not os.path.exists(socket_path()):
                return True
            with Store() as store:
                return policy.enabled(store)

        rows = status.status(context.config(), progress=told, enabled=enabled)
        if context.json:
            print(json.dumps(rows))
        else:
            status.show(rows, sys.stdout)

    run(context, work)


@cli.command()
@shared(result=False, progress=False)
@click.option(
    "--assume-peer-lost",
    is_flag=True,
    help="A host that does not answer, or knows nothing of it, will never have the guest: resume it here.",
)
@click.option("--answer", metavar="ID", hidden=True)
@click.option("--settled", is_flag=True, hidden=True)
def recover(assume_peer_lost: bool, answer: str | None, settled: bool, **options: Any) -> None:
    """Settle what interrupted migrations have left on this host.

    To be run on both hosts, in any order: exactly one guest is left, the right one. Exit status 20: not everything
    could be settled; it says what is to be done.
    """
    context = Context(options)

    def say(text: str) -> None:
        context.ui(events.Notice(text))

    def work() -> None:
        from xenplugin.migrate import publish, recover
        from xenplugin.xen.xenstore import Store

        config = context.config()
        if answer is not None:
            print(recover.answer(recover.LocalHost(config.state_dir, say), answer, settled=settled), flush=True)
            return
        with suppress(XenpluginError), Store() as store:
            publish.sweep(store)
        if recover.recover(config, say, assume_peer_lost=assume_peer_lost):
            raise OwnershipError("not everything is settled", hint="it says above what is to be done")

    run(context, work)


def main() -> None:
    """Entry point."""
    try:
        cli.main(prog_name="xenplugin", standalone_mode=False)
    except click.ClickException as exc:
        print(f"xenplugin: error: {exc.format_message()}", file=sys.stderr)
        print("xenplugin: hint: xenplugin --help", file=sys.stderr)
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except XenpluginError as exc:
        print(f"xenplugin: error: {exc}", file=sys.stderr)
        sys.exit(exc.code)
