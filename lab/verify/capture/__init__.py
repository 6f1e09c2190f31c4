"""Record packets of an interface, read captures, and parse packets."""
