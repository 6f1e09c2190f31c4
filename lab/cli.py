"""The command `xenlab`. Its verbs are in lab.verbs.

Errors are one line, `xenlab: error: ...` (and `xenlab: hint: ...`), never a traceback. The exit code is that of the
error's class (lab.errors), and 130 after ctrl-C.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from lab.errors import LabError, print_error
from lab.verbs import box, doctor, experiment, machines, predict, report, run, status, updown, verify_wire
from netem.errors import NetemError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run a lab on this machine: two Xen hosts with a long link and IPsec between them."""


for verb in (
    updown.build,
    updown.up,
    updown.install,
    status.status,
    machines.ssh,
    machines.console,
    run.run,
    experiment.experiment,
    report.report,
    predict.predict,
    verify_wire.verify_wire,
    box.box,
    updown.down,
    doctor.doctor,
):
    cli.add_command(verb)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line (`words`, else sys.argv) and return the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)
    try:
        done = cli.main(list(words) if words is not None else None, "xenlab", standalone_mode=False)
        return done if isinstance(done, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return _complain(error.format_message(), "xenlab --help", 2)
    except (click.Abort, KeyboardInterrupt):
        return _complain("interrupted", "xenlab status shows what was started, xenlab down removes it", 130)
    except (LabError, NetemError) as error:
        return _complain(error.message, error.hint, error.code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's flush at the end does not fail
        return 13
    except OSError as error:
        return _complain(f"{error.strerror}: {error.filename}" if error.filename else str(error), None, 13)
    except Exception as error:
        return _complain(f"internal error at {_place(error)}: {error!r}", "please report this line", 13)


def _complain(message: str, hint: str | None, code: int) -> int:
    print_error(message, hint)
    return code


def _place(error: BaseException) -> str:
    """Return the file and line where `error` was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else "?"


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
