"""Check a whole capture or a host against what is expected, and give the verdict."""
