"""The lab: hosts to move guests between, experiments on them, and what comes out. The command is `xenlab`."""
