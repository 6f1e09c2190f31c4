"""`python -m xenplugin`."""

from xenplugin.cli.main import main

main()
