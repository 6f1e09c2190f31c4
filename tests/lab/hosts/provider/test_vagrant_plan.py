"""The plan for Vagrant from the environment; scripts are run in a real shell where that is possible."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabUsageError
from lab.hosts import topology
from lab.hosts.image import plugin_package
from lab.hosts.image.identity import Keys, make_keys
from lab.hosts.provider import vagrant_scripts as scripts
from lab.hosts.provider.vagrant_plan import DEBIAN_BOX, FREEBSD_BOX, Box, Secrets, Settings, main, plan
from lab.hosts.role import freebsd
from lab.hosts.spec import Suite
from netem import tc
from netem.profile import Profile
from tests.netem.dummynet.grammar import check_ipfw

LINK = Profile.parse(rtt="121ms", rate="200mbit")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Secrets:
    return Secrets.of(tmp_path_factory.mktemp("lab") / "xenlab")


def planned(secrets: Secrets, **env: str) -> dict[str, Any]:
    settings = Settings.parse({f"XENLAB_{name}": value for name, value in env.items()})
    return plan(settings, Path("/project"), secrets)


def steps(made: dict[str, Any], machine: str) -> dict[str, Any]:
    (found,) = (each for each in made["machines"] if each["name"] == machine)
    return {step["name"]: step for step in found["steps"]}


def test_the_default_plan_has_a_freebsd_router_and_debian_hosts(secrets: Secrets) -> None:
    made = planned(secrets)
    assert [each["name"] for each in made["machines"]] == ["router", "host-a", "host-b"]
    assert [each["box"] for each in made["machines"]] == [FREEBSD_BOX, DEBIAN_BOX, DEBIAN_BOX]
    assert made["driver"] == "kvm" and made["cpu"] is None and made["outside"]
    assert list(steps(made, "router")) == ["loader", "site", "link"]
    assert list(steps(made, "host-a")) == ["xen", *plugin_package.PARTS, "plugin", "site", "keys", "ipsec"]
    assert steps(made, "host-a")["xen"]["reboot"]
    # Loader tunables are set before the link needs them, at each start, and FreeBSD is restarted between.
    assert steps(made, "router")["loader"]["reboot"] and made["restart"] == freebsd.RESTART
    assert {step["run"] for step in steps(made, "router").values()} == {"always"}


def test_an_own_box_needs_nothing_from_outside(secrets: Secrets, tmp_path: Path) -> None:
    box = tmp_path / "xenlab-4.17-abc.box"
    box.touch()
    made = planned(secrets, BOX=str(box), ROUTER="linux", DRIVER="qemu")
    assert not made["outside"]
    assert {each["box"] for each in made["machines"]} == {"xenlab-4.17-abc"}
    assert {each["box_url"] for each in made["machines"]} == {box.as_uri()}
    assert list(steps(made, "host-b")) == ["site", "keys", "ipsec"]
    assert {"-smap", "-smep", "-xsave", "-avx", "-avx2"} <= set(made["cpu"].split(","))
    # Beside FreeBSD, whose packages may have to be downloaded.
    assert planned(secrets, BOX=str(box))["outside"]


def test_each_machine_has_the_topologys_places(secrets: Secrets) -> None:
    for machine in planned(secrets)["machines"]:
        nics = topology.machine(machine["name"]).nics
        assert [(each["network"], each["address"], each["mac"]) for each in machine["nics"]] == [
            (nic.network, nic.address, nic.mac) for nic in nics
        ]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("RTT", "120", "no unit"),
        ("RATE", "fast", "XENLAB_RATE"),
        ("ROUTER", "openbsd", "freebsd, linux"),
        ("IPSEC", "des", "aes128gcm16"),
        ("DRIVER", "xen", "kvm, qemu"),
        ("BOX", "/nowhere/xenlab.box", "does not exist"),
        ("NAME", "Lab 1", "is not a valid name"),
    ],
)
def test_invalid_values_are_refused(variable: str, value: str, message: str) -> None:
    with pytest.raises(LabUsageError, match=message):
        Settings.parse({f"XENLAB_{variable}": value})


def test_an_empty_variable_is_as_none_at_all() -> None:
    assert Settings.parse({"XENLAB_RTT": "", "XENLAB_BOX": "", "XENLAB_NAME": ""}) == Settings.parse({})


def test_a_link_that_dummynet_cannot_make_is_refused(secrets: Secrets) -> None:
    with pytest.raises(LabUsageError, match="whole milliseconds"):
        planned(secrets, RTT="1500us")
    planned(secrets, RTT="1500us", ROUTER="linux")


def test_the_error_is_for_vagrants_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main({"XENLAB_RTT": "120", "VAGRANT_DOTFILE_PATH": str(tmp_path)}) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("xenlab: error: ") and "xenlab: hint: " in printed.err
    (tmp_path / "file").touch()
    assert main({"VAGRANT_DOTFILE_PATH": str(tmp_path / "file")}) != 0
    assert "Traceback" not in capsys.readouterr().err


def test_the_plan_is_the_same_each_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Vagrant reads the plan at every command, so keys must not change."""
    env = {"VAGRANT_DOTFILE_PATH": str(tmp_path), "XENLAB_IPSEC": "aes128gcm16"}
    assert main(env) == main(env) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert json.loads(first) == json.loads(second)
    assert (tmp_path / "xenlab" / "shared").stat().st_mode & 0o77 == 0


