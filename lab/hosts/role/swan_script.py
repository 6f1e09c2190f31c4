"""Makes the shell scripts that start and stop strongSwan on a host, the same for every provider. Pure.

The guard that stops packets in the clear is installed first. Then an old charon is ended, the files are written,
charon is started, and the connection is loaded. With `esp` "transport" (ESP by the kernel) Debian's own unit is
disabled, because it would start charon again with another configuration. In a namespace ("tunnel") there are no
units, and charon reads its own file. The scripts can be repeated.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from lab.hosts.role import swan

#: Exit code of a script on a host without strongSwan.
NO_STRONGSWAN = 77

_NEED = f"[ -x {swan.CHARON} ] && command -v swanctl >/dev/null || exit {NO_STRONGSWAN}"
_UNIT_OFF = """\
if [ -e /lib/systemd/system/strongswan-starter.service ]; then
    systemctl disable -q --now strongswan-starter 2>/dev/null || :
fi"""
# A process is ours if it runs charon's program in this network namespace; its pid alone may be another's by now.
_STOP = f"""\
ours() {{
    [ "$(readlink /proc/$1/exe)" = {swan.CHARON} ] &&
        [ "$(readlink /proc/$1/ns/net)" = "$(readlink /proc/$$/ns/net)" ]
}}
if pid=$(cat /run/charon.pid 2>/dev/null) && ours $pid; then
    kill $pid
    for i in $(seq 300); do ours $pid || break; sleep 0.1; done
    ! ours $pid || kill -9 $pid
fi
rm -f /run/charon.pid /run/charon.vici {" ".join(swan.FILES)}
# remove what a killed charon left in the kernel, but not the guard, whose action is block
ip xfrm policy deleteall action allow 2>/dev/null || :
ip xfrm state flush 2>/dev/null || :"""
_START = f"""\
setsid {swan.CHARON} </dev/null >{swan.LOG} 2>&1 &
pid=$!
for i in $(seq 300); do
    [ ! -S /run/charon.vici ] || break
    kill -0 $pid 2>/dev/null || {{ tail -n 5 {swan.LOG} >&2; exit 1; }}
    sleep 0.2
done
swanctl --load-all --noprompt --file {swan.CONNECTION} || exit"""


def on(esp: str, guard: Sequence[str], files: Mapping[str, tuple[bytes, int]]) -> str:
    """Return the script that starts charon and loads the connection. `guard`: arguments of `ip` (swan.guard);
    `files`: path -> content and mode."""
    parts = [_NEED, f"ip {shlex.join(guard)} || exit"]
    parts += [_UNIT_OFF, _STOP] if esp == "transport" else [_STOP, f"export STRONGSWAN_CONF={swan.DAEMON}"]
    for folder in sorted({path.rpartition("/")[0] for path in swan.FILES}):
        parts.append(f"mkdir -p {folder}")
    for path, (content, mode) in files.items():
        parts.append(f"(umask 077 && cat >{path}) <<'XENLAB' && chmod {mode:o} {path} || exit")
        parts.append(f"{content.decode().rstrip()}\nXENLAB")
    return "\n".join([*parts, _START])


def off(esp: str, plain: Sequence[str] = ()) -> str:
    """Return the script that ends IPsec, if there is any, and then lets packets pass in the clear; in a namespace
    by `ip` with the arguments `plain` (swan.plain_route)."""
    if esp == "transport":
        return f"{_UNIT_OFF}\n{_STOP}\nip xfrm policy flush"
    return f"{_STOP}\nip {shlex.join(plain)}"
