"""Events of the work, as frozen values. The engine emits them, user interfaces subscribe; neither knows the other.

`to_json` returns the public form: one object with the key `event` and the fields below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias, get_args

from xenplugin import results


@dataclass(frozen=True)
class Started:
    """`verb` began. `image` and `target` are as the user wrote them ("": nothing is written), `bytes_image` is the
    virtual size; `domain` is the guest's name if a guest moves."""

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
    """The connections for the data are open. `rtt` is in seconds; `streams` is the number of TCP connections (0:
    the data goes over the control channel)."""

    address: str
    rtt: float
    streams: int
    congestion: str


@dataclass(frozen=True)
class Progress:
    """`bytes_done` of `bytes_total` bytes (without holes) are done; `bytes_wire` were sent; `level` is the present
    zstd level (-99: stored); `seconds` are those since the start of the transfer. `what` is "" for a disk,
    otherwise what is moved. Of a guest's "memory" more may be done than its size, because pages that change are
    sent again."""

    bytes_done: int
    bytes_total: int
    bytes_data: int
    bytes_wire: int
    level: int
    seconds: float
    what: str = ""


@dataclass(frozen=True)
class Estimated:
    """What the copy or the move is expected to take."""

    estimate: results.Estimate


@dataclass(frozen=True)
class Notice:
    """A message for the administrator; the work continues."""

    text: str


@dataclass(frozen=True)
class Far:
    """A line that the far side (or ssh) wrote to its standard error."""

    text: str


@dataclass(frozen=True)
class Xl:
    """A line that xl, which this program runs or is run by, wrote to its standard error."""

    text: str


@dataclass(frozen=True)
class Checked:
    """A check before a migration that did not pass: its `verdict` is "warn" or "refuse" (results.CheckResult)."""

    name: str
    verdict: str
    text: str
    hint: str


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


Event: TypeAlias = Started | Phase | Linked | Estimated | Progress | Notice | Far | Xl | Checked | Failed | Finished
Emit: TypeAlias = Callable[[Event], None]


_KINDS: dict[str, type[Event]] = {kind.__name__.lower(): kind for kind in get_args(Event)}


def to_json(event: Event) -> dict[str, Any]:
    """Return the event as a JSON object: {"event": "progress", ...}."""
    if isinstance(event, Finished):
        values = {"result": event.result.as_json()}
    elif isinstance(event, Estimated):
        values = {"estimate": event.estimate.as_json()}
    else:
        values = asdict(event)
    return {"event": type(event).__name__.lower(), **values}


def from_json(values: dict[str, Any]) -> Event | None:
    """Return the event in `values`, the inverse of `to_json`; unknown keys are ignored. An unknown event is None,
    and so is an estimate: the process that shows it has made it."""
    kind = _KINDS.get(str(values.get("event")))
    if kind is None or kind is Estimated:
        return None
    if kind is Finished:
        return Finished(results.from_json(values["result"]))
    known = {field.name for field in fields(kind)}
    return kind(**{key: value for key, value in values.items() if key in known})