def test_ipsec_is_the_same_on_both_hosts_and_off_by_default(secrets: Secrets) -> None:
    made = planned(secrets, IPSEC=Suite.PAPER.value)
    for here, there in (("host-a", "host-b"), ("host-b", "host-a")):
        script = steps(made, here)["ipsec"]["script"]
        assert f"local_addrs = {topology.address(here)}" in script
        assert f"remote_addrs = {topology.address(there)}" in script
        assert "esp_proposals = aes128-sha1" in script and "mode = transport" in script
        assert secrets.shared in script
    assert "charon.log" not in steps(planned(secrets), "host-a")["ipsec"]["script"]


def test_linux_router_gets_netems_commands() -> None:
    script = scripts.linux_link(topology.ROUTER, LINK)
    for device, command in zip(("$nic0", "$nic1"), tc.apply_commands(LINK, ["D", "D"], seeded=False), strict=True):
        assert " ".join(command).replace("dev D", f"dev {device}") in script
    assert all(nic.mac in script for nic in topology.ROUTER.nics)
    assert "qdisc add" not in scripts.linux_link(topology.ROUTER, Profile())


def test_freebsd_router_gets_what_ipfw_understands() -> None:
    script = scripts.freebsd_link(LINK)
    commands = [
        line.split()
        for line in script.splitlines()
        if re.match(r" +ipfw (pipe|-q add) \d+ ", line) and "allow" not in line
    ]
    assert len(commands) == 4
    for command in commands:
        check_ipfw(command, {"byte": 1 << 30, "slots": 1 << 20})
    assert topology.NETWORKS[topology.SITE_A] in script and topology.NETWORKS[topology.SITE_B] in script
    assert " config " not in scripts.freebsd_link(Profile())


def test_the_freebsd_link_is_removed_before_a_new_one_is_set() -> None:
    script = scripts.freebsd_link(LINK)
    assert script.index("# Removes netem's Dummynet link.") < script.index("# Link by Dummynet: rtt 121ms")


def all_scripts(keys: Keys) -> list[str]:
    return [
        *(scripts.linux_site(machine) for machine in topology.MACHINES),
        scripts.freebsd_site(),
        freebsd.loader_script(),
        scripts.linux_link(topology.ROUTER, LINK),
        scripts.freebsd_link(LINK),
        scripts.debian_xen(),
        scripts.plugin(),
        scripts.linux_keys(b"\0" * 512),
        scripts.linux_ipsec(None, ["xfrm"]),
        scripts.linux_ipsec("connections {\n}\n", ["xfrm"]),
    ]


def test_every_script_is_one_for_a_posix_shell(secrets: Secrets) -> None:
    for script in all_scripts(secrets.keys):
        done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert script.startswith("#!/bin/sh\nset -e\n")


