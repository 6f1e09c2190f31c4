"""Recognises file systems that several hosts mount at once, where a file has the same inode number on all of them.

Only on these can a file be proved to be the same on two hosts. On a file system of one host everything else may be
equal, if one host was cloned from the other: the inode number, and with a program that synchronises folders even a
file that was just made beside it. On a network file system whose client makes up the inode numbers (sshfs, 9p,
virtiofs) nothing is proved.
"""

from __future__ import annotations

import os

from xenplugin.image.safety.mounts import mounts

#: Types of mounts, and what each belongs to: several clients may mount one file system.
_FAMILIES = {
    "nfs": "nfs",
    "nfs4": "nfs",
    "ceph": "ceph",
    "fuse.ceph": "ceph",
    "fuse.ceph-fuse": "ceph",
    "fuse.glusterfs": "glusterfs",
    "cifs": "cifs",
    "smb3": "cifs",
    "ocfs2": "ocfs2",
    "gfs2": "gfs2",
    "lustre": "lustre",
    "beegfs": "beegfs",
    "gpfs": "gpfs",
    "fuse.mfs": "moosefs",
    "fuse.juicefs": "juicefs",
}


def family(path: str) -> str:
    """Return the family of network or cluster file systems that the file or folder `path` is on; "" if it is on
    another file system. Raises OSError."""
    number = os.stat(path).st_dev
    found = {_FAMILIES.get(mount.kind, "") for mount in mounts() if mount.number == number}
    return found.pop() if len(found) == 1 else ""
