"""`python -m netem.relay --listen PORT --to HOST:PORT --rtt 120ms --rate 200mbit`: a long link for TCP on
loopback.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from netem.errors import NetemError, ProfileError
from netem.profile import Profile
from netem.relay import Target, check
from netem.relay.engine import Engine


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="netem.relay", description=__doc__)
    parser.add_argument("--listen", metavar="PORT", type=int, help="port of 127.0.0.1 to listen on, with --to")
    parser.add_argument("--to", metavar="HOST:PORT", help="where connections to --listen go")
    parser.add_argument("--map", metavar="LISTEN:HOST:PORT", action="append", default=[], help="may be repeated")
    for name in ("rtt", "rate", "queue"):
        parser.add_argument(f"--{name}", default=Profile().texts()[name])
    parser.add_argument("--loss", default="0", help=argparse.SUPPRESS)
    parser.add_argument("--jitter", default="0", help=argparse.SUPPRESS)
    parser.add_argument("--seed", default="1", help=argparse.SUPPRESS)
    parser.add_argument("--control", action="store_true", help="JSON commands on stdin; its end ends the relay")
    words = parser.parse_args(arguments)
    if (words.listen is None) != (words.to is None):
        parser.error("--listen and --to go together")
    maps = words.map + ([] if words.to is None else [f"{words.listen}:{words.to}"])
    if not maps and not words.control:
        parser.error("nothing to relay: give --listen and --to, or --map")
    try:
        profile = Profile.parse(words.rtt, words.rate, words.jitter, words.loss, words.queue, words.seed)
        engine = Engine(check(profile))
        for target in [parse_target(text) for text in maps]:
            port = engine.listen(*target)
            if not words.control:
                print(f"127.0.0.1:{port} -> {target[1]}:{target[2]} ({profile})", file=sys.stderr)
        engine.run(control=words.control)
    except NetemError as error:
        print(f"netem: error: {error}", file=sys.stderr)
        return error.code
    return 0


def parse_target(text: str) -> Target:
    """`2222:127.0.0.1:22` or `2222:[::1]:22`. Raises ProfileError."""
    listen, _, rest = text.partition(":")
    host, _, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (listen.isdecimal() and port.isdecimal() and host):
        raise ProfileError(f"{text!r} is no LISTEN:HOST:PORT", hint="write it like 2222:127.0.0.1:22")
    if int(listen) > 65535 or not 0 < int(port) <= 65535:
        raise ProfileError(f"{text!r}: ports go up to 65535")
    return int(listen), host, int(port)


if __name__ == "__main__":
    sys.exit(main())
