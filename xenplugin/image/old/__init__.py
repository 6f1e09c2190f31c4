"""Old disks: what a guest that has left leaves on this host, and how it is kept from being started by accident."""
