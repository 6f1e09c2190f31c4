"""The lab's disk images, built from Debian packages and kept in the user's cache."""
