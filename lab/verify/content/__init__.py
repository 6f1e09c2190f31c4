"""Search streams and packets for canaries, recognise their protocol, and test whether payload looks random."""
