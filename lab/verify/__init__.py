"""Check captures and hosts for readable secrets: `xenlab verify-wire` (docs/wire-check.md)."""
