"""Image formats other than raw: QEMU's programs know them, and make a plain file of what an image holds."""
