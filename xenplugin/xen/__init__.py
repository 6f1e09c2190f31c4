"""Xen as this program sees it: xenstore, xl, guests and their disks, dirty tracking."""
