"""`python -m netem` is the command `netem`."""

import sys

from netem.cli import main

sys.exit(main())
