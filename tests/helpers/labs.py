"""Changes the settings of a running lab."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lab.hosts.lifecycle.lab import Lab


def change(lab: Lab, **wanted: Any) -> None:
    """Give the lab other values of its Spec (`link`, `ipsec`, `auth`), and bring it up with them."""
    lab.become(replace(lab.spec, **wanted))
