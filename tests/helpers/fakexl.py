#!/usr/bin/env python3
"""A stand-in for xl on a host without Xen: its domains are lines in a file beside it.

    DOMID NAME STATE UUID        as in `1 g1 -b---- 3f...`

Run as a program it is that xl; `act` does the same in the caller's process.
"""

from __future__ import annotations

import sys
from pathlib import Path

HEAD = "Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID"
HEAD += "                            Reason-Code\tSecurity Label"
DOM0 = "0 Domain-0 r----- 00000000-0000-0000-0000-000000000000"


def read(folder: Path) -> list[list[str]]:
    """The domains' fields."""
    path = folder / "domains"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def write(folder: Path, domains: list[list[str]]) -> None:
    """Set all domains."""
    draft = folder / "domains.new"
    draft.write_text("".join(" ".join(fields) + "\n" for fields in domains))
    draft.rename(folder / "domains")


def act(folder: Path, *words: str) -> str:
    """What `xl WORDS` prints. Raises LookupError for a domain that is not there, ValueError for the rest."""
    domains = read(folder)
    if words == ("list", "-v"):
        rows = [HEAD]
        for domid, name, state, uuid in [DOM0.split(), *domains]:
            reason = "       2" if state[3] == "s" else "       -"
            rows.append(f"{name:<40} {domid:>5}   256     1     {state}  {12.5:8.1f} {uuid} {reason} {'-':>16}")
        return "\n".join(rows) + "\n"
    verb, domid, *more = words
    row = next((fields for fields in domains if fields[0] == domid), None)
    if row is None:
        raise LookupError(f"{domid} is an invalid domain identifier (rc=-6)")
    if verb == "destroy":
        domains.remove(row)
    elif verb == "rename":
        if any(fields[1] == more[0] for fields in domains):
            raise ValueError(f'Domain with name "{more[0]}" already exists.')
        row[1] = more[0]
    elif verb in ("pause", "unpause"):
        row[2] = "--p---" if verb == "pause" else "-b----"
    elif verb == "resume":  # no verb of 4.17's; libxl does it
        if row[2][3:5] != "ss":
            raise ValueError("Dom not suspended")
        row[2] = "-b----"
    else:
        raise ValueError(f"unknown verb {verb}")
    write(folder, domains)
    return ""


if __name__ == "__main__":
    try:
        sys.stdout.write(act(Path(__file__).parent, *sys.argv[1:]))
    except (LookupError, ValueError) as error:
        sys.exit(f"libxl: error: {error}")
