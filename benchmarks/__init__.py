"""What the project claims about speed, and the runs it rests on: `python -m benchmarks --help`."""
