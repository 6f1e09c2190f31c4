"""Emulated long links: one Profile, three back ends that make it real.

`profile` describes a link. `two_hosts` (network namespaces and the TUN emulator in `emulator`), `tc` (Linux
sch_netem) and `dummynet` (FreeBSD ipfw) each make one, and undo what they did. `user_namespace` lets ordinary users
make the first kind. `calibrate` measures whether a link is what was asked for.
"""
