"""Fixtures of the tests that need a lab."""

from lab.pytest_plugin import netns_ipsec_lab, netns_lab, xen_lab

__all__ = ["netns_ipsec_lab", "netns_lab", "xen_lab"]
