"""Marks of tests that make network namespaces joined by netem's emulator."""

from __future__ import annotations

import os

import pytest

needs_namespaces = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not os.path.exists("/dev/net/tun"),
        reason="network namespaces and their link need root and /dev/net/tun",
    ),
]
"""For `pytestmark` of a module and for pytest.param."""
