"""Where a lab's machines come from. Three providers under one interface (base.py)."""
