"""What the far host has of an image, and what the link to it carries. Nothing is changed."""
