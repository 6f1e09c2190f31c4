"""A virtual machine of the lab: its QEMU command line and process, QMP, and watching it boot."""
