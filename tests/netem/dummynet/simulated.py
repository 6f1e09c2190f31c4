"""A simulated FreeBSD router, for the scripts of netem.

ipfw answers with what FreeBSD answered (oracle.py), and refuses what it has no recording of. Loading ipfw with a
default rule that denies is noted in `locked_out`.
"""

from __future__ import annotations

import re
import shutil
from copy import copy
from pathlib import Path

from netem.dummynet.script import STATE
from netem.remote_command import CommandResult
from tests.helpers import freebsd

from . import oracle

_SYSCTLS = {
    "kern.hz": "1000",
    "kern.ipc.nmbclusters": "65000",
    "net.inet.ip.forwarding": "0",
    "net.inet6.ip6.forwarding": "0",
}
_OF_MODULE = {
    "ipfw": {"net.inet.ip.fw.one_pass": "0", "net.inet.ip.fw.enable": "1", "net.inet6.ip6.fw.enable": "1"},
    "dummynet": {"net.inet.ip.dummynet.pipe_byte_limit": "1048576", "net.inet.ip.dummynet.pipe_slot_limit": "100"},
}

_PROGRAMS = {
    "id": "case $1 in -u) show user ;; -un) echo vagrant ;; esac",
    "ps": '[ -e "/proc/$4" ] && show "/proc/$4/comm"',
    "kldload": """changes
[ "$1" = ipfw ] || loaded ipfw || fail 1 "kldload: depends on ipfw"
! loaded "$1" || fail 1 "kldload: can't load $1: module already loaded or in kernel"
touch "modules/$1"
cp "of-$1"/* sysctls
if [ "$1" = ipfw ]; then
    if [ "$(cat kenv/net.inet.ip.fw.default_to_accept 2>/dev/null)" = 1 ]; then default=allow; else default=deny; fi
    [ $default = allow ] || touch locked_out
    echo "65535 set 31 $default ip from any to any" > rules
fi""",
    "kldunload": """changes
loaded "$1" || fail 1 "kldunload: can't find file $1"
! { [ "$1" = ipfw ] && loaded dummynet; } || fail 1 "kldunload: can't unload file: Device busy"
for each in "of-$1"/*; do rm "sysctls/${each##*/}"; done
rm "modules/$1"
if [ "$1" = ipfw ]; then rm rules; else rm -f pipes/*; fi""",
    "ipfw": """[ "$1" != -q ] || shift
loaded ipfw || fail 69 "ipfw: setsockopt(IP_FW_XADD): Protocol not available"
case $* in
"-S list") if [ -e disabled ]; then sort rules | sed "s/^[0-9]* set $(cat disabled) /# DISABLED &/"
    else sort rules; fi ;;
"delete set "*) changes
    grep -q " set $3 " rules || fail 69 "ipfw: no rules in set $3"
    sed -i "/ set $3 /d" rules ;;
"queue show") ;;
"pipe show") cat pipes/* 2>/dev/null || : ;;
"pipe show "*) cat "pipes/$3" 2>/dev/null || : ;;
"pipe delete "*) changes; rm "pipes/$3" 2>/dev/null ||
    fail 1 "ipfw: rule 1: setsockopt(IP_DUMMYNET_DEL): Invalid argument" ;;
"pipe "*" config "*) changes
    loaded dummynet || fail 1 "ipfw: setsockopt(IP_DUMMYNET_CONFIGURE): Protocol not available"
    size=${*#*queue }
    read -r limit < sysctls/net.inet.ip.dummynet.pipe_byte_limit
    [ $((${size%%Kbytes*} * 1024)) -le "$limit" ] || fail 65 "ipfw: queue size must be < ${limit}B"
    answer=answers/$(echo "$*" | tr / %)
    [ ! -e "$answer.refused" ] || fail 65 "$(cat "$answer.refused")"
    [ -e "$answer" ] || fail 70 "no recording of ipfw $*"
    cp "$answer" "pipes/$2" ;;
"add "*) changes; number=$2; shift 2; printf '%05d %s\\n' "$number" "$*" >> rules ;;
*) fail 64 "ipfw: bad command $*" ;;
esac""",
}


class SimulatedFreeBSD(freebsd.SimulatedFreeBSD):
    """A FreeBSD router in the directory `base`. `run` takes the place of remote_command.through("ssh ...")."""

    def __init__(self, base: Path, *, loaded: bool = False, default: str = "allow") -> None:
        super().__init__(base, _PROGRAMS, _SYSCTLS)
        self.state = base / "netem-dummynet"
        for name in ("pipes", "answers"):
            (base / name).mkdir()
        self.write("user", "0")
        for module, sysctls in _OF_MODULE.items():
            if loaded:
                self.load(module)
            (base / f"of-{module}").mkdir()
            for name, value in sysctls.items():
                self.write(f"of-{module}/{name}", value)
                if loaded:
                    self.sysctl(name, value)
        if loaded:
            self.write("rules", f"65535 set 31 {default} ip from any to any")
        for each in oracle.cases():
            for command in each.commands[:2]:
                if each.code:
                    self.write(self._answer(command) + ".refused", each.stderr)
                else:
                    self.answer(command, each.shown(int(command[2])))

    def copy(self, base: Path) -> SimulatedFreeBSD:
        """Return another router in the same state."""
        shutil.copytree(self.base, base, symlinks=True)
        other = copy(self)
        other.base, other.state = base, base / self.state.name
        return other

    def answer(self, command: list[str], shown: str) -> None:
        """Let `ipfw pipe show` print `shown` after `command`."""
        (self.base / self._answer(command)).write_text(shown)

    @staticmethod
    def _answer(command: list[str]) -> str:
        return "answers/" + " ".join(command[1:]).replace("/", "%")

    def remove(self, program: str) -> None:
        (self.base / "bin" / program).unlink()

    def cut(self, when: str, change: int, signal: str = "KILL") -> None:
        """End the next session `before` or `after` its nth change (SIGKILL to all of it), or signal its shell."""
        self.write("cut", f"{when} {change} {signal}")

    def run(self, words: object, stdin: str = "") -> CommandResult:
        assert words == ["sh", "-s"]
        done = self.execute(["sh", "-s"], stdin.replace(STATE, str(self.state)))
        (self.base / "cut").unlink(missing_ok=True)
        assert not (self.base / "locked_out").exists()
        return done

    def changes(self) -> list[str]:
        """The commands so far that changed something."""
        reads = r"(uname|id|ps|kldstat|kenv -q|sysctl -n|ipfw (-S list|pipe show|queue show))\b"
        return [line for line in (self.base / "log").read_text().splitlines() if not re.match(reads, line)]

    def snapshot(self) -> dict[str, str]:
        """All that a script may change on the router: file name to content."""
        kept = ("modules", "rules", "kenv", "sysctls", "pipes", self.state.name)
        return {
            str(file.relative_to(self.base)): "".join(sorted(file.read_text().splitlines(keepends=True)))
            for name in kept
            for file in (
                [self.base / name] if (self.base / name).is_file() else sorted((self.base / name).glob("*"))
            )
        }
