"""The guest that is migrated: what it runs, and what can be told from the trace that it leaves."""
