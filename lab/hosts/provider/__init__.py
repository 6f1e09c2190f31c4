"""The three providers of machines, under the one interface of lab.hosts.interface."""
