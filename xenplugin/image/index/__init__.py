"""Digests of images, and what of an image the far side has."""
