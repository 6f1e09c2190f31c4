"""Reassemble TCP streams from captured segments, within bounded memory."""
