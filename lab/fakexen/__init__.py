"""Fake Xen hosts: an xl, libxl's work, xenstore and guests, on a machine without Xen.

`xenplugin migrate`, and xl's own way over ssh or TCP, move a guest between two of them. The messages, their order
and the ways to fail are those of Xen's tools/xl/xl_migrate.c; tests/lab/fakexen compares them with the real xl and
xenstored. Two kinds of guests run here:

- counter.py: a process that writes a counter to its disks and notices every lost write. Fast tests use it, and stop
  xl at named points to kill something there.
- recorded_guest.py: a memory of full size from a file, and a disk written at a steady rate. Experiments use it to
  measure at native speed.
"""
