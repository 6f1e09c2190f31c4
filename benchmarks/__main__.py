"""python -m benchmarks [NAME ...] [--repeat N] [--paper-repeat N]

Runs the benchmarks (all, or those named), prints the targets and what was measured, and writes every run to
benchmarks/results/NAME.json. `links`, `unlimited`, `estimates` and `checks` need root.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import checks, difference, estimates, formats, links, loopback, memory
from benchmarks.setting import Setting
from lab.errors import LabError
from lab.measure import ballast, images
from lab.measure.benchmark import NEEDED, execute
from netem.errors import NetemError

RESULTS = Path(__file__).resolve().parent / "results"
BENCHMARKS = {
    "loopback": loopback.benchmark,
    "links": links.limited,
    "unlimited": links.unlimited,
    "difference": difference.benchmark,
    "formats": formats.benchmark,
    "memory": memory.benchmark,
    "estimates": estimates.benchmark,
    "checks": checks.benchmark,
}


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=", ".join(BENCHMARKS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--paper-repeat", type=int, help="repetitions of the paper's way (a minute each)")
    parser.add_argument("--size", type=int, default=4096, help="of the image, MiB (the targets need 4096)")
    parser.add_argument("--data", type=int, default=1000, help="of files in the image, MB (the targets need 1000)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for NAME.json")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    table = Table(title="what was asked, what was reached", title_justify="left")
    for name, justify in (("figure", "left"), ("measured", "right"), ("asked", "left"), ("", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    try:
        with ballast.held(NEEDED):
            image = images.obtain(options.size << 20, options.data * 10**6, print)
            for name in options.names or BENCHMARKS:
                print(name, flush=True)
                with ExitStack() as stack:
                    folder = stack.enter_context(tempfile.TemporaryDirectory(dir=images.cache()))
                    setting = Setting(image, Path(folder), stack, options.paper_repeat or options.repeat)
                    for each in execute(BENCHMARKS[name](setting), options.repeat, options.results, _print):
                        mark = "[green]reached" if each.reached else "[red]missed"
                        table.add_row(each.figure, f"{each.value:g}", each.asked, mark)
    except (LabError, NetemError) as error:
        print(f"benchmarks: error: {error.message}" + (f" ({error.hint})" if error.hint else ""), file=sys.stderr)
        return 1
    Console(highlight=False, width=None if sys.stdout.isatty() else 110).print(table)
    return 0


def _print(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
