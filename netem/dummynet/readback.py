"""Compares a pipe as `ipfw pipe show` prints it with the pipe that was requested. Pure.

The comparison is an awk program, because the router runs it before the link is used: a printed script checks
itself, and a pipe that differs is removed in the same session. `ipfw pipe show` prints [sbin/ipfw/dummynet.c]

    02701: 100.000 Mbit/s   60 ms burst 0
    q133773 1465 KBplr 0.001000 0 flows (1 buckets) sched 68237 weight 0 lmax 0 pri 0 droptail
     sched 68237 type FIFO flags 0x0 0 buckets 0 active

with `unlimited` in place of a rate, queues below 8 KiB as `2048 B`, queues in slots as ` 50 sl.`, and no `plr`
where nothing is lost. Rates have three decimals of their unit (Gbit/s only since FreeBSD 13), losses six.
"""

from __future__ import annotations

import shlex

from netem.dummynet.pipes import Pipe

#: Reads `ipfw pipe show N` and prints how it differs from the variables number, bandwidth (bit/s, 0: unlimited),
#: delay (ms), queue (bytes) and loss (share), or `same`.
PROGRAM = r"""
function differs(what, shown, wanted) {
    found = found (found == "" ? "" : ", ") what " is " shown " instead of " wanted
}
{ label = $1; sub(/^0+/, "", label) }
label == number ":" {
    seen = 1
    time = $3
    wanted = bandwidth + 0 ? bandwidth " bit/s" : "unlimited"
    if ($2 == "unlimited") {
        if (bandwidth + 0) differs("bandwidth", $2, wanted)
    } else {
        time = $4
        scale = $3 == "Gbit/s" ? 1e9 : $3 == "Mbit/s" ? 1e6 : $3 == "Kbit/s" ? 1e3 : 1
        error = $2 * scale - bandwidth
        if (!(bandwidth + 0) || error > 0.000501 * scale || error < -0.000501 * scale)
            differs("bandwidth", $2 " " $3, wanted)
    }
    if (time != delay) differs("delay", time " ms", delay " ms")
}
seen && !full && $1 ~ /^q[0-9]+$/ {
    full = 1
    sub(/plr/, " plr ")
    size = $3 == "KB" ? int(queue / 1024) : $3 == "B" ? queue + 0 : -1
    if ($2 + 0 != size) differs("queue", $2 " " $3, queue " B")
    shown = $4 == "plr" ? $5 : 0
    error = shown - loss
    if (error > 0.00000051 || error < -0.00000051) differs("plr", shown, loss)
}
END {
    if (!seen || !full) found = "it is missing"
    print (found == "" ? "same" : found)
}
"""


def variables(pipe: Pipe) -> list[str]:
    """Return the variables of PROGRAM for `pipe`, as `name=value`."""
    values = {
        "number": pipe.number,
        "bandwidth": pipe.rate_bits or 0,
        "delay": pipe.delay,
        "queue": pipe.queue * 1024,
        "loss": format(pipe.loss, ".9f"),
    }
    return [f"{name}={value}" for name, value in values.items()]


def command(pipe: Pipe) -> str:
    """Return the shell pipeline that prints what PROGRAM prints; the shell's variable $readback holds PROGRAM."""
    options = " ".join(f"-v {shlex.quote(text)}" for text in variables(pipe))
    return f'ipfw pipe show {pipe.number} | awk {options} "$readback"'
