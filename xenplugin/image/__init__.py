"""Disk images: reading, writing, comparing and protecting them. Knows no network."""
