"""Showing events to people and to other programs."""
