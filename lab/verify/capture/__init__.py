"""Reading and recording captures, and the packets in them."""
