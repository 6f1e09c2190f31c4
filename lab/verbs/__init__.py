"""The verbs of `xenlab`, a module for each few that belong together; lab.cli has the list."""
