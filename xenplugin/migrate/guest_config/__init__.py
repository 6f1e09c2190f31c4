"""The guest's configuration and its file in /etc/xen: what leaves, what arrives, what is mapped."""
