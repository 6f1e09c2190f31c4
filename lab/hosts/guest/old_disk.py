"""The disks that a guest leaves behind on a host when the plugin moves it: they lie aside (docs/migration.md)."""

from __future__ import annotations

from lab.hosts.interface import Node

_SCRIPT = r"""
case $1 in
/dev/*)
    group=$(basename "$(dirname "$1")") name=$(basename "$1")
    for old in $(lvs --noheadings -o lv_name "$group" 2>/dev/null | grep -F "$name.left-for-" | sort -r); do
        if lvs "$group/$name" >/dev/null 2>&1; then
            lvremove -qfy "$group/$old"
        else
            lvrename -q "$group" "$old" "$name"
            lvchange -q -ay "$group/$name"
        fi
    done ;;
*)
    for old in $(ls -rd "$1".left-for-* 2>/dev/null); do
        if [ -e "$1" ]; then rm "$old"; else mv "$old" "$1"; fi
    done ;;
esac
grep -lsF "\"path\": \"$1\"" /var/lib/xen/xenplugin/left/*.json | xargs -r rm
"""


def name_again(node: Node, disk: str) -> None:
    """Give the newest old disk of `node` (a file or a logical volume) its name `disk` back if that is free, and
    remove all others: the guest may be started there as if it had never left. Raises CommandError."""
    node.check(["sh", "-c", _SCRIPT, "sh", disk])
