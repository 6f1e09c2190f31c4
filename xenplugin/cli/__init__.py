"""The command line: one module for each kind of verb, and what all verbs share."""
