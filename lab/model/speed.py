"""How fast xenplugin works on given hosts, computed from the figures of `xenplugin bench`, as it does itself to
choose a compression level.

Bytes go through read, digest, zstd, seal and send on one side, unpack, digest and write on the other. More cores
help by Amdahl's law: two threads were measured to be 1.65 times as fast as one, so a share of 0.21 is serial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: The share of the work that is done by one thread at a time.
SERIAL = 0.21
_STORE = "store"
_SPEEDS = ("read", "digest", "unpack", "loopback", "write")


def check(figures: Mapping[str, Any]) -> None:
    """Raises KeyError, TypeError, AttributeError or ValueError unless `figures` have all that is needed."""
    levels = figures["zstd"]
    known = {f"mb_per_cpu_second {name}": figures["mb_per_cpu_second"][name] for name in _SPEEDS}
    known["ciphers"] = figures["ciphers"][figures["cipher"]]
    for level in {"1", *levels}:
        known |= {f"zstd {level} {name}": levels[level][name] for name in ("mb_per_cpu_second", "ratio")}
    for name, value in known.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"{name} is {value!r}")


@dataclass(frozen=True)
class Hosts:
    """Two hosts with `cores` each; `shared`: both are the same machine, as in a lab of namespaces. `figures`: the
    output of `xenplugin bench --json`, which is of one core."""

    cores: int
    figures: Mapping[str, Any]
    shared: bool = False

    def seconds(self, size: float, ratio: float | None, rate: float | None) -> float:
        """Return the seconds to move `size` bytes over a link of `rate` bit/s (None: unlimited) at the best level.

        Each level is limited by the cores or by the link. `ratio`: of zstd level 1; None: sent uncompressed.
        """
        return min(self._at(size, level, ratio, rate) for level in self._levels(ratio))

    def _levels(self, ratio: float | None) -> list[str]:
        return [_STORE] if ratio is None else [_STORE, *self.figures["zstd"]]

    def _ratio(self, level: str, ratio: float | None) -> float:
        if level == _STORE or ratio is None:
            return 1.0
        known = self.figures["zstd"]
        return max(1.0, float(ratio * known[level]["ratio"] / known["1"]["ratio"]))

    def _at(self, size: float, level: str, ratio: float | None, rate: float | None) -> float:
        speeds: Mapping[str, float] = self.figures["mb_per_cpu_second"]
        packed = self._ratio(level, ratio)
        seal = float(self.figures["ciphers"][self.figures["cipher"]])
        near = 1 / speeds["read"] + 1 / speeds["digest"] + (1 / seal + 1 / speeds["loopback"]) / packed
        far = 1 / speeds["digest"] + 1 / speeds["write"] + 1 / seal / packed
        if level != _STORE:
            near += 1 / float(self.figures["zstd"][level]["mb_per_cpu_second"])
            far += 1 / speeds["unpack"]
        cost = near + far if self.shared else max(near, far)
        working = size / 1e6 * cost * (SERIAL + (1 - SERIAL) / self.cores)
        sending = 8 * size / packed / rate if rate else 0.0
        return max(working, sending)
