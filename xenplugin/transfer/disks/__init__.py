"""Disks from here to there, also while a guest writes to them, and from there to here."""
