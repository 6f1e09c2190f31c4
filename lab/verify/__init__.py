"""What can be read on the wire, and what lies open on the hosts: `xenlab verify-wire` (docs/wire-check.md)."""
