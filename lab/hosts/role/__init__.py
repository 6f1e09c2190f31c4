"""What a machine of the lab is for: the router's link, IPsec between the hosts, the Xen host."""
