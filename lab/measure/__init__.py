"""Measure ways of moving a guest or its disk: one harness for experiments, benchmarks and the demo.

- ways/: what is measured, a Way for each, over `hosts.Hosts`
- native/, xen/: guests on network namespaces and on real Xen; disk_hosts: hosts without a guest
- scenario, plan, runner, judge, results: an experiment's runs, and whether they can be believed
- benchmark: cases that are timed in turn, with targets
- images, recorded_memory: what is moved
- sshd, cpu, ballast, programs: what measuring needs
"""
