"""What all verbs share: their common options, where events go, and how an error becomes an exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from xenplugin import events
from xenplugin.cli.malloc_tuning import keep_buffers
from xenplugin.cli.secrecy import forbid_core_dumps
from xenplugin.config import Config, load
from xenplugin.errors import ConfigError, RefusedError, UsageError, unexpected
from xenplugin.image import state_folder
from xenplugin.link import tcp
from xenplugin.results import Estimate, Result
from xenplugin.ui import output
from xenplugin.ui.journald import JournaldUi, Ui, joined
from xenplugin.ui.jsonl import JsonLines

if TYPE_CHECKING:
    from xenplugin.image.standard_streams import StandardOutput

F = TypeVar("F", bound=Callable[..., Any])

#: Settings of a transfer over a link that its verbs take as options.
LINK = ("ssh", "remote_program", "rate", "level", "cipher", "streams", "congestion", "address", "whole")


class Invocation:
    """One run of a verb with the values of its `options`. A context manager: an error inside it is reported, and
    ends the process with the error's exit code."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.json = options.pop("json", False)
        log_json, progress = options.pop("log_json", False), options.pop("progress", None)
        self.quiet, verbose = options.pop("quiet", False), options.pop("verbose", False)
        self.dry_run = options.pop("dry_run", False)
        config_file = options.pop("config", None)
        self._config_file = Path(config_file) if config_file else None
        self._options = {key: value for key, value in options.items() if value is not None}
        shown: Ui
        if log_json:
            shown = JsonLines(sys.stderr)
        else:
            from xenplugin.ui.text import TextUi

            shown = TextUi(sys.stderr, progress=progress, quiet=self.quiet or self.json, verbose=verbose)
        self._journal = JournaldUi()
        self.ui: Ui = joined(shown, sys.stderr, self._journal)

    def __enter__(self) -> Invocation:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, _interrupt)
        keep_buffers()
        forbid_core_dumps()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with suppress(Exception, KeyboardInterrupt):
            self.ui.close()
        if not isinstance(error, Exception | KeyboardInterrupt):
            self._report_lost(None)
            return
        failure = unexpected(error)
        with suppress(Exception):  # whatever cannot be shown, the exit code is the failure's
            self.ui(events.Failed(failure.code, str(failure), failure.hint))
            self._report_lost(f"xenplugin: error: {failure}")
        # Threads that wait for the network or a disk must not delay the end.
        os._exit(failure.code)

    def _report_lost(self, failure: str | None) -> None:
        """Report, over what is left, that standard output or standard error could not be written. `failure` is the
        line that standard error should have had last."""
        for stream, name in ((sys.stdout, "standard output"), (sys.stderr, "standard error")):
            why = output.lost(stream)
            if why is None:
                continue
            text = f"{name} could not be written ({why}); this changed nothing else"
            if stream is sys.stdout and self.ui is not self._journal:
                self.ui(events.Notice(text))
            elif stream is sys.stderr and not self.json:  # which promises one object and no more
                print(failure or f"xenplugin: {text}", flush=True)
            self._journal(events.Notice(text))

    def config(self, *only: str) -> Config:
        """Return the configuration in force: the file's, changed by the options. `only`: the settings that the verb
        uses (default: all); an error in another one does not stop it. Raises ConfigError; for a bad option
        UsageError."""
        config = load(self._config_file, only or None)
        try:
            config = config.with_values(self._options)
            if config.congestion and "congestion" in self._options:
                tcp.check_congestion(config.congestion)
        except ConfigError as exc:
            raise UsageError(exc.message, hint=exc.hint) from None
        state_folder.check(config.state_dir)
        return config

    def given(self, *names: str) -> dict[str, Any]:
        """Return those of the options `names` that were given, as they were written."""
        return {name: self._options[name] for name in names if name in self._options}

    def notice(self, text: str) -> None:
        """Show a notice."""
        self.ui(events.Notice(text))

    def planned(self, estimate: Estimate) -> None:
        """Show the estimate of a verb that only plans."""
        from xenplugin.ui import estimate_text, units

        self.ui(events.Estimated(estimate))
        if self.json:
            print(json.dumps({"schema": 1, "outcome": "planned", "estimate": estimate.as_json()}), flush=True)
        elif not self.quiet:
            for text in estimate_text.details(estimate):
                print(units.printable(f"  {text}"))

    def finish(self, result: Result | None) -> None:
        """Show the result of a verb that moves data; None: there is none to show."""
        if result is not None:
            self.ui(events.Finished(result))
        if self.json:
            print(json.dumps(result.as_json() if result is not None else None), flush=True)


def options(*names: str, result: bool = True, progress: bool = True) -> Callable[[F], F]:
    """Add the options of the settings of Config called `names`, and those that every verb has. `result`: the verb
    has a result that can be printed as JSON; `progress`: it shows progress."""

    def decorate(command: F) -> F:
        decorated: Any = command
        every = [
            click.option("--config", metavar="FILE", help="Configuration file (TOML)."),
            click.option("-v", "--verbose", is_flag=True, help="Show more details."),
            click.option(
                "-q", "--quiet", is_flag=True, help="Show only notices and errors, no progress, no result."
            ),
            click.option("--log-json", is_flag=True, help="Write events as JSON lines to standard error."),
        ]
        if progress:
            bar = "Show progress (default: if standard error is a terminal)."
            every.append(click.option("--progress/--no-progress", default=None, help=bar))
        if result:
            every.append(click.option("--json", is_flag=True, help="Write the result as JSON to standard output."))
        for option in every:
            decorated = option(decorated)
        for setting in reversed(fields(Config)):
            flag = setting.metadata.get("flag")
            if setting.name in names:
                flag_kind: dict[str, Any] = {"is_flag": True, "default": None} if setting.type == "bool" else {}
                decorated = click.option(flag, setting.name, help=setting.metadata["help"], **flag_kind)(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def refuse_taken(src: str, state_dir: Path) -> None:
    """Raise RefusedError if a guest has `src` as a disk, or arrives with it: what is written to it during the copy
    would silently leave the copy inconsistent."""
    from xenplugin.migrate.ownership.claims import Claims

    domain = Claims(state_dir).attached(src)
    if domain is not None:
        raise RefusedError(f"{src} is a disk of the guest {domain}", hint="shut the guest down first")


def data_output(verb: Invocation) -> StandardOutput:
    """Return standard output as the place of data; from now on nothing is printed there. Raises UsageError."""
    from xenplugin.image.standard_streams import StandardOutput

    if verb.json:
        raise UsageError("--json needs standard output, which gets the data", hint="use --log-json")
    if output.was_closed(sys.stdout):
        raise UsageError("standard output is closed", hint="redirect it to a file or a pipe")
    return StandardOutput(take_standard_streams()[1])


def take_standard_streams() -> tuple[int, int]:
    """Return descriptors of this process's own for standard input and output, and keep all else away from both:
    from now on what is printed goes to standard error, and what reads standard input reads nothing."""
    source, sink = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return source, sink


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
