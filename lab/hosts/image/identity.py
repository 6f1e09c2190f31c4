"""Who a machine is: a small tar on its second disk, which /init unpacks over the root file system at each boot.

The strategy: the image in the cache is the same for all machines and holds no key. Name, addresses, routes and
keys come with the tar, so nothing of a machine is known before it starts and nothing has to be sent to it after.
Keys are made once a lab: one for the administrator outside, and for each machine a host key and root's own, with
which the hosts reach each other without a question being asked.
"""

from __future__ import annotations

import hashlib
import io
import ipaddress
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from lab.errors import BuildError, MissingError
from lab.hosts.topology import MACHINES, PREFIX, Machine, Role

_ADMINISTRATOR = "administrator"
_KNOWN = "known_hosts"


@dataclass(frozen=True)
class Keys:
    """The keys of one lab, files in `folder`."""

    folder: Path

    @property
    def administrator(self) -> Path:
        """The private key that every machine lets in as root (ssh -i)."""
        return self.folder / _ADMINISTRATOR

    @property
    def known_hosts(self) -> Path:
        """For ssh from outside, with the machine's name as HostKeyAlias."""
        return self.folder / _KNOWN

    def private(self, machine: str, kind: str) -> bytes:
        """The private key of a machine; `kind` is "host" or "root"."""
        return (self.folder / f"{machine}.{kind}").read_bytes()

    def public(self, name: str) -> str:
        """A public key, type and text: of "administrator", "host-a.host", "host-a.root" ..."""
        return " ".join((self.folder / f"{name}.pub").read_text(encoding="ascii").split()[:2])


def make_keys(folder: Path) -> Keys:
    """The keys in `folder`, made if it is not there. The folder appears only when all of them are in it.

    Raises MissingError (no ssh-keygen), BuildError.
    """
    if folder.is_dir():
        return Keys(folder)
    if shutil.which("ssh-keygen") is None:
        raise MissingError("ssh-keygen is not installed", hint="apt install openssh-client")
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700, parents=True)
    names = [_ADMINISTRATOR, *(f"{machine.name}.{kind}" for machine in MACHINES for kind in ("host", "root"))]
    for name in names:
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(new / name)]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(f"ssh-keygen: {done.stderr.strip()}")
    (new / _KNOWN).write_text(known_hosts(Keys(new)), encoding="ascii")
    new.rename(folder)
    return Keys(folder)


def known_hosts(keys: Keys) -> str:
    """The machines' host keys under their names and addresses, in the form of ssh_known_hosts."""
    lines = []
    for machine in MACHINES:
        names = ",".join([machine.name, *(nic.address for nic in machine.nics)])
        lines.append(f"{names} {keys.public(f'{machine.name}.host')}\n")
    return "".join(lines)


def identity(machine: Machine, keys: Keys) -> bytes:
    """The tar (ustar) for `machine`, padded to whole 10 KiB: the content of its second disk, as it is."""
    authorized = [keys.public(_ADMINISTRATOR)]
    authorized += [keys.public(f"{each.name}.root") for each in MACHINES if each.role is Role.XENHOST]
    files: dict[str, tuple[int, bytes]] = {
        "etc/hostname": (0o644, f"{machine.name}\n".encode()),
        "etc/hosts": (0o644, hosts_file().encode()),
        "etc/machine-id": (0o444, _machine_id(machine, keys)),
        "etc/ssh/ssh_known_hosts": (0o644, known_hosts(keys).encode()),
        "root/.ssh/authorized_keys": (0o600, "".join(f"{key}\n" for key in authorized).encode()),
    }
    for kind, path in (("host", "etc/ssh/ssh_host_ed25519_key"), ("root", "root/.ssh/id_ed25519")):
        files[path] = (0o600, keys.private(machine.name, kind))
        # Beside a private key that changed, ssh would offer a public one that stayed.
        files[f"{path}.pub"] = (0o644, f"{keys.public(f'{machine.name}.{kind}')}\n".encode())
    for name, text in networks(machine).items():
        files[f"etc/systemd/network/{name}"] = (0o644, text.encode())
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        home = tarfile.TarInfo("root/.ssh")
        home.type, home.mode = tarfile.DIRTYPE, 0o700
        tar.addfile(home)
        for path, (mode, data) in files.items():
            entry = tarfile.TarInfo(path)
            entry.mode, entry.size = mode, len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def hosts_file() -> str:
    """/etc/hosts: the lab's machines, the router at its first address."""
    lines = ["127.0.0.1 localhost\n", *(f"{each.nics[0].address} {each.name}\n" for each in MACHINES)]
    return "".join(lines)


def networks(machine: Machine) -> dict[str, str]:
    """The files for systemd-networkd, one a network of the topology; the device is known by its MAC. The one
    that is left, the way in from outside, is asked for by DHCP (the image's 90-management.network)."""
    texts = {}
    for nic in machine.nics:
        lines = ["[Match]", f"MACAddress={nic.mac}", "", "[Network]", f"Address={nic.address}/{PREFIX}"]
        lines += ["LinkLocalAddressing=no", "IPv6AcceptRA=no", "ConfigureWithoutCarrier=yes"]
        near = ipaddress.ip_network(f"{nic.address}/{PREFIX}", strict=False)
        for network, gateway in machine.routes:
            if ipaddress.ip_address(gateway) in near:
                lines += ["", "[Route]", f"Destination={network}", f"Gateway={gateway}"]
        texts[f"10-{nic.network}.network"] = "\n".join(lines) + "\n"
    return texts


def _machine_id(machine: Machine, keys: Keys) -> bytes:
    """Another for each machine of each lab, the same at each boot."""
    return hashlib.sha256(keys.public(f"{machine.name}.host").encode()).hexdigest()[:32].encode() + b"\n"
