"""The project's claims about speed, and how they are measured: `python -m benchmarks --help`."""
