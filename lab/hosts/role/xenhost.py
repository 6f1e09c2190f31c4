"""Checks a Xen host: whether Xen answers, and whether its CPU computes correctly.

An emulated CPU may lose registers when Xen switches domains; such a host looks healthy but computes incorrectly. So
AES-CBC (encrypted and decrypted again) and Ed25519 signatures (which are deterministic) are computed repeatedly
while a small guest computes, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lab.errors import CheckError, CommandError
from lab.hosts.guest.guest_type import GuestType, migratable
from lab.hosts.interface import Node

#: The lowest number of rounds; more follow until the guest has computed for a second as well.
ROUNDS = 8
_MOST_ROUNDS = 40 * ROUNDS
_GUEST = "xenlab-selftest"
#: Exists if the test has passed since the host booted (it is in /run).
_PASSED = "/run/xenlab-arithmetic"

_ANSWERS = """
for try in $(seq 600); do
    xl list >/dev/null 2>&1 && exec xl info
    sleep 1
done
exec xl list
"""

# The guest has no disk. Its first process computes checksums of its own program for ever, with the same registers.
_CONFIG = f"""
name = "{_GUEST}"
kernel = "/srv/guests/vmlinuz"
ramdisk = "/srv/guests/initrd"
memory = 96
extra = 'rdinit=/bin/sh quiet -- -c "while :; do /bin/busybox md5sum /bin/busybox >/dev/null; done"'
on_crash = "preserve"
"""

_TEST = f"""
set -e
d=$(mktemp -d /run/xenlab-selftest.XXXXXX)
cd "$d"
stop() {{ xl destroy {_GUEST} >/dev/null 2>&1 || :; rm -rf "$d"; }}
trap stop EXIT
xl destroy {_GUEST} >/dev/null 2>&1 || :
cat >guest.cfg
xl create -q guest.cfg >&2
openssl genpkey -algorithm ed25519 -out key
openssl pkey -in key -pubout -out public
head -c 262144 /dev/urandom >plain
key=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n')
sign() {{ openssl pkeyutl -sign -rawin -inkey key -in head -out "$1"; }}
head -c 4096 plain >head
aes=0 ed=0 round=0
while [ $round -lt {_MOST_ROUNDS} ]; do
    round=$((round + 1))
    openssl enc -aes-128-cbc -K "$key" -iv "$key" -in plain -out sealed
    openssl enc -d -aes-128-cbc -K "$key" -iv "$key" -in sealed -out opened || :
    cmp -s plain opened || aes=$((aes + 1))
    sign one && sign two || :
    cmp -s one two && openssl pkeyutl -verify -rawin -pubin -inkey public -in head -sigfile one >/dev/null 2>&1 ||
        ed=$((ed + 1))
    [ $round -ge {ROUNDS} ] || continue
    state=$(xl list {_GUEST} | awk 'NR == 2 {{ print $5, $6 }}')
    case ${{state#* }} in 0.*) ;; *) break ;; esac
done
echo "aes $aes ed25519 $ed of $round guest $state"
"""


@dataclass(frozen=True)
class XenInfo:
    """Facts from `xl info`. `caps`: what the host can run guests with (pv, hvm, hap, shadow ...)."""

    version: str
    caps: str

    @property
    def guests(self) -> GuestType | None:
        """The type of guest that can be migrated; None if neither PV nor PVH guests can."""
        return migratable(set(self.caps.split()))


def answering(node: Node) -> XenInfo:
    """Wait until Xen answers on `node`, and return facts about it. Raises CommandError, CheckError."""
    text = node.check(["sh", "-c", _ANSWERS], timeout=180)
    fields = dict(re.findall(r"^(\w+)\s*: (.*)$", text, re.MULTILINE))
    if "xen_version" not in fields:
        raise CheckError(f"{node.name}: xl info does not print a version: {text.strip()[:200]!r}")
    return XenInfo(fields["xen_version"].strip(), fields.get("virt_caps", "").strip())


def check_arithmetic(node: Node, *, again: bool = False) -> bool:
    """Test whether the CPU of `node` computes correctly while a guest runs; once per boot unless `again`. Returns
    whether the test was run now. Raises CheckError if the CPU does not, CommandError."""
    if not again and not node.run(["test", "-e", _PASSED]).code:
        return False
    judge(node.name, node.check(["sh", "-c", _TEST], _CONFIG, timeout=180))
    node.check(["touch", _PASSED])
    return True


def judge(name: str, output: str) -> None:
    """Judge the output of the test on host `name`. Raises CheckError, CommandError."""
    found = re.search(r"^aes (\d+) ed25519 (\d+) of (\d+) guest (\S+) (\S+)$", output, re.MULTILINE)
    if found is None:
        raise CommandError(f"{name}: the self-test of its CPU did not end: {output.strip()[-200:]!r}")
    aes, ed, rounds, state, seconds = int(found[1]), int(found[2]), int(found[3]), found[4], float(found[5])
    if aes or ed:
        raise CheckError(
            f"the CPU of {name} computes incorrectly (AES {aes} of {rounds} times, Ed25519 {ed} of {rounds}), so no"
            " measurement on it is valid",
            hint="its emulated CPU must have no AVX and no XSAVE (docs/lab.md)",
        )
    if set(state) & set("cds") or seconds < 1:
        raise CheckError(f"{name}: the guest did not compute during the CPU test (state {state}, {seconds} s)")
