"""What happens, as frozen values. The engine emits, user interfaces subscribe; neither knows the other.

`to_json` gives the public form: one object with the key `event` and the fields below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias, get_args

from xenplugin import results


@dataclass(frozen=True)
class Started:
    """`verb` began; `image` and `target` as the user wrote them, `bytes_image` the virtual size; `domain` is the
    guest's name where one moves."""

    verb: str
    image: str
    target: str
    bytes_image: int
    domain: str | None = None


@dataclass(frozen=True)
class Phase:
    """A phase of the work begins. Of a copy or a guest: one of results.PhaseName; of bench: what is measured."""

    name: str


@dataclass(frozen=True)
class Linked:
    """The data's way is settled. `rtt` seconds; `streams` TCP connections (0: the control channel)."""

    address: str
    rtt: float
    streams: int
    congestion: str


@dataclass(frozen=True)
class Progress:
    """`bytes_done` of `bytes_total` bytes (holes do not count) are dealt with; `bytes_wire` were sent; `level` is
    zstd's at this moment (-99: stored); `seconds` since the start of the transfer. `what`: "" of a disk, else what
    is moved; of a guest's "memory" more may be done than there is, for what it changes is sent again."""

    bytes_done: int
    bytes_total: int
    bytes_data: int
    bytes_wire: int
    level: int
    seconds: float
    what: str = ""


@dataclass(frozen=True)
class Notice:
    """Something the administrator should know; the work goes on."""

    text: str


@dataclass(frozen=True)
class Far:
    """A line the far side (or ssh) wrote to its standard error."""

    text: str


@dataclass(frozen=True)
class Xl:
    """A line that xl, which this program runs or is run by, wrote to its standard error."""

    text: str


@dataclass(frozen=True)
class Failed:
    """The verb failed; `code` is the exit code."""

    code: int
    error: str
    hint: str | None


@dataclass(frozen=True)
class Finished:
    """The verb is done."""

    result: results.Result


Event: TypeAlias = Started | Phase | Linked | Progress | Notice | Far | Xl | Failed | Finished
Emit: TypeAlias = Callable[[Event], None]


_KINDS: dict[str, type[Event]] = {kind.__name__.lower(): kind for kind in get_args(Event)}


def to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object: {"event": "progress", ...}."""
    values = {"result": event.result.as_json()} if isinstance(event, Finished) else asdict(event)
    return {"event": type(event).__name__.lower(), **values}


def from_json(values: dict[str, Any]) -> Event | None:
    """The event that `to_json` made `values` of, which may have more keys. None for a kind that is not known."""
    kind = _KINDS.get(str(values.get("event")))
    if kind is None:
        return None
    if kind is Finished:
        return Finished(results.from_json(values["result"]))
    known = {field.name for field in fields(kind)}
    return kind(**{key: value for key, value in values.items() if key in known})
