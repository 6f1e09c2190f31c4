"""The program's first moments, before its verb runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.program import ROOT

#: Presses ctrl-C when cli.main is about to be imported, then runs the program.
_PRESS = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Press:
    def find_spec(self, name, *_):
        if name == "xenplugin.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Press())
sys.argv = ["xenplugin", "--version"]
"""


@pytest.mark.parametrize(
    "run",
    [
        "runpy.run_module('xenplugin', run_name='__main__')",
        f"runpy.run_path({str(ROOT / 'packaging/bin/xenplugin')!r})",
    ],
)
def test_ctrl_c_at_once_shows_no_traceback(run: str) -> None:
    done = subprocess.run([sys.executable, "-c", _PRESS + run], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-2, "", "")


def test_ctrl_c_is_heard_again_later() -> None:
    """The verbs end in order."""
    code = (
        "import runpy, signal, sys; sys.argv = ['xenplugin', '--version']\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try: runpy.run_module('xenplugin', run_name='__main__')\n"
        "except SystemExit: print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "True", done.stderr
