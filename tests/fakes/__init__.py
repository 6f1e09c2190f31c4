"""A fake Xen host: enough of xl, libxl and a guest for a whole migration on one machine, without root."""
