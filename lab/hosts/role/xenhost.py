"""A Xen host: whether Xen answers there, and whether its CPU can be believed.

An emulated CPU may lose registers when domains are switched; such a host looks healthy and computes wrong. So
arithmetic that leaves no room for error (AES-CBC there and back, Ed25519 signatures, which are deterministic) is
done over and over while a small guest computes too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lab.errors import CheckError, CommandError
from lab.hosts.interface import Node

#: At least so many rounds, and then until the guest has computed for a second as well.
ROUNDS = 8
_MOST_ROUNDS = 40 * ROUNDS
_GUEST = "xenlab-selftest"
#: In /run, so it goes when the host is booted anew: this boot's arithmetic was found right.
_PASSED = "/run/xenlab-arithmetic"

_ANSWERS = """
for try in $(seq 600); do
    xl list >/dev/null 2>&1 && exec xl info
    sleep 1
done
exec xl list
"""

# The guest has no disk: its first process reads and sums up its own program for ever, with the same registers.
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
    """From `xl info`. `caps`: what kinds of guests it runs (pv, hvm, hap, shadow ...)."""

    version: str
    caps: str

    @property
    def migrates_pv(self) -> bool:
        """Whether it can note what a running PV guest writes, without which none can be migrated. Debian's security
        update of Xen 4.17 (4.17.7) is built without shadow paging and answers EINVAL ("Failed to enable logdirty").
        """
        return "shadow" in self.caps.split()


def answering(node: Node) -> XenInfo:
    """Wait until Xen answers on `node`. Raises CommandError, CheckError."""
    text = node.check(["sh", "-c", _ANSWERS], timeout=180)
    fields = dict(re.findall(r"^(\w+)\s*: (.*)$", text, re.MULTILINE))
    if "xen_version" not in fields:
        raise CheckError(f"{node.name}: xl info says nothing of a version: {text.strip()[:200]!r}")
    return XenInfo(fields["xen_version"].strip(), fields.get("virt_caps", "").strip())


def check_arithmetic(node: Node, *, again: bool = False) -> bool:
    """Raises CheckError when the CPU of `node` computes wrong while a guest runs. Done once a boot unless `again`;
    returns whether it was done now."""
    if not again and not node.run(["test", "-e", _PASSED]).code:
        return False
    said = node.check(["sh", "-c", _TEST], _CONFIG, timeout=180)
    judge(node.name, said)
    node.check(["touch", _PASSED])
    return True


def judge(name: str, said: str) -> None:
    """What the test on host `name` printed. Raises CheckError, CommandError."""
    found = re.search(r"^aes (\d+) ed25519 (\d+) of (\d+) guest (\S+) (\S+)$", said, re.MULTILINE)
    if found is None:
        raise CommandError(f"{name}: the self-test of its CPU did not end: {said.strip()[-200:]!r}")
    aes, ed, rounds, state, seconds = int(found[1]), int(found[2]), int(found[3]), found[4], float(found[5])
    if aes or ed:
        raise CheckError(
            f"{name} computes wrong: AES {aes} of {rounds} times, Ed25519 {ed} of {rounds}; nothing measured on it"
            " can be believed",
            hint="its emulated CPU must have no AVX and no XSAVE (docs/lab.md)",
        )
    if set(state) & set("cds") or seconds < 1:
        raise CheckError(f"{name}: the guest that was to compute meanwhile did not (state {state}, {seconds} s)")
