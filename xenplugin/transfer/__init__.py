"""One image from here to there: wires image, codec, wire and link together.

outgoing.py (source side), incoming.py (destination side), archive.py (the same stream as a file).
"""
