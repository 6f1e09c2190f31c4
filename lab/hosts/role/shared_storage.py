"""Storage that both hosts share, served by the router: a folder by NFS 4 and disks by iSCSI, both by its kernel.

Nothing of it runs until a test starts it. iSCSI targets need no program on the router: the kernel's LIO is set up
through configfs. Methods raise CommandError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.hosts.interface import Node
from lab.hosts.topology import NETWORKS, ROUTER, SITE_A

#: Where the hosts mount the router's folder.
MOUNT = "/nfs"
#: The router's folder, and its other one with the images of the iSCSI disks.
FOLDER, _IMAGES = "/srv/shared", "/srv/luns"
_ADDRESS = ROUTER.nic(SITE_A).address
PORTAL = f"{_ADDRESS}:3260"
#: The process ids of what is started.
_MOUNTD, _ISCSID = "/run/xenlab-mountd.pid", "/run/xenlab-iscsid.pid"
_START = 120.0  # seconds of a quiet machine

# Serves the folder $1 to the networks $2...; root of a host is root there. A short grace time: a new server has no
# clients that could reclaim anything. Version 4 needs neither rpcbind nor statd.
_SERVE_NFS = f"""
set -e
folder=$1
shift
mkdir -p "$folder"
modprobe nfsd
mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
for network; do exportfs -i -o rw,sync,fsid=0,no_root_squash,no_subtree_check "$network:$folder"; done
if ! kill -0 "$(cat {_MOUNTD} 2>/dev/null)" 2>/dev/null; then
    setsid rpc.mountd -F -N 3 </dev/null >/dev/null 2>&1 &
    echo $! >{_MOUNTD}
fi
rpc.nfsd -N 3 -G 10 -L 30 4
"""
_END_NFS = f"""
rpc.nfsd 0
exportfs -u -a
kill "$(cat {_MOUNTD})"
rm {_MOUNTD}
umount /proc/fs/nfsd
rm -rf "$1"
"""
_MOUNT = f"""
mkdir -p {MOUNT}
mountpoint -q {MOUNT} || mount -t nfs4 -o vers=4.2 {_ADDRESS}:/ {MOUNT}
"""
# Offers each target $3... with one disk of $2 bytes, a file in the folder $1. The serial number is the name's hash.
_SERVE_ISCSI = f"""
set -e
folder=$1 size=$2
shift 2
mkdir -p "$folder"
modprobe -a target_core_mod target_core_file iscsi_target_mod
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
cd /sys/kernel/config/target
mkdir -p iscsi
for target; do
    file=$folder/${{target##*:}} store=core/fileio_0/${{target##*:}} group=iscsi/$target/tpgt_1
    truncate -s "$size" "$file"
    mkdir -p "$store"
    echo "fd_dev_name=$file,fd_dev_size=$size" >"$store/control"
    printf %s "$target" | md5sum | cut -c 1-32 >"$store/wwn/vpd_unit_serial"
    echo 1 >"$store/enable"
    mkdir -p "$group/np/{PORTAL}" "$group/lun/lun_0"
    ln -s "$PWD/$store" "$group/lun/lun_0/disk"
    for each in generate_node_acls=1 cache_dynamic_acls=1 demo_mode_write_protect=0 authentication=0; do
        echo "${{each#*=}}" >"$group/attrib/${{each%=*}}"
    done
    echo 1 >"$group/enable"
done
"""
_END_ISCSI = """
cd /sys/kernel/config/target 2>/dev/null || exit 0
for group in iscsi/iqn.*/tpgt_1; do
    [ -d "$group" ] || continue
    echo 0 >"$group/enable"
    rm "$group"/lun/lun_0/disk
    rmdir "$group"/lun/lun_0 "$group"/np/* "$group" "${group%/*}"
done
rmdir iscsi core/fileio_0/*/
rm -rf "$1"
"""
# The two hosts must not have the same name, or each session ends the other's. An emulated CPU may be too slow to
# answer the daemon's pings in time.
_INITIATOR = f"""
set -e
echo "InitiatorName=iqn.2026-11.lab.xen:$(hostname)" >/etc/iscsi/initiatorname.iscsi
sed -i 's/^\\(node.conn\\[0\\].timeo.noop_out_[a-z]* = \\).*/\\10/' /etc/iscsi/iscsid.conf
modprobe -a iscsi_tcp sd_mod
kill -0 "$(cat {_ISCSID} 2>/dev/null)" 2>/dev/null || iscsid -p {_ISCSID}
iscsiadm -m discovery -t st -p {PORTAL}
"""
_LOG_IN = f"""
set -e
iscsiadm -m node -T "$1" -p {PORTAL} --login
udevadm settle
for try in $(seq 60); do
    [ ! -b "$2" ] || exit 0
    sleep 1
done
echo "there is no $2" >&2
exit 1
"""
_LEAVE = f"""
if mountpoint -q {MOUNT}; then umount {MOUNT}; fi
iscsiadm -m node --logoutall=all
iscsiadm -m node -o delete
if [ -e {_ISCSID} ]; then kill "$(cat {_ISCSID})"; rm {_ISCSID}; fi
:
"""


@dataclass(frozen=True)
class Target:
    """An iSCSI target of the router with one disk."""

    name: str

    @property
    def iqn(self) -> str:
        """Its name in iSCSI."""
        return f"iqn.2026-11.lab.router:{self.name}"

    @property
    def path(self) -> str:
        """The path of its disk on a host that is logged in."""
        return f"/dev/disk/by-path/ip-{PORTAL}-iscsi-{self.iqn}-lun-0"

    @property
    def image(self) -> str:
        """The path of its content on the router."""
        return f"{_IMAGES}/{self.name}"


def serve(router: Node, targets: Sequence[Target], size: int) -> None:
    """Serve an empty folder, and targets with disks of `size` bytes, in place of what was served before."""
    end(router)
    _run(router, _SERVE_NFS, FOLDER, *NETWORKS.values())
    _run(router, _SERVE_ISCSI, _IMAGES, str(size), *(target.iqn for target in targets))


def end(router: Node) -> None:
    """Serve nothing any more, and remove what was served. The hosts must have left."""
    router.run(["sh", "-c", _END_NFS, "sh", FOLDER], timeout=_START)
    router.run(["sh", "-c", _END_ISCSI, "sh", _IMAGES], timeout=_START)


def join(host: Node, targets: Sequence[Target]) -> None:
    """Mount the folder on `host` and log it in at `targets`; at others it can log in by itself."""
    _run(host, _MOUNT)
    _run(host, _INITIATOR)
    for target in targets:
        _run(host, _LOG_IN, target.iqn, target.path)


def leave(host: Node) -> None:
    """Undo `join`, also if it was interrupted."""
    _run(host, _LEAVE)


def _run(node: Node, script: str, *words: str) -> None:
    node.check(["sh", "-c", script, "sh", *words], timeout=_START)
