"""The wire format: bytes in, events out. No input, output, threads or keys."""
