"""Runs the command line for `python -m xenplugin`."""

from xenplugin.cli.main import main

main()
