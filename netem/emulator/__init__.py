"""The link itself: one process, two TUN devices in two namespaces, a delay line in between.

tun.py opens the devices, packets.py knows what a GSO packet would be on the wire, line.py decides what
happens to each packet (pure: time in, packets out), loop.py moves the bytes, stats.py counts. Started by
netem.two_hosts, or by hand:

    python -m netem.emulator --ns-a NAME --ns-b NAME --rtt 120ms --rate 200mbit
"""
