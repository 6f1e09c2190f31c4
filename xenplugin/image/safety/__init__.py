"""Checks that refuse a disk: in use, shared by both hosts, not a raw image."""
