"""xl itself: its words, its protocol, its place in the file system, and what it must not start."""
