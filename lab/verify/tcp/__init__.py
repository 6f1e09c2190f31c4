"""TCP streams put together from their segments."""
