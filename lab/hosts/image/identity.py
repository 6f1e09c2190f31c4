"""The identity of a machine: a small tar on its second disk, which /init unpacks over the root file system at boot.

The image in the cache is the same for all machines and holds no key. Name, addresses, routes and keys are in the
tar, so nothing has to be sent to a machine after its start. Keys are made once for each lab: one for the
administrator outside, and for each machine a host key and a key of its root, with which the hosts log in to each
other without a prompt.
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
    """The key files of a lab, in `folder`."""

    folder: Path

    @property
    def administrator(self) -> Path:
        """The private key with which root can log in to every machine (ssh -i)."""
        return self.folder / _ADMINISTRATOR

    @property
    def known_hosts(self) -> Path:
        """The known_hosts file for ssh from outside, with the machine's name as HostKeyAlias."""
        return self.folder / _KNOWN

    def private(self, machine: str, kind: str) -> bytes:
        """Return a private key of a machine; `kind` is "host" or "root"."""
        return (self.folder / f"{machine}.{kind}").read_bytes()

    def public(self, name: str) -> str:
        """Return the type and text of a public key. `name` is "administrator", "host-a.host", "host-a.root" ..."""
        return " ".join((self.folder / f"{name}.pub").read_text(encoding="ascii").split()[:2])


def make_keys(folder: Path) -> Keys:
    """Return the keys in `folder`, which is made if it does not exist. It appears only when it holds all keys.

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
    """Return the machines' host keys, under their names and addresses, in the format of ssh_known_hosts."""
    lines = []
    for machine in MACHINES:
        names = ",".join([machine.name, *(nic.address for nic in machine.nics)])
        lines.append(f"{names} {keys.public(f'{machine.name}.host')}\n")
    return "".join(lines)


def identity(machine: Machine, keys: Keys) -> bytes:
    """Return the tar (ustar) for `machine`, padded to a multiple of 10 KiB: the content of its second disk."""
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
        # Without the new public key, ssh would offer an old one beside the new private key.
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
    """Return the content of /etc/hosts: the lab's machines, the router with its first address."""
    lines = ["127.0.0.1 localhost\n", *(f"{each.nics[0].address} {each.name}\n" for each in MACHINES)]
    return "".join(lines)


def networks(machine: Machine) -> dict[str, str]:
    """Return the files for systemd-networkd, one for each network of the topology, which find their devices by MAC
    address. The remaining device, for ssh from outside, uses DHCP (the image's 90-management.network)."""
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
    """Return an id that differs for each machine of each lab and is the same at each boot."""
    return hashlib.sha256(keys.public(f"{machine.name}.host").encode()).hexdigest()[:32].encode() + b"\n"
