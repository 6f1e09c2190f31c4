"""What the tests that drive the real program share."""
