"""The verb that measures this host: `bench`."""

from __future__ import annotations

import json
from typing import Any

import click

from xenplugin.cli.common import Invocation, options


@click.command()
@options(progress=False)
@click.option("--image", metavar="FILE", help="Measure with the content of this image (default: generated data).")
def bench(image: str | None, **values: Any) -> None:
    """Measure what this host can do, and show which step limits a copy."""
    with Invocation(values) as verb:
        from xenplugin import bench as measure

        result = measure.run(image, verb.ui)
        if verb.json:
            print(json.dumps(result.as_json()))
        else:
            measure.show(result)
