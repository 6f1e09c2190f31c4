"""A far side for a domain's stream that is no Xen host: writes what comes to the file that the details name.

Started as the whole command of HOST, it answers b"ready", echoes notes, and answers the number of bytes when the
stream has ended. `details`: {"path", "fail": bytes after which it fails, "early": bytes after which it sends its
receipt, "slow": bytes after which it waits for a file of that path + ".go", "late": it waits for that file before
its receipt}.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from xenplugin.config import Config
from xenplugin.errors import RefusedError, XenpluginError
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.link.ready_line import RECEIVE, ready_line
from xenplugin.transfer.sessions.destination_session import read_job
from xenplugin.transfer.streams.receive_stream import StreamReceiver


def main(ports: str) -> int:
    source, sink = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    random = os.urandom(32)
    channel = PipeEndpoint(source, sink)
    channel.send(ready_line(RECEIVE, random=random.hex()))
    job = replace(read_job(channel), local=True)  # listen on loopback only
    pipe = StreamReceiver(channel, random, Config(ports=ports), job)
    pipe.on_note = pipe.note
    path = Path(job.details["path"])
    try:
        pipe.open()
        pipe.answer(b"ready")
        with open(path, "wb") as file:
            for data in pipe.read():
                file.write(data)
                file.flush()
                if "fail" in job.details and file.tell() >= job.details["fail"]:
                    raise RefusedError("no more of this")
                if "early" in job.details and file.tell() >= job.details["early"]:
                    pipe.done()
                    return 0
                if "slow" in job.details and file.tell() >= job.details["slow"]:
                    while not path.with_suffix(".go").exists():
                        time.sleep(0.02)
            pipe.answer(str(file.tell()).encode())
        while "late" in job.details and not path.with_suffix(".go").exists():
            time.sleep(0.02)
        pipe.done()
        return 0
    except XenpluginError as error:
        pipe.fail(error)
        return error.code
    finally:
        pipe.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
