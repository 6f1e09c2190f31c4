"""Writing images: in any order, verified, resumable, and committed as a whole."""
