"""Moves a Xen domain's disks and memory: sealed end to end, compressed, differential, resumable."""

__version__ = "0.1.0"
