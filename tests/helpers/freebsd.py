"""A simulated FreeBSD machine: its commands as shell programs in a directory, which keep their state in files.

They behave as those of FreeBSD 13 to 15 in what our scripts use. Sysctls of a module exist while the module is
loaded. kenv(1) -q fails silently for a variable that does not exist. What only one kind of test needs is added by
subclasses: tests/netem/dummynet/simulated.py, tests/lab/hosts/role/simulated_router.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from netem.remote_command import CommandResult

#: FreeBSD's awk is the one that Debian calls original-awk.
AWKS = [name for name in ("awk", "original-awk") if shutil.which(name)]

# Every program begins so: it counts the commands that change something, and ends the session before or after the
# one whose number is in the file `cut`.
_COMMON = """
cd "${0%/*}/.."
echo "${0##*/} $*" >> log
changes() {
    read -r count < count
    count=$((count + 1))
    echo $count > count
    stop before
    trap 'stop after' EXIT
}
stop() {
    [ -e cut ] || return 0
    read -r when number signal < cut
    [ "$when $number" = "$1 $count" ] || return 0
    rm cut
    if [ "$signal" = KILL ]; then kill -s KILL 0; else kill -s "$signal" $PPID; fi
}
loaded() { [ -e "modules/$1" ]; }
show() { read -r line < "$1"; echo "$line"; }
fail() { echo "$2" >&2; exit "$1"; }
"""
_PROGRAMS = {
    "uname": "case $1 in -s) show system ;; -r) show release ;; esac",
    "kldstat": 'loaded "$3"',
    "kenv": """case $* in
"-q "*) [ -e "kenv/$2" ] && show "kenv/$2" ;;
"-u "*) changes; rm "kenv/$2" ;;
*=*) changes; name=${1%%=*}; echo "${1#*=}" > "kenv/$name" ;;
esac""",
    "sysctl": """case $1 in
-n) [ -e "sysctls/$2" ] || fail 1 "sysctl: unknown oid '$2'"; show "sysctls/$2" ;;
*) changes; name=${1%%=*}
   [ -e "sysctls/$name" ] || fail 1 "sysctl: unknown oid '$name'"
   echo "$name: $(cat "sysctls/$name") -> ${1#*=}"; echo "${1#*=}" > "sysctls/$name" ;;
esac""",
}


class SimulatedFreeBSD:
    """A FreeBSD machine in the directory `base`, with more `programs`, and the `sysctls` of its kernel."""

    def __init__(self, base: Path, programs: Mapping[str, str], sysctls: Mapping[str, object]) -> None:
        self.base = base
        base.mkdir(exist_ok=True)
        for name in ("bin", "kenv", "modules", "sysctls"):
            (base / name).mkdir()
        for name, line in (("system", "FreeBSD"), ("release", "13.0-RELEASE"), ("count", "0")):
            self.write(name, line)
        for name, value in sysctls.items():
            self.sysctl(name, value)
        for name, body in {**_PROGRAMS, **programs}.items():
            self.program(name, _COMMON + body)
        (base / "bin/awk").symlink_to(str(shutil.which(AWKS[-1])))

    def write(self, name: str, line: str) -> None:
        """Write a file of its state, or the end of one."""
        (self.base / name).write_text(line + "\n")

    def read(self, name: str) -> str:
        return (self.base / name).read_text().strip()

    def sysctl(self, name: str, value: object) -> None:
        self.write(f"sysctls/{name}", str(value))

    def program(self, name: str, body: str) -> None:
        """Put a program in the place of another, or a new one."""
        self.write(f"bin/{name}", f"#!/bin/sh\n{body}")
        (self.base / "bin" / name).chmod(0o755)

    def load(self, module: str) -> None:
        (self.base / "modules" / module).touch()

    def execute(self, words: Sequence[str], stdin: str) -> CommandResult:
        """Run a command, in a session of its own, with its programs in PATH."""
        self.write("count", "0")
        env = os.environ | {"PATH": f"{self.base}/bin:/usr/bin:/bin"}
        own = self.base / "bin" / words[0]
        words = [str(own) if own.exists() else words[0], *words[1:]]
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, env=env, timeout=60, start_new_session=True
        )
        return CommandResult(done.returncode, done.stdout, done.stderr)
