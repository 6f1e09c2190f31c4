"""The checks before a guest moves: what both hosts are asked, and what their answers mean."""
