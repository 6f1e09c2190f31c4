"""The verbs of `xenlab`. lab.cli has the list."""
