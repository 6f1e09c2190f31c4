"""Reading images, and finding out what was written to them meanwhile."""
