"""The command `xenplugin`: the group of all verbs, and the entry point.

A verb imports what it runs inside its function, so that `xenplugin --version` and the far side start quickly.
"""

from __future__ import annotations

import os
import signal
import sys

import click

from xenplugin import __version__
from xenplugin.cli import copying, measuring, moving, receiving, sending, settling
from xenplugin.errors import UsageError
from xenplugin.ui import output


class HelpfulGroup(click.Group):
    """A group of verbs that, called without one, prints its help and ends with exit code 2."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse `args`, unless there are none."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(UsageError.code)
        return super().parse_args(ctx, args)


@click.group(cls=HelpfulGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="xenplugin")
def cli() -> None:
    """Move Xen guests with their local disks: sealed end to end, compressed, resumable."""


for command in (
    copying.copy, copying.seal, copying.open_, copying.verify,
    moving.migrate, moving.plan, moving.transport, moving.enable, moving.disable, moving.guard,
    settling.status, settling.recover, settling.clean,
    measuring.bench,
    receiving.receive, receiving.measure, receiving.survey, sending.send,
):  # fmt: skip
    cli.add_command(command)


def _use_utf8() -> None:
    """Start again in UTF-8 mode if the locale has another encoding for names: hosts with different locales would
    otherwise mean different files by one path, and a record could not be read under another locale."""
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def main() -> None:
    """Run the command line. Exit code 2 for one that click refuses; the verbs set all others (cli.common)."""
    _use_utf8()
    output.guard()
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as xenplugin/__main__.py leaves it
            signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(cli.main(prog_name="xenplugin", standalone_mode=False))
    except click.ClickException as exc:
        command = exc.ctx.command_path if isinstance(exc, click.UsageError) and exc.ctx else "xenplugin"
        print(f"xenplugin: error: {exc.format_message()}", file=sys.stderr)
        print(f"xenplugin: hint: {command} --help", file=sys.stderr)
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
