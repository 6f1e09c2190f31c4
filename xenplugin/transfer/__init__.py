"""Sessions between two hosts: one disk image, or a domain's stream; wires image, codec, wire and link together."""
