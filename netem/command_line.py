"""Runs a command line made with click, and turns what it raises into one line of error and an exit code.

`netem` and `xenlab` use it. `xenplugin` has its own (xenplugin.cli.common), which shows errors as events.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from netem.errors import ExpectedError, report


class HelpfulGroup(click.Group):
    """A group of commands that, called without one, prints its help and ends with exit code 2."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse `args`, unless there are none."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)


def run(
    cli: click.Command,
    program: str,
    words: Sequence[str] | None,
    *,
    failed: int = 1,
    interrupted: str | None = None,
) -> int:
    """Run `cli` with `words` (None: sys.argv) and return its exit code. An error is one line, `PROGRAM: error: ...`
    (and `PROGRAM: hint: ...`), never a traceback. `failed`: the exit code of an error of the operating system or
    of a bug; `interrupted`: the hint after ctrl-C, without which nothing is printed then."""
    try:
        done = cli.main(list(words) if words is not None else None, program, standalone_mode=False)
        return done if isinstance(done, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        report(error.format_message(), f"{context.command_path if context else program} --help", program)
        return 2
    except (click.Abort, KeyboardInterrupt):
        if interrupted is not None:
            report("interrupted", interrupted, program)
        return 130
    except ExpectedError as error:
        report(error.message, error.hint, program)
        return error.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's flush at the end does not fail
        return failed
    except OSError as error:
        report(f"{error.strerror}: {error.filename}" if error.filename else str(error), None, program)
        return failed
    except Exception as error:
        report(f"internal error at {_place(error)}: {error!r}", "please report this line", program)
        return failed


def _place(error: BaseException) -> str:
    """Return the file and line where `error` was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else "?"
