"""What FreeBSD 13.0 answered to netem's commands for 35 profiles (data/ipfw-freebsd13.json).

FreeBSD's ipfw tool and the dummynet of its kernel were run in user space, at kern.hz=1000, with the commands that
`netem dummynet print` printed for each profile. A case has the exit status and stderr of the commands, and what
`ipfw pipe show` and `ipfw list` printed afterwards. No FreeBSD was booted for it.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from netem.dummynet import Router
from netem.profile import Profile


@dataclass(frozen=True)
class Case:
    """One profile and FreeBSD's answer."""

    words: str
    router: Router
    commands: list[list[str]]
    code: int
    stderr: str
    pipe_show: str
    rules: list[str]

    @property
    def profile(self) -> Profile:
        """The profile, or ProfileError."""
        words = shlex.split(self.words)
        return Profile.parse(
            **{name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
        )

    def shown(self, pipe: int) -> str:
        """What `ipfw pipe show` printed about one pipe."""
        blocks = re.split(r"^(?=\d{5}: )", self.pipe_show, flags=re.MULTILINE)
        return next(block for block in blocks if block.startswith(f"{pipe:05}: "))


def cases() -> list[Case]:
    """All recorded cases."""
    text = (Path(__file__).parent / "data/ipfw-freebsd13.json").read_text(encoding="utf-8")
    return [
        Case(
            words=each["profile"],
            router=Router(each["net_a"], each["net_b"]),
            commands=[line.split() for line in each["ipfw"]],
            code=each["exit"],
            stderr=each["stderr"],
            pipe_show=each["pipe show"],
            rules=each["list"].splitlines(),
        )
        for each in json.loads(text)["cases"]
    ]


def case(words: str) -> Case:
    """The first case of a profile."""
    return next(each for each in cases() if each.words == words)
