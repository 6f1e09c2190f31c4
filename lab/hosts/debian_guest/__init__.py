"""A guest with Debian's own kernel, initramfs, init and boot loader, which writes to a database all the time."""
