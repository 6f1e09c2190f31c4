"""`python -m netem.emulator`: join two existing namespaces by TUN devices called `wan`. Needs root."""

from __future__ import annotations

import argparse
import sys

from netem.emulator.loop import Emulator
from netem.errors import NetemError, report
from netem.profile import Profile


def main() -> int:
    """Run the emulator until it is stopped; return the exit code."""
    parser = argparse.ArgumentParser(prog="netem.emulator", description=__doc__)
    parser.add_argument("--ns-a", required=True, help="namespace of side a")
    parser.add_argument("--ns-b", required=True, help="namespace of side b")
    for name, text in Profile().texts().items():
        parser.add_argument(f"--{name}", default=text)
    parser.add_argument("--control", action="store_true", help="JSON commands on stdin; its end ends the emulator")
    parser.add_argument("--status", metavar="FILE", help="write statistics as JSON at SIGUSR1 and at the end")
    words = vars(parser.parse_args())
    ns_a, ns_b = words.pop("ns_a"), words.pop("ns_b")
    control, status = words.pop("control"), words.pop("status")
    try:
        Emulator(ns_a, ns_b, Profile.parse(**words)).run(control=control, status=status)
    except NetemError as error:
        report(error.message, error.hint)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
