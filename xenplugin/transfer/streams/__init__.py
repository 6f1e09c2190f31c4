"""A guest's memory from here to there: a stream of bytes in segments."""
