"""What settles a migration that was broken off, and tells where its guest is."""
