"""`python -m lab` is the command `xenlab`."""

import sys

from lab.cli import main

sys.exit(main())