def test_names_are_set_once_whatever_the_box_had(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n127.0.1.1 host-a host-a\n10.9.9.9 elsewhere\n")
    part = "\n".join(scripts._hosts()).replace("/etc/hosts", str(hosts))
    for _ in range(2):
        subprocess.run(["sh", "-ec", part], check=True)
        assert hosts.read_text().splitlines() == [
            "127.0.0.1 localhost",
            "10.9.9.9 elsewhere",
            *(f"{topology.address(each.name)} {each.name}" for each in topology.MACHINES),
        ]


def test_the_device_is_found_by_its_address(tmp_path: Path) -> None:
    """A bridge with the same address is not mistaken for the device below it."""
    for name, mac, hardware in (("br0", "52:54:00:71:01:10", False), ("eth1", "52:54:00:71:01:10", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "address").write_text(mac + "\n")
        if hardware:
            (tmp_path / name / "device").mkdir()
    function = scripts._LINUX_DEVICE.replace("/sys/class/net", str(tmp_path))
    done = subprocess.run(["sh", "-c", f"{function}\ndevice 52:54:00:71:01:10"], capture_output=True, text=True)
    assert done.stdout == "eth1\n"
    done = subprocess.run(
        ["sh", "-ec", f"{function}\nnic=$(device 52:54:00:00:00:01)\necho on"], capture_output=True, text=True
    )
    assert done.returncode and "on\n" not in done.stdout


def test_keys_arrive_where_ssh_looks(secrets: Secrets, tmp_path: Path) -> None:
    from lab.hosts.image.identity import identity

    script = scripts.linux_keys(identity(topology.HOST_A, secrets.keys))
    script = script.replace("/root/.ssh", str(tmp_path / "root/.ssh")).replace("tar -C /", f"tar -C {tmp_path}")
    subprocess.run(["sh", "-e"], input=script.replace("systemctl", ":"), text=True, check=True)
    assert (tmp_path / "root/.ssh/id_ed25519").read_bytes() == secrets.keys.private("host-a", "root")
    assert (tmp_path / "root/.ssh/id_ed25519").stat().st_mode & 0o77 == 0
    assert "host-b" in (tmp_path / "etc/ssh/ssh_known_hosts").read_text()
    # The provisioners set the addresses, without networkd.
    assert not (tmp_path / "etc/systemd").exists() and not (tmp_path / "etc/hosts").exists()


def test_a_box_is_a_file_or_a_name(tmp_path: Path) -> None:
    assert Box.parse("generic/debian12") == Box("generic/debian12", None)
    assert not Box.parse("generic/debian12").own and Box.parse("xenlab-4.20-12").own
    file = tmp_path / "freebsd.box"
    file.touch()
    assert Box.parse(str(file)) == Box("freebsd", file.as_uri())


def test_the_last_own_box_serves_where_nothing_else_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "xenplugin/lab/boxes"
    folder.mkdir(parents=True)
    env = {"XDG_CACHE_HOME": str(tmp_path), "XENLAB_DRIVER": "qemu"}
    assert Settings.parse(env).box.name == DEBIAN_BOX
    for age, name in ((2, "xenlab-4.17-old"), (1, "xenlab-4.17-new"), (3, "xenlab-4.20-other")):
        (folder / f"{name}.box").touch()
        os.utime(folder / f"{name}.box", (1e9 - age, 1e9 - age))
    assert Settings.parse(env).box.name == "xenlab-4.17-new"
    assert Settings.parse(env | {"XENLAB_BOX": "debian/bookworm64"}).box.name == "debian/bookworm64"
    # VirtualBox cannot use it.
    assert Settings.parse({"XDG_CACHE_HOME": str(tmp_path)}).box.name == DEBIAN_BOX


def test_keys_are_made_once(tmp_path: Path) -> None:
    first = Secrets.of(tmp_path / "xenlab")
    again = Secrets.of(tmp_path / "xenlab")
    assert first == again and first.keys.private("host-a", "host") == make_keys(tmp_path / "xenlab/keys").private(
        "host-a", "host"
    )
