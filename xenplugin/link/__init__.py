"""Connections between two hosts: opening, sharing, pacing and repairing them."""
