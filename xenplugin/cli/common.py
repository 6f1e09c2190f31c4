"""What all verbs have in common: their options, where events go, and how errors become exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from xenplugin import events
from xenplugin.cli.malloc_tuning import keep_buffers
from xenplugin.config import Config, load
from xenplugin.errors import ConfigError, Interrupted, UsageError, XenpluginError
from xenplugin.results import Result

F = TypeVar("F", bound=Callable[..., Any])
Ui = Any


class Context:
    """What all verbs share: the configuration in force and where events go."""

    def __init__(self, options: dict[str, Any]) -> None:
        from xenplugin.ui.journald import JournaldUi, joined
        from xenplugin.ui.jsonl import JsonLines
        from xenplugin.ui.text import TextUi

        self.json = options.pop("json", False)
        log_json, progress = options.pop("log_json", False), options.pop("progress", None)
        quiet, verbose = options.pop("quiet", False), options.pop("verbose", False)
        self.dry_run = options.pop("dry_run", False)
        self.ui: Ui = (
            JsonLines(sys.stderr)
            if log_json
            else TextUi(sys.stderr, progress=progress, quiet=quiet or self.json, verbose=verbose)
        )
        self.journal = JournaldUi()
        self.ui = joined(self.ui, sys.stderr, self.journal)
        config_file = options.pop("config", None)
        self._options = {key: value for key, value in options.items() if value is not None}
        self._config_file = Path(config_file) if config_file else None

    def config(self) -> Config:
        """Raises ConfigError; a bad option is a usage error."""
        config = load(self._config_file)
        try:
            return config.with_values(self._options, "command line")
        except ConfigError as exc:
            raise UsageError(exc.message, hint=exc.hint) from None

    def finish(self, result: Result) -> None:
        """Show the result of a moving verb."""
        self.ui(events.Finished(result))
        if self.json:
            print(json.dumps(result.as_json()), flush=True)


def shared(*names: str, result: bool = True, progress: bool = True) -> Callable[[F], F]:
    """The options of Config called `names`, built from its fields, and those every verb has; `result`: it has one
    that can be had as JSON; `progress`: it shows how far it is."""

    def decorate(command: F) -> F:
        decorated: Any = command
        every = [
            click.option("--config", metavar="FILE", help="Configuration file (TOML)."),
            click.option("-v", "--verbose", is_flag=True, help="Say more."),
            click.option("-q", "--quiet", is_flag=True, help="No progress and no result: notices and errors only."),
            click.option("--log-json", is_flag=True, help="Events as JSON lines on standard error."),
        ]
        if progress:
            bar = "Progress (default: on a terminal)."
            every.append(click.option("--progress/--no-progress", default=None, help=bar))
        if result:
            every.append(click.option("--json", is_flag=True, help="The result as JSON on standard output."))
        for option in every:
            decorated = option(decorated)
        for setting in reversed(fields(Config)):
            flag = setting.metadata.get("flag")
            if setting.name in names:
                flag_kind: dict[str, Any] = {"is_flag": True, "default": None} if setting.type == "bool" else {}
                decorated = click.option(flag, setting.name, help=setting.metadata["help"], **flag_kind)(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def run(context: Context, work: Callable[[], None]) -> None:
    """Do it; every expected failure becomes a message and an exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)
    error: XenpluginError
    keep_buffers()
    try:
        try:
            work()
            return
        finally:
            with suppress(KeyboardInterrupt):
                context.ui.close()
    except XenpluginError as exc:
        error = exc
    except KeyboardInterrupt:
        error = Interrupted("interrupted")
    except BrokenPipeError:
        error = Interrupted("nobody reads the output")
    except Exception as exc:
        error = _bug(exc)
    context.ui(events.Failed(error.code, str(error), error.hint))
    sys.stderr.flush()
    # Threads that wait for the network or a disk must not hold up the end.
    os._exit(error.code)


def _bug(exc: Exception) -> XenpluginError:
    """An error nobody foresaw, in one line with its place."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else "?"
    return XenpluginError(f"internal error at {place}: {exc!r}", hint="please report this line")


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
