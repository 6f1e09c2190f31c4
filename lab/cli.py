"""The command `xenlab`. Its verbs are in lab.verbs.

Errors are reported by netem.command_line. The exit code is that of the error's class (lab.errors), and 130 after
ctrl-C.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from lab.errors import LabError
from lab.verbs import box, doctor, experiment, machines, predict, report, run, status, updown, verify_wire
from netem import command_line


@click.group(cls=command_line.HelpfulGroup, context_settings={"help_option_names": ["-h", "--help"]})
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
    hint = "xenlab status shows what was started, xenlab down removes it"
    return command_line.run(cli, "xenlab", words, failed=LabError.code, interrupted=hint)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
