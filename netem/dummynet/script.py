"""Writes the shell scripts that make and remove the link on a FreeBSD router. Pure.

A single ssh session carries a script, and the shell reads all of it before the first command runs. Nothing is
changed before every check has passed. From then on a state file on the router says what to undo:

    process 4711 sh                                the shell that applies, while there is no `complete`
    set 27                                         rules
    pipe 2701                                      pipes
    kenv net.inet.ip.fw.default_to_accept[=OLD]    kernel environment (without =: it was not set)
    module ipfw                                    modules that were loaded
    sysctl net.inet.ip.fw.one_pass=0               settings, with their old values
    complete

Each line is written before the change that it describes, and each step of the undo may find its change not made or
undone already. So whatever ends the script (an error, a signal, SIGKILL, a lost session), the router is in order
again after one undo, and an undo that was cut short can be repeated. The script undoes itself at an error or a
signal; `apply` first undoes what an interrupted `apply` left. The undo needs the state file only. /var/run is
emptied when FreeBSD starts, and so are the pipes and the settings.

Nobody is locked out: ipfw denies everything from the moment it is loaded, unless net.inet.ip.fw.default_to_accept
is 1 in the kernel environment. So that is set first, put back right after loading, and an allow rule is added too.
A firewall that is there already keeps its rules; netem adds one pipe rule for each direction, which only matches
packets between the two networks.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from netem.dummynet import readback
from netem.dummynet.pipes import (
    OLD_LARGEST_RATE,
    firewall_switch,
    limits,
    most_packets,
    notes,
    pipes,
    rule_commands,
    settings,
)
from netem.dummynet.router import ALLOW_RULE, SET, Router
from netem.profile import Profile

#: The state file on the router.
STATE = "/var/run/netem-dummynet"
#: What each line of a script's error message begins with.
ERROR, HINT = "netem: ", "netem: hint: "

# rules: all rules with their sets, those of disabled sets too. shown: pipes, by number or all.
_COMMON = r"""
PATH=$PATH:/sbin:/usr/sbin LC_ALL=C
export PATH LC_ALL
fail() {
    echo "netem: $1" >&2
    [ -z "$2" ] || echo "netem: hint: $2" >&2
    exit 1
}
note() { echo "$*" >> "$state"; }
noted() { sed -n "s/^$1 //p" "$state"; }
rules() { ipfw -S list | sed 's/^# DISABLED //'; }
shown() { ! kldstat -q -m dummynet || ipfw pipe show "$@"; }
freebsd() {
    [ "$(uname -s)" = FreeBSD ] || fail "Dummynet is part of FreeBSD, and the router runs $(uname -s)"
    [ "$(id -u)" = 0 ] || fail "root is needed on the router, and this is $(id -un)" \
        "log in as root, or end the command of --on with sudo"
    command -v ipfw >/dev/null || fail "the router has no ipfw"
}
applying() {
    set -- $(noted process)
    ! grep -qx complete "$state" && [ $# = 2 ] && [ "$(ps -o comm= -p "$1")" = "$2" ]
}
busy() { fail "another session is setting up a link on this router (process $(noted process))"; }
try() { "$@" >/dev/null || left="$left${left:+, }$*"; }
used() {
    case $1 in
    dummynet) [ -n "$(shown; ipfw queue show)" ] ;;
    ipfw) kldstat -q -m dummynet || rules | grep -qv '^65535 ' ;;
    esac
}
undo() {
    trap '' HUP INT PIPE TERM
    left=
    if kldstat -q -m ipfw; then
        for each in $(noted set); do
            ! rules | grep -q "^[0-9]* set $each " || try ipfw -q delete set "$each"
        done
        for each in $(noted pipe); do
            [ -z "$(shown "$each")" ] || try ipfw pipe delete "$each"
        done
    fi
    for each in $(noted sysctl); do
        ! sysctl -n "${each%%=*}" >/dev/null 2>&1 || try sysctl "$each"
    done
    for each in dummynet ipfw; do
        if noted module | grep -qx $each && kldstat -q -m $each; then
            if used $each; then
                echo "netem: $each stays loaded: it is in use" >&2 || :
            else
                try kldunload $each
            fi
        fi
    done
    environment
    [ -z "$left" ] || fail "this could not be undone: $left" "undo again when the reason is removed"
    rm "$state"
}
environment() {
    for each in $(noted kenv); do
        case $each in
        *=*) try kenv "$each" ;;
        *) ! kenv -q "$each" >/dev/null || try kenv -u "$each" ;;
        esac
    done
}"""

_APPLY = r"""
unfinished() {
    [ -e "$state" ] || return 0
    ! grep -qx complete "$state" || fail "a link is applied already: undo it first" \
        "netem dummynet undo"
    ! applying || busy
    echo "netem: an interrupted apply was undone first" >&2
    undo
}
clock() {
    hz=$(sysctl -n kern.hz)
    [ "$hz" -ge 1000 ] || fail \
        "the router's clock has $hz Hz, with which delays would be up to $((2000 / hz)) ms too short" \
        'put kern.hz="1000" into /boot/loader.conf and restart the router'
}
clusters() {
    have=$(sysctl -n kern.ipc.nmbclusters)
    [ "$have" -ge "$1" ] || fail "the link holds up to $1 packets, and the router has only $have mbuf clusters" \
        "raise kern.ipc.nmbclusters to more than $1, or give a smaller --queue"
}
newer() {
    release=$(uname -r)
    minor=${release#*.}
    [ $((${release%%.*} * 100 + ${minor%%[!0-9]*})) -ge 1301 ] ||
        fail "FreeBSD $release keeps no rate above OLD_LARGEST_RATE bit/s" "FreeBSD 13.1 and later do"
}
free() {
    kldstat -q -m ipfw || return 0
    [ "$(sysctl -n "$4")" = 1 ] || fail "ipfw is switched off ($4), so no packet would reach the link" \
        "sysctl $4=1, once its rules let your session in"
    ! rules | grep -q "^[0-9]* set $1 " ||
        fail "rule set $1 of ipfw has rules that are not netem's" "ipfw -S list shows them"
    for each in $2; do
        ! rules | grep -q "^0*$each " ||
            fail "ipfw has a rule $each that is not netem's" "--rule takes another number"
    done
    for each in $3; do
        [ -z "$(shown "$each")" ] ||
            fail "ipfw has a pipe $each that is not netem's" "--pipe takes another number"
    done
    if rules | grep -qv '^65535 .*allow'; then
        echo "netem: the router has a firewall: its rules must let the link's packets out, and those after" \
            "rule ${2##* } no longer see them come in (net.inet.ip.fw.one_pass)" >&2
    fi
}
begin() {
    [ ! -e "$state" ] || busy
    set -C
    echo "process $$ $(ps -o comm= -p $$)" > "$state"
    set +C
    trap 'code=$?; trap - EXIT; [ $code = 0 ] || undo; exit $code' EXIT
    trap 'fail "a signal ended the session"' HUP INT PIPE TERM
}
module() {
    kldstat -q -m "$1" || { note "module $1"; kldload "$1"; }
}
firewall() {
    ! kldstat -q -m ipfw || return 0
    accept=net.inet.ip.fw.default_to_accept
    if old=$(kenv -q $accept); then note "kenv $accept=$old"; else note "kenv $accept"; fi
    kenv $accept=1 >/dev/null
    module ipfw
    ipfw -q add ALLOW_RULE set SET allow ip from any to any
    environment
    [ -z "$left" ] || fail "this could not be undone: $left"
}
setting() {
    old=$(sysctl -n "$1")
    [ "$old" != "$2" ] || return 0
    note "sysctl $1=$old"
    sysctl "$1=$2" >/dev/null
}
limit() {
    [ "$(sysctl -n "$1")" -ge "$2" ] || setting "$1" "$2"
}
same() {
    [ "$2" = same ] || fail "FreeBSD did not make pipe $1 as requested: $2"
}
enabled() {
    ! ipfw -S list | grep -q "^# DISABLED [0-9]* set $1 " ||
        fail "rule set $1 of ipfw is disabled, so no packet would reach the link" "ipfw set enable $1"
}"""


def apply_script(router: Router, profile: Profile, state: str = STATE) -> str:
    """Return the POSIX shell script that root runs on the router. Raises ProfileError.

    It ends with 0, or with another code and error lines that begin with ERROR and HINT. Other lines on stderr are
    notes.
    """
    both = pipes(router, profile)
    checks = ["freebsd", "unfinished", "clock"]
    if profile.rate_bits is not None:
        checks.append(f"clusters {most_packets(profile)}")
        if profile.rate_bits > OLD_LARGEST_RATE:
            checks.append("newer")
    numbers = [_joined(router.rules), _joined(router.pipes)]
    checks.append(shlex.join(["free", str(SET), *numbers, firewall_switch(router)]))
    changes = ["begin", f"note set {SET}", *(f"note pipe {number}" for number in router.pipes)]
    changes += ["firewall", "module dummynet"]
    changes += [f"limit {name} {value}" for name, value in limits(profile).items()]
    changes += [f"setting {name} {value}" for name, value in settings(router).items()]
    changes += [shlex.join(pipe.config()) for pipe in both]
    changes += [f'same {pipe.number} "$({readback.command(pipe)})"' for pipe in both]
    changes += [shlex.join(command) for command in rule_commands(router)]
    changes += [f"enabled {SET}", "note complete"]
    functions = (
        _APPLY.replace("OLD_LARGEST_RATE", str(OLD_LARGEST_RATE))
        .replace("ALLOW_RULE", str(ALLOW_RULE))
        .replace("set SET", f"set {SET}")
    )
    heading = [f"# Link by Dummynet: {profile}.", *(f"# {note}" for note in notes(profile))]
    return _script(heading, state, [functions, f"readback='{readback.PROGRAM}'"], [*checks, *changes])


def undo_script(state: str = STATE, *, missing_ok: bool = False) -> str:
    """Return the script that removes the link and restores the old settings, by the state file.

    Where no link is applied it ends with 1 and an error message, or with 0 if `missing_ok`.
    """
    missing = "exit 0" if missing_ok else 'fail "no link is applied on this router: there is no $state"'
    steps = ["freebsd", f'[ -e "$state" ] || {missing}', "! applying || busy", "undo"]
    return _script(["# Removes netem's Dummynet link."], state, [], steps)


def _script(heading: Iterable[str], state: str, functions: Iterable[str], steps: Sequence[str]) -> str:
    """Return a script whose steps are in a function: the shell has read all of it before the first step runs, and
    no command has it as input."""
    main = "\n".join(["main() {", *(f"    {step}" for step in steps), "}", "main </dev/null"])
    parts = ["#!/bin/sh", *heading, "set -e", f"state={shlex.quote(state)}{_COMMON}", *functions, main]
    return "\n".join(parts) + "\n"


def _joined(numbers: Iterable[int]) -> str:
    return " ".join(str(number) for number in numbers)
