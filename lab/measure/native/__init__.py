"""Runs on network namespaces: at native speed, with xenplugin's real programs, a fake xl and a fake xenstore."""
