"""Runs the command lines of xl_lines.json, and prints what each made xl run in ssh's place, and xl's exit status:

    python3 xl_lines.py XL LINES GUEST CONFIG

XL is the real xl in a Xen host's dom0, or the fake one; GUEST runs, and CONFIG is its configuration. Programs that
only write down their words stand in ssh's place, first in PATH, so each migration breaks off before anything of the
guest is sent. Standard library only.

A line has `@ID@` for the guest's domain id, `@CFG@` for CONFIG. `runs` is null if xl started nothing; `ours` is
what the plugin does with the line for a guest with a local disk (tests/xenplugin/migrate/xl/test_xl_words.py).
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_suffix(".json")
PATIENCE = 120
PROGRAMS = ("ssh", "socat", "remote-shell", "wrong", "xenplugin")
_PROGRAM = """#!/bin/sh
printf '%s' "${{0##*/}}" >{answer}
for word do
    printf ' %s' "$word" >>{answer}
done
exit 1
"""


def words(row: dict[str, Any], guest: str, domid: str, config: str) -> list[str]:
    """The arguments of xl in a row of the table."""
    line = row["line"].replace("@ID@", domid).replace("@CFG@", config)
    return [guest if word == "g1" else word for word in shlex.split(line)]


def ask(xl: str, rows: list[dict[str, Any]], guest: str, config: str) -> list[dict[str, Any]]:
    """What xl answers to each row: `runs` and `code`."""
    domid = subprocess.run([xl, "domid", guest], check=True, capture_output=True, text=True).stdout.strip()
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer")
        for name in PROGRAMS:
            program = Path(folder, name)
            program.write_text(_PROGRAM.format(answer=shlex.quote(str(answer))))
            program.chmod(0o755)
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        for row in rows:
            answer.unlink(missing_ok=True)
            done = subprocess.run(
                [xl, *words(row, guest, domid, config)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PATIENCE,
                env=environment,
            )
            answers.append({"runs": answer.read_text() if answer.exists() else None, "code": done.returncode})
    return answers


if __name__ == "__main__":
    print(json.dumps(ask(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), *sys.argv[3:])))
