"""What bytes hold: canaries, compressed data, noise, and what is in the clear by design."""
