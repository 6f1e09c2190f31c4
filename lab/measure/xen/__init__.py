"""Runs on two real Xen hosts."""
