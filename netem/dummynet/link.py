"""Applies and removes a Dummynet link on a router that a command (ssh) reaches."""

from __future__ import annotations

from netem.dummynet.pipes import notes
from netem.dummynet.router import Router
from netem.dummynet.script import ERROR, HINT, apply_script, undo_script
from netem.errors import BackendError
from netem.profile import Profile
from netem.remote_command import Execute

_SSH_FAILED = 255  # ssh's own exit code when it cannot connect, or loses the connection


class Dummynet:
    """A link on the router on which `run` runs commands: remote_command.through("ssh root@router")."""

    def __init__(self, run: Execute) -> None:
        self._run = run

    def apply(self, router: Router, profile: Profile) -> list[str]:
        """Make the link; return `notes` and those of the router. Raises ProfileError, or BackendError with the
        router as it was before."""
        said = self._shell(apply_script(router, profile))
        return notes(profile) + [line.removeprefix(ERROR) for line in said.splitlines()]

    def undo(self, *, missing_ok: bool = False) -> list[str]:
        """Remove the link that is applied; return the router's notes. Raises BackendError, also when none is
        applied unless `missing_ok`."""
        said = self._shell(undo_script(missing_ok=missing_ok))
        return [line.removeprefix(ERROR) for line in said.splitlines()]

    def _shell(self, script: str) -> str:
        done = self._run(["sh", "-s"], script)
        if not done.code:
            return done.stderr
        lines = done.stderr.splitlines()
        hints = [line.removeprefix(HINT) for line in lines if line.startswith(HINT)]
        reasons = [line.removeprefix(ERROR) for line in lines if not line.startswith(HINT)]
        reason = "; ".join(text.strip() for text in reasons if text.strip()) or done.error_text
        if done.code == _SSH_FAILED:
            raise BackendError(
                f"the session with the router failed: {reason}",
                hint="if it was lost half-way, undo what it did: netem dummynet undo",
            )
        raise BackendError(f"the router refused: {reason}", hint=hints[0] if hints else None)
