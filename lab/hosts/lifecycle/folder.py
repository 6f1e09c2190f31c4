"""The folder of a lab, which keeps its description and state between commands, and its lock.

~/.local/state/xenplugin/lab/NAME/   (XDG_STATE_HOME)
    lock        held (flock) by the command that changes the lab
    lab.json    the Spec and the state that was reached
    ...         files of the provider: pid files, consoles, disks, keys
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from lab.errors import BusyError, LabError
from lab.hosts.lifecycle.strategy import State
from lab.hosts.spec import Spec, check_name
from xenplugin.image.files import write_atomically


def home() -> Path:
    """Return the folder that holds the labs' folders."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "xenplugin" / "lab"


def names() -> list[str]:
    """Return the names of this user's labs."""
    return sorted(path.parent.name for path in home().glob("*/lab.json"))


class Folder:
    """The folder of lab `name`, created by the first write to it. Raises LabUsageError for an invalid name."""

    def __init__(self, name: str) -> None:
        check_name(name)
        self.path = home() / name

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lab's lock while the block runs. Raises BusyError if another command holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError(
                    f"another command is working on lab {self.path.name}", hint="wait for it, or use --name"
                ) from None
            yield
        finally:
            os.close(fd)

    def save(self, spec: Spec, state: State) -> None:
        """Store the description of the lab and its state."""
        self.path.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": 1, "spec": spec.as_dict(), "state": str(state)}, indent=1)
        write_atomically(self.path / "lab.json", f"{text}\n".encode(), mode=0o644)

    def forget(self) -> None:
        """Remove the description, so that the lab no longer exists."""
        (self.path / "lab.json").unlink(missing_ok=True)

    def load(self) -> tuple[Spec, State] | None:
        """Return what `save` stored, or None if there is no such lab. Raises LabError if it cannot be read."""
        try:
            text = (self.path / "lab.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            values = json.loads(text)
            return Spec.from_dict(values["spec"]), State[values["state"].upper()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LabError(f"{self.path / 'lab.json'} cannot be read: {error}", hint="xenlab down") from None
