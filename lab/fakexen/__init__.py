"""What plays a Xen host where there is none: an xl, a xenstored and a guest, so that `xenplugin migrate`, and plain
xl over TCP or ssh, move a domain of full size at native speed. The messages and the order of things are xl's; the
memory is made (stream.py), the disk is real.
"""
