"""python -m demo: build the image, make the two hosts, run each way, show what came of it.

Exit codes: 0 all ways arrived whole and secret, 1 one did not, 2 the demo could not be run, 130 ctrl-C.
DEMO_RTT and DEMO_RATE change the link: `DEMO_RTT=20ms DEMO_RATE=1gbit make demo`. An ordinary user's demo starts
itself again inside a user namespace.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp

from rich.text import Text

from demo import DemoError, facts, page
from demo.bench import Bench, Look, Outcome
from demo.image import Image, cache, obtain
from demo.process import adopt_orphans
from demo.screen import Terminal
from demo.ways import all_ways, change, ours
from demo.wire import Proof, looker, prove
from demo.world import World, link_profile, world
from lab.errors import LabError
from netem.errors import NetemError
from netem.profile import Profile
from netem.signals import SigtermGuard, signals_wait
from netem.user_namespace import ensure_root

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run the demo; return the exit code."""
    terminal = Terminal()
    adopt_orphans()
    guard = SigtermGuard()
    guard.set()
    try:
        return _run(terminal)
    except DemoError as error:
        terminal.console.show_cursor()
        print(f"demo: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        terminal.console.show_cursor()
        print("demo: error: stopped; nothing is left behind", file=sys.stderr)
        return 130
    except (NetemError, LabError) as error:
        terminal.console.show_cursor()
        print(f"demo: error: {error}" + (f" ({error.hint})" if error.hint else ""), file=sys.stderr)
        return 2
    except OSError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 2


def _run(terminal: Terminal) -> int:
    profile = link_profile()
    ensure_root()
    terminal.title(page.link_words(profile))
    image = obtain(terminal.say)
    folder = Path(mkdtemp(prefix=f"run-{os.getpid()}-", dir=cache()))
    try:
        with world(profile) as hosts:
            terminal.facts(image, hosts)
            bench = Bench(hosts, image, folder, terminal)
            outcomes, proof = _compare(terminal, bench)
    finally:
        with signals_wait():
            shutil.rmtree(folder, ignore_errors=True)
    _show(terminal, profile, image, hosts, outcomes, proof)
    good = all(outcome.whole for outcome in outcomes if not outcome.left_out)
    secret = all(outcome.finding is None or outcome.finding.secret for outcome in outcomes)
    return 0 if good and secret and not proof.missed else 1


def _compare(terminal: Terminal, bench: Bench) -> tuple[list[Outcome], Proof]:
    look = looker(bench.image.canaries)
    outcomes = []
    for outcome, way in all_ways():
        terminal.head(outcome)
        outcomes.append(outcome)
        last = outcome.key == "xenplugin"
        if not outcome.left_out:
            bench.run(outcome, way, look=look, keep=last)
            if last:
                outcomes.append(_difference(terminal, bench, look))
    terminal.head(Outcome("plain TCP", "pieces of the image in the clear: the check must find them"))
    return outcomes, prove(bench)


def _difference(terminal: Terminal, bench: Bench, look: Look) -> Outcome:
    """Copy a changed image onto its old copy, which the last way left on host b."""
    again = Outcome("xenplugin, again", "xenplugin copy of the changed image", key="xenplugin-again", extra=True)
    terminal.head(again)
    return bench.run(again, ours, changed=change(bench), look=look)


def _show(
    terminal: Terminal,
    profile: Profile,
    image: Image,
    hosts: World,
    outcomes: list[Outcome],
    proof: Proof,
) -> None:
    terminal.table(outcomes, proof)
    for line in facts.doubts(outcomes):
        terminal.say(line, "yellow")
    report = page.write(HERE, profile, image, hosts.kind, outcomes, proof)
    for path in report:
        terminal.console.print(Text.assemble(("  wrote  ", "dim"), _short(path)))
    terminal.console.print()


def _short(path: Path) -> str:
    return os.path.relpath(path) if len(os.path.relpath(path)) < len(str(path)) else str(path)


if __name__ == "__main__":
    sys.exit(main())
