"""The session's secret crosses inside the control channel and is nowhere else to be seen."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.conftest import Sides
from tests.helpers.images import MIB, dense_image
from tests.helpers.program import processes_with, wait_until


def test_no_secret_in_arguments_environment_or_logs(sides: Sides, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "source.img", 4)
    tee = tmp_path / "tee"
    sides.ssh_options += ["--tee", str(tee)]
    running = sides.start(image, "-v", "--rate", "12mbit", "--streams", "2")
    running.await_sent(MIB)
    job = json.loads(tee.read_bytes().split(b"\n", 1)[0])
    secret = bytes.fromhex(job["secret"])
    assert len(secret) == 32
    spellings = [secret, secret.hex().encode(), secret.hex().upper().encode(), base64.b64encode(secret)]
    processes = wait_until(lambda: processes_with(sides.program.token), "processes")
    assert len(processes) == 4  # source, the stand-in's two halves, far side
    for pid in processes:
        for name in ("cmdline", "environ"):
            seen = Path(f"/proc/{pid}/{name}").read_bytes()
            assert seen and not any(spelling in seen for spelling in spellings), (pid, name)
    done = running.end()
    assert done.code == 0
    seen = (done.out + done.err).encode()
    for path in sides.folder.rglob("*"):
        if path.is_file() and path != tee:
            seen += path.read_bytes()
    assert not any(spelling in seen for spelling in spellings)
    # The capture has it once, in the job line: the test is able to find it.
    captured = tee.read_bytes()
    assert captured.count(spellings[1]) == 1 and secret not in captured


def test_each_session_has_a_secret_of_its_own(sides: Sides, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "source.img", 1)
    tee = tmp_path / "tee"
    sides.ssh_options += ["--tee", str(tee)]
    secrets = set()
    for _ in range(2):
        sides.copy(image, "--whole")
        job = json.loads(tee.read_bytes().split(b"\n", 1)[0])
        secrets |= {job["secret"], job["session"]}
    assert len(secrets) == 4
