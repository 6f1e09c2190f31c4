"""report: make one page with figures from results."""

from __future__ import annotations

from pathlib import Path

import click

from lab.errors import MissingError
from lab.report import data
from lab.verbs.common import progress


@click.command()
@click.argument("folders", metavar="RESULTS...", nargs=-1, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where it goes (default: `report` in the first folder).",
)
@click.option("--title", default="Moving a guest, near and far", show_default=True, help="Of the page.")
def report(folders: tuple[Path, ...], output: Path | None, title: str) -> None:
    """Make one page of figures from the results in RESULTS.

    RESULTS are folders (default: results/quick). Each figure also becomes an SVG, a PNG and a CSV file. Only the
    result files are read, and no figure is edited by hand.
    """
    try:
        from lab.report import page  # late: no other verb needs matplotlib
    except ImportError as error:
        raise MissingError(f"{error.name} is not installed", hint="pip install 'xenplugin[lab]'") from None
    chosen = list(folders) or [Path("results/quick")]
    sets = data.load(chosen)
    with progress() as say:
        written = page.write(output or chosen[0] / "report", sets, title)
        say(f"{written[0]}, and {len(written) - 1} files of its figures")
