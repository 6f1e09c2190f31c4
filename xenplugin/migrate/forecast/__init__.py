"""How long a move will take: both hosts and the link are measured, and a model turns that into seconds."""
