"""A pull's request: what the destination asks of the source, which it has started (docs/wire-format.md, section 4).

It is part of the destination's ready line, because a command line would pass through the far host's shell.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from xenplugin.errors import Interrupted, LinkError, PeerError
from xenplugin.image.formats.kinds import KEPT, RAW
from xenplugin.image.path_text import canonical
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.link.rate import Pacer
from xenplugin.link.ready_line import RECEIVE, SEND, parse, ready_line
from xenplugin.transfer.sessions.destination_session import read_line

#: Settings that the source uses, and that the destination's user may give as options.
OPTIONS = ("rate", "level", "cipher", "streams", "congestion", "address", "whole", "backing")
_NAME = "the destination"
_GONE = "the destination went away"


@dataclass(frozen=True)
class Request:
    """The image at `path` is wanted; `format`: how it is stored (QEMU's name), "" to find out. `target`: the file
    that it goes to, for messages. `options`: settings by name, as the user wrote them."""

    path: str
    target: str
    format: str = ""
    options: Mapping[str, str | bool] = field(default_factory=dict)

    def ready_line(self, random: bytes) -> bytes:
        """Return the destination's ready line with this request; `random` is its share of the keys."""
        return ready_line(RECEIVE, random=random.hex(), request=asdict(self))

    @classmethod
    def parse(cls, values: object) -> Request:
        """Return the request in `values`, of a ready line. Raises PeerError."""
        try:
            request = cls(**values)  # type: ignore[arg-type]
            request = replace(request, path=canonical(request.path), target=canonical(request.target))
            valid = (
                request.format in ("", RAW, *KEPT)
                and type(request.options) is dict
                and set(request.options) <= set(OPTIONS)
                and all(type(value) in (str, bool) for value in request.options.values())
            )
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise PeerError("the request cannot be read")
        return request


class Requester:
    """The process that started this one over the descriptors `source` and `sink`, and asks it for an image. As a
    link.remote.Remote it is ready from the beginning. Raises PeerError, LinkError."""

    def __init__(self, source: int, sink: int) -> None:
        self.name = _NAME
        self._descriptors = source, sink
        channel = PipeEndpoint(source, sink)
        channel.send(ready_line(SEND))
        line = read_line(channel, "the request")
        if line is None:
            raise LinkError(_GONE)
        fields = parse(line, RECEIVE, _NAME)
        self.random: bytes = fields["random"]
        self.request = Request.parse(fields.get("request"))
        self._closed = False

    def take(self) -> Requester:
        """Return this. Raises Interrupted after `close`."""
        if self._closed:
            raise Interrupted("interrupted")
        return self

    def close(self) -> None:
        """Note that it is not wanted any more: the channel ends with this process."""
        self._closed = True

    def address(self, ssh: str) -> str | None:
        """Return the address from which ssh has reached this host, None if that is not known."""
        return os.environ.get("SSH_CONNECTION", "").split(" ")[0] or None

    def channel(self, pacer: Pacer | None) -> PipeEndpoint:
        """Return the control channel. The caller closes it."""
        return PipeEndpoint(*self._descriptors, b"", pacer)

    def failure(self) -> LinkError:
        """Return why the channel ended."""
        return LinkError(_GONE)

    def end(self, patience: float) -> None:
        """Do nothing: it ends by itself when the channel is closed."""
