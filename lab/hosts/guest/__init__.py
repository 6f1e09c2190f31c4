"""The guest that is migrated: the programs in it, its canaries, and reading the trace that it leaves."""
