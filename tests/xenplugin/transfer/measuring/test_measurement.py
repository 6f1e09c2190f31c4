"""The near side of a measurement against far sides that are slow, silent or hostile."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xenplugin.config import Config
from xenplugin.errors import PeerError, XenpluginError
from xenplugin.link.ssh_multiplexing import PrestartedRemote
from xenplugin.transfer.measuring import measurement
from xenplugin.transfer.measuring.measurement import Measurement
from xenplugin.transfer.measuring.measurement_messages import Question
from xenplugin.transfer.measuring.rate_samples import RateSamples
from xenplugin.transfer.sessions.job import MeasuredImage

SIZE = 3 << 20
#: A far side that is changed by a line of code before it begins.
_FAR = """\
import sys, threading
from xenplugin.transfer.measuring import receive_measurement as there
from xenplugin.wire.frames import Answer, Note
Receiver = there.MeasurementReceiver
{change}
sys.argv = ["xenplugin", "receive"]
from xenplugin.cli.main import main
main()
"""
Start = Callable[..., Measurement]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a measurement of an image of which the far side has nothing."""
    made: list[Measurement] = []

    def begin(change: str = "", **settings: str) -> Measurement:
        command = [sys.executable, "-c", _FAR.format(change=change)]
        config = Config(state_dir=tmp_path / "state").with_values(settings)
        remote = PrestartedRemote(command, "far", lambda line: None, 60)
        images = [
            MeasuredImage(
                str(tmp_path / "image"), SIZE, live=False, format={"name": "raw", "options": {}}, backing={}
            )
        ]
        made.append(Measurement(None, images, config, lambda event: None, remote))
        made[-1].open()
        return made[-1]

    yield begin
    for each in made:
        each.close()


def test_an_answer_for_each_question(start: Start) -> None:
    near = start()
    for chunks in ((0, 2), (), (1,)):
        near.ask(Question(0, chunks))
    assert [[chunk.leaves for chunk in near.answer()[1]] for _ in range(3)] == [[None, None], [], [None]]
    near.end()


def test_a_far_side_that_does_not_read_is_sent_a_bounded_amount(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "PROBE_SECONDS", 1.0)
    near = start("Receiver._take = lambda *given: threading.Event().wait()", streams="2")
    near.connect()
    assert near.streams == 2
    near.probe()
    assert near.bytes_sent < measurement.PROBE_BYTES  # what two connections' kernels take
    near.ask(Question(0, (0,)))  # and it can still be asked
    assert len(near.answer()[1]) == 1


def test_what_is_sent_is_bounded_in_bytes(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "PROBE_BYTES", 4 << 20)
    monkeypatch.setattr(RateSamples, "is_steady", property(lambda self: False))
    near = start()
    near.connect()
    near.probe()
    assert near.bytes_sent < 6 << 20


def test_a_measurement_can_be_stopped(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "PROBE_SECONDS", 1e9)
    monkeypatch.setattr(RateSamples, "is_steady", property(lambda self: False))
    monkeypatch.setattr(measurement, "PROBE_BYTES", 1 << 60)
    near = start(rate="8mbit")
    near.connect()
    near.stop()
    near.probe()  # which would never end


@pytest.mark.parametrize(
    "change",
    [
        "there.pack_answer = lambda *given: bytes(3)",
        "there.pack_answer = lambda *given: bytes(4) + b'\\x07'",
        "there.pack_answer = lambda *given: bytes(9)",
        "there._about = lambda *given: type('X', (), {'fields': {'boot': 5}})",
        "there.note_text = lambda fields: '[]'",
    ],
)
def test_what_a_hostile_far_side_answers_is_a_peer_error(start: Start, change: str) -> None:
    near = start(change)
    with pytest.raises(PeerError):
        near.ask(Question(0, (0,)))
        near.answer()
        near.about()


@pytest.mark.parametrize("frame", ["Answer(bytes(5))", "Note('{}')"])
def test_what_was_not_asked_for_is_a_peer_error(start: Start, frame: str) -> None:
    near = start(
        "before = Receiver._answer_all\n"
        "def answer_all(self, session, images):\n"
        f"    session.control.send({frame})\n"
        "    before(self, session, images)\n"
        "Receiver._answer_all = answer_all"
    )
    with pytest.raises(PeerError, match="not asked for"):
        near.end()
        near.about()
        near.ask(Question(0, (0,)))
        near.answer()


def test_a_far_side_that_fails_says_why(start: Start, tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    near = start()
    with pytest.raises(XenpluginError, match="is a directory") as caught:
        near.connect()
    assert caught.value.remote
