"""The disk image of the lab's machines, built from Debian packages, and the plugin's package, both kept in a
cache."""
