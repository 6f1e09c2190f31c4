"""The emulated link: one process, two TUN devices in two namespaces, a delay in between.

`tun` opens the devices, `packets` counts and cuts GSO packets, `direction` decides what happens to each packet
(pure: time in, packets out), `loop` moves the bytes, `stats` judges the run. netem.two_hosts starts it; by itself:

    python -m netem.emulator --ns-a NAME --ns-b NAME --rtt 120ms --rate 200mbit
"""
