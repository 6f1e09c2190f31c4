"""`python -m xenplugin`."""

from xenplugin.cli import main

main()
