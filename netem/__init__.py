"""A link that one machine can be two continents with: one Profile, several back ends that make it real.

profile.py says what a link is like; world.py (namespaces and the TUN emulator in emulator/), relay.py (plain
TCP, without root), tc.py (Linux sch_netem) and dummynet.py (FreeBSD ipfw) make one, and each undoes what it
did. calibrate.py measures whether what was asked for is what there is.
"""
