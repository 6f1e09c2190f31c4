"""Makes the results of checks."""

from __future__ import annotations

from xenplugin.results import CheckResult


def passes(name: str, text: str) -> CheckResult:
    """Return that the guest can move."""
    return CheckResult(name, "pass", text)


def warns(name: str, text: str, hint: str = "") -> CheckResult:
    """Return that the guest can move, and what should be known before."""
    return CheckResult(name, "warn", text, hint)


def refuses(name: str, text: str, hint: str, *, forcible: bool = False) -> CheckResult:
    """Return that the guest cannot move, and what to do; `forcible`: this may be wrong."""
    return CheckResult(name, "refuse", text, hint, forcible)
