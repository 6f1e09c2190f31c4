"""A fake host as a test sees it: its programs, its domains, its configuration."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from lab.fakexen.xenstored import Xenstored
from tests.helpers.program import ROOT, TOKEN, Done, Running

_XL = """#!{python} -IS
import sys
sys.path.insert(0, {project!r})
from lab.fakexen import counter_guest, host, xl
xl.run(host.Host({root!r}, counter_guest.CounterGuest()))
"""
# The program as installed on that host. What it starts of itself goes through the host's own Python below.
_PROGRAM = """#!{python}
import sys
from pathlib import Path
sys.path.insert(0, {project!r})
sys.executable = {root!r} + "/bin/python"
from xenplugin import config
from xenplugin.migrate.ownership import host_identity
from xenplugin.migrate.checks import survey
from xenplugin.xen import guest, guest_file
config.CONFIG_FILE = Path({root!r} + "/xenplugin.conf")
host_identity.MACHINE_ID, host_identity.HOST_KEYS = Path({root!r} + "/machine-id"), Path({root!r})
guest_file.FOLDER = Path({root!r} + "/xen")
survey.SYS_NET, guest.SCRIPTS = Path({root!r} + "/net"), {root!r} + "/scripts"
if sys.argv[1:2] and sys.argv[1] in ("enable", "disable", "status"):
    from xenplugin.migrate.xl import xl_shim
    xl_shim.FRONT = Path({root!r} + "/sbin/xl")
patch = Path({root!r} + "/patch.py")
if patch.exists():
    exec(compile(patch.read_text(), patch, "exec"))
from xenplugin.cli.main import main
main()
"""
# xen-cpuid -p [DOMID]: the policies in cpuid.txt.
_CPUID = """#!/bin/sh
cat {root}/cpuid.txt
"""
_POLICY = """{name} policy: 9 leaves, 1 MSRs
 CPUID:
  leaf     subleaf  -> eax      ebx      ecx      edx
  00000000:ffffffff -> 0000000d:68747541:444d4163:69746e65
  00000001:ffffffff -> 00a20f10:00000800:f6f83203:178bfbff
  00000007:00000000 -> 00000000:219c07a9:00000000:00000000
  80000000:ffffffff -> 80000021:68747541:444d4163:69746e65
 MSRs:
  index    -> value
  000000ce -> 0000000000000000
"""
# `python -P -m xenplugin ...`, and libxl_domain_resume of this host in place of Xen's library.
_PYTHON = """#!{python}
import os, sys
words = sys.argv[1:]
assert words[:2] == ["-P", "-m"], words
if words[2] == "xenplugin":
    os.execv({root!r} + "/bin/xenplugin", ["xenplugin", *words[3:]])
assert words[2] == "xenplugin.xen.resume", words
sys.path.insert(0, {project!r})
from lab.fakexen import counter_guest, host
here = host.Host({root!r}, counter_guest.CounterGuest())
here.point("resume")
try:
    here.resume(int(words[3]))
except host.LibxlError as error:
    print(f"libxl: error: {{error}}", file=sys.stderr)
    sys.exit("libxl error -3")
"""


class FakeHost:
    """Host `name` of the world in `folder`; what it starts carries `token`, and is added to `started`."""

    def __init__(self, folder: Path, token: str, name: str, started: list[Running]) -> None:
        self.name = name
        self.root = folder / name
        self._started = started
        for place in (
            "bin",
            "sbin",
            "disks",
            "memory",
            "stall",
            "state",
            "xen/auto",
            "scripts/vif-bridge",
            "net/xenbr0/bridge",
        ):
            (self.root / place).mkdir(parents=True)
        names = {"python": sys.executable, "project": str(ROOT), "root": str(self.root)}
        programs = {"xl": _XL, "xenplugin": _PROGRAM, "python": _PYTHON, "xen-cpuid": _CPUID}
        for program, text in programs.items():
            path = self.root / "bin" / program
            path.write_text(text.format(**names))
            path.chmod(0o755)
        self.env = {
            "PATH": f"{self.root}/sbin:{self.root}/bin:/usr/bin:/bin",
            "HOME": str(self.root),
            "LANG": "C.UTF-8",
            "XENSTORED_PATH": str(self.root / "xenstored.sock"),
            TOKEN: token,
        }
        self.cpu("PV Max", "HVM Max", *(f"Domain {number}" for number in range(1, 20)))
        (self.root / "machine-id").write_text(hashlib.md5(name.encode()).hexdigest() + "\n")
        (self.root / "env.json").write_text(json.dumps(self.env))
        self.store = Xenstored(self.root / "xenstored.sock")
        self.config: dict[str, Any] = {
            "state_dir": str(self.root / "state"),
            "patience": "15s",
            "connect_timeout": "5s",
        }
        self.configure()

    def configure(self, **values: Any) -> None:
        """Set keys of its xenplugin.conf."""
        self.config |= values
        tables = {key: value for key, value in self.config.items() if isinstance(value, dict)}
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.config.items() if key not in tables]
        for key, table in tables.items():
            lines += [f"[{key}]", *(f"{json.dumps(there)} = {json.dumps(here)}" for there, here in table.items())]
        (self.root / "xenplugin.conf").write_text("\n".join(lines) + "\n")

    def cpu(self, *names: str, lacks: str = "") -> None:
        """Have xen-cpuid print the policy for all `names`, without a register's value `lacks`."""
        text = "".join(_POLICY.format(name=name) for name in names)
        (self.root / "cpuid.txt").write_text(text.replace(lacks, "00000000") if lacks else text)

    def knob(self, **values: Any) -> None:
        (self.root / "knobs.json").write_text(json.dumps(values))

    def patch(self, code: str) -> None:
        """Have every process of xenplugin that starts from now on run `code` first; "": none."""
        (self.root / "patch.py").write_text(code)

    def stall(self, point: str) -> None:
        (self.root / "stall" / point).touch()

    def reached(self, point: str) -> bool:
        return (self.root / "stall" / f"{point}.reached").exists()

    def release(self, point: str) -> None:
        for name in (point, f"{point}.reached"):
            (self.root / "stall" / name).unlink(missing_ok=True)

    def start(self, *words: str | Path) -> Running:
        """Any program on this host."""
        running = Running(words, self.env, cwd=str(self.root), start_new_session=True)
        self._started.append(running)
        return running

    def run(self, *words: str | Path, code: int | None = 0) -> Done:
        done = self.start(self.root / "bin" / words[0], *words[1:]).end()
        assert code is None or done.code == code, f"{words}: exit {done.code}: {done.out}{done.err}"
        return done

    def domains(self) -> list[dict[str, Any]]:
        path = self.root / "state.json"
        return json.loads(path.read_text())["domains"] if path.exists() else []

    def states(self) -> dict[str, str]:
        """The domains by name: runs, paused, suspended."""
        return {
            one["name"]: "suspended" if one["shutdown"] else "paused" if one["paused"] else "runs"
            for one in self.domains()
        }

    def records(self) -> dict[str, str]:
        """The states of its records by role."""
        found = [json.loads(path.read_text()) for path in (self.root / "state" / "migrations").glob("*.json")]
        return {one["role"]: one["state"] for one in found}

    def disk(self, name: str) -> Path:
        return self.root / "disks" / name

    def recover(self, *options: str, code: int | None = 0) -> Done:
        return self.run("xenplugin", "recover", *options, code=code)
