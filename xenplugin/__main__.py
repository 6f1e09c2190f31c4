"""Runs the command line for `python -m xenplugin`."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # No traceback for a ctrl-C while the rest is imported; main() undoes it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from xenplugin.cli.main import main

main()
