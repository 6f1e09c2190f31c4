"""A fake Xen host without xenstore, whose guests do nothing: enough of one for the recovery of migrations.

A domain is written as a row `DOMID NAME STATE`, such as `7 g1 -b----`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

from lab.fakexen import xl
from lab.fakexen.host import Guest, Host, LibxlError
from lab.fakexen.messages import complain
from tests.helpers.program import ROOT

_PROGRAM = """#!{python}
import sys
sys.path.insert(0, "{root}")
from pathlib import Path
from tests.fakes.idle_host import IdleHost
sys.exit(IdleHost(Path("{folder}")).xl(*sys.argv[1:]))
"""


class IdleHost(Host):
    """The host in `folder`, with its program `xl`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), mock.Mock(Guest, **{"start.return_value": 1, "stop.return_value": 0}))
        self.program = folder / "xl"

    def put(self, nodes: dict[str, str]) -> None:
        pass

    def drop(self, *paths: str) -> None:
        pass

    def set_domains(self, *rows: str, uuid: str) -> None:
        """Replace all domains."""
        with self.locked() as state:
            state["domains"] = []
            for domid, name, letters in map(str.split, rows):
                paused, suspended = letters[2] == "p", letters[3] == "s"
                state["domains"].append(
                    {"domid": int(domid), "name": name, "uuid": uuid, "paused": paused, "shutdown": suspended,
                     "counter": 0, "guest": None if paused or suspended else 1}
                )  # fmt: skip

    def xl(self, *words: str) -> int:
        """Do what `xl WORDS` does, and `resume DOMID`, which libxl has but xl does not. Returns the exit status."""
        if words[0] != "resume":
            return xl.main(self, list(words))
        try:
            self.resume(int(words[1]))
        except LibxlError as error:
            complain(f"libxl: error: {error}")
            return 1
        return 0

    def install(self) -> None:
        """Write the program `xl`."""
        self.program.write_text(_PROGRAM.format(python=sys.executable, root=ROOT, folder=self.root))
        self.program.chmod(0o755)
