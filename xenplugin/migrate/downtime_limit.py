"""Limits how long a guest may be suspended by its migration (`max_downtime`).

Before the guest is suspended, the time that the rest of its disks will take is estimated. While it is suspended, a
thread waits: after the limit the migration is given up, and the near xl resumes the guest. The limit ends when
message 6 is about to leave, because after it nothing can be taken back."""

from __future__ import annotations

import threading
from collections.abc import Callable

from xenplugin.config import Config
from xenplugin.errors import LinkError, RefusedError, XenpluginError

_HINT = "raise max_downtime in xenplugin.conf, or find out what is slow"


class DowntimeLimit:
    """Calls `exceeded(error)`, from a thread of its own, once the guest has been suspended for max_downtime, unless
    `end` came first."""

    def __init__(self, exceeded: Callable[[XenpluginError], object]) -> None:
        self._exceeded = exceeded
        self._seconds = 0.0
        self._suspended = threading.Event()
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="downtime", daemon=True).start()

    def begin(self, config: Config) -> None:
        """The guest is suspended now."""
        if config.mode == "live":  # else it is suspended for as long as its disks take, as the user wanted it
            self._seconds = config.max_downtime
            self._suspended.set()

    def end(self) -> None:
        """The guest is about to run at the destination, or to be resumed."""
        self._over.set()
        self._suspended.set()

    def _watch(self) -> None:
        self._suspended.wait()
        if not self._over.wait(self._seconds):
            self._exceeded(
                LinkError(
                    f"the guest was suspended for {self._seconds:.0f} s (max_downtime), so it is resumed here",
                    hint=_HINT,
                )
            )


def check_estimate(config: Config, seconds: float, notify: Callable[[str], None]) -> None:
    """Compare the estimated downtime of `seconds` with the limit, at the end of the pre-copy. Raises RefusedError
    if it is exceeded and the settings say to give up; otherwise `notify` gets a line."""
    if seconds <= config.max_downtime:
        return
    text = (
        f"what the guest writes meanwhile would suspend it for about {seconds:.0f} s, more than max_downtime"
        f" ({config.max_downtime:.0f} s)"
    )
    if config.long_downtime == "give-up":
        raise RefusedError(
            text, hint='migrate when it writes less, raise max_downtime, or set long_downtime = "go-on"'
        )
    notify(f"{text}; going on, as long_downtime says")
