"""A virtual machine of the lab: its QEMU process, how it is spoken to and watched while it boots."""
