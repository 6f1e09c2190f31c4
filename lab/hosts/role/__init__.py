"""What is done on machines of the lab: the router's link, IPsec and its proof, checks of Xen hosts, the plugin."""
