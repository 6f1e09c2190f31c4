"""The chunks of an image on their way: which are sent, packed, written, and what the other side has of them."""
