"""What a capture or a host shows, and the verdict on it."""
