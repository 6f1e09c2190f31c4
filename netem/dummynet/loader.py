"""Loader tunables with which a FreeBSD router starts ready for Dummynet.

sysrc(8) refuses names with dots ("contains characters not allowed in shell"), so the lines of loader.conf(5) are
edited by awk.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

#: The loader's configuration file. Its settings take effect at the next start of the machine.
LOADER_CONF = "/boot/loader.conf"
#: Names and values. A clock of 1000 Hz makes delays accurate to 1 ms (a virtual machine's default is 100 Hz), and
#: a firewall that accepts by default does not lock anybody out when it is loaded.
TUNABLES = {
    "kern.hz": "1000",
    "net.inet.ip.fw.default_to_accept": "1",
    "ipfw_load": "YES",
    "dummynet_load": "YES",
}

# Every line that sets one of the names gets the wanted value, because the last of several lines counts; names
# that no line sets are appended. awk ends a last line that has no newline, before it appends.
_EDIT = r"""
BEGIN {
    count = split(wanted, pairs, " ")
    for (i = 1; i <= count; i++) {
        name[i] = substr(pairs[i], 1, index(pairs[i], "=") - 1)
        value[i] = "\"" substr(pairs[i], index(pairs[i], "=") + 1) "\""
    }
}
{
    line = $0
    text = $0
    sub(/^[ \t]+/, "", text)
    for (i = 1; i <= count; i++) {
        rest = substr(text, length(name[i]) + 1)
        if (index(text, name[i]) != 1 || rest !~ /^[ \t]*=/) continue
        sub(/^[ \t]*=[ \t]*/, "", rest)
        if (rest !~ "^" value[i] "[ \t]*(#.*)?$") line = name[i] "=" value[i]
        found[i] = 1
    }
    print line
}
END { for (i = 1; i <= count; i++) if (!found[i]) print name[i] "=" value[i] }
"""


def loader_script(file: str = LOADER_CONF, tunables: Mapping[str, str] = TUNABLES) -> str:
    """Return the POSIX shell script that sets `tunables` in `file` for the next start; root runs it on the router.

    Other lines are kept. It may be run again, and writes only when something has to change. A crash leaves either
    the old file or the new one.
    """
    wanted = " ".join(f"{name}={value}" for name, value in tunables.items())
    return f"""\
#!/bin/sh
# Sets the loader tunables that Dummynet needs; they take effect at the next start.
set -e
file={shlex.quote(file)}
[ -e "$file" ] || : > "$file"
cp -p "$file" "$file.netem"
awk -v wanted={shlex.quote(wanted)} '{_EDIT}' "$file" > "$file.netem"
if cmp -s "$file" "$file.netem"; then rm "$file.netem"; else mv "$file.netem" "$file"; fi
"""
