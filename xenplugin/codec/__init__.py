"""Compression, its level, and encryption."""
