"""What every transfer has: the two ends of a session, its connections, and what is asked for."""
