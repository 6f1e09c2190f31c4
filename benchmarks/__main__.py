"""python -m benchmarks [NAME ...] [--repeat N] [--paper-repeat N]

Runs the benchmarks (all, or those named), prints what was asked and what was reached, and writes every run to
benchmarks/results/NAME.json. `links` and `unlimited` need root.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import ballast, difference, links, loopback, memory


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="loopback, links, unlimited, difference, memory")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--paper-repeat", type=int, help="runs of the paper's way (minutes each)")
    options = parser.parse_args()
    repeat = options.repeat
    all_of_them: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "loopback": lambda: loopback.run(repeat, options.paper_repeat or repeat),
        "links": lambda: links.limited(repeat),
        "unlimited": lambda: links.unlimited(repeat),
        "difference": lambda: difference.run(repeat),
        "memory": lambda: memory.run(repeat),
    }
    unknown = set(options.names) - set(all_of_them)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    table = Table(title="what was asked, what was reached", title_justify="left")
    for name, justify in (("figure", "left"), ("measured", "right"), ("asked", "left"), ("", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    with ballast.held():
        for name in options.names or all_of_them:
            print(name, flush=True)
            for row in all_of_them[name]():
                mark = "[green]reached" if row["reached"] else "[red]missed"
                table.add_row(row["figure"], f"{row['value']:g}", row["asked"], mark)
    Console(highlight=False, width=None if sys.stdout.isatty() else 110).print(table)


main()
