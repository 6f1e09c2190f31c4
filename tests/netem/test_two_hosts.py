"""The real emulator between real namespaces. No test expects anything to be fast: the machine may be loaded."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netem import leftovers, netns, seeded_random
from netem.errors import HostsError
from netem.profile import Profile
from netem.two_hosts import TwoHosts
from tests.helpers.namespaces import needs_namespaces

pytestmark = needs_namespaces
PATIENCE = 20.0  # seconds; how long something may take before it counts as "never"
HOLDER = """
import sys, time
from netem import netns
from netem.profile import Profile
from netem.two_hosts import TwoHosts
with TwoHosts(Profile(rtt=0.01), sys.argv[1]) as hosts:
    hosts.a.popen(["sleep", "1000"])
    hosts.b.run(["sh", "-c", "sleep 1000 >/dev/null 2>&1 &"])
    while not (netns.pids(hosts.a.name) and netns.pids(hosts.b.name)):
        time.sleep(0.01)
    print(hosts._emulator.pid, flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def shared() -> Iterator[TwoHosts]:
    with TwoHosts(Profile(), "nt") as hosts:
        yield hosts


def udp_pair(hosts: TwoHosts, *, six: bool = False) -> tuple[socket.socket, socket.socket]:
    """Return a socket on a that is connected to a socket on b, and that one."""
    family = socket.AF_INET6 if six else socket.AF_INET
    near = hosts.a.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
    far = hosts.b.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
    far.bind((hosts.b.address6 if six else hosts.b.address, 0))
    near.connect(far.getsockname()[:2])
    for each in (near, far):
        each.settimeout(PATIENCE)
    return near, far


def wait_until_empty(hosts: TwoHosts, packets: int) -> dict[str, int]:
    """Wait until `packets` were sent from a and none is in flight; return the counters of a to b."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        counts: dict[str, int] = hosts.stats()["a_to_b"]
        if counts["packets"] >= packets and not counts["in_flight"]:
            return counts
        time.sleep(0.01)
    raise AssertionError("packets are still in flight")


@pytest.mark.parametrize("six", [False, True])
def test_a_round_trip_takes_at_least_the_rtt(shared: TwoHosts, six: bool) -> None:
    shared.change(Profile(rtt=0.03))
    near, far = udp_pair(shared, six=six)
    for number in range(5):
        start = time.monotonic()
        near.send(b"%d" % number)
        data, sender = far.recvfrom(100)
        assert time.monotonic() - start >= 0.015
        far.sendto(data, sender)
        assert near.recv(100) == b"%d" % number
        assert time.monotonic() - start >= 0.03
    stats = shared.stats()
    assert stats["a_to_b"]["packets"] == stats["b_to_a"]["packets"] == 5
    assert stats["a_to_b"]["bytes"] == 5 * ((40 if six else 20) + 8 + 1)
    assert stats["a_to_b"]["delivered_bytes"] == stats["a_to_b"]["bytes"]
    assert stats["a_to_b"]["lateness"]["count"] == 5


def test_the_lost_datagrams_are_the_predicted_ones(shared: TwoHosts) -> None:
    shared.change(Profile(rtt=0.002, loss=0.2, seed=42))
    near, far = udp_pair(shared)
    for number in range(300):
        near.send(b"%d" % number)
    want = [n for n in range(300) if not seeded_random.lost(42, 0, n, 0.2)]
    assert [int(far.recv(100)) for _ in want] == want
    assert wait_until_empty(shared, 300)["lost"] == 300 - len(want) > 0
    far.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.recv(100)


@pytest.mark.parametrize("six", [False, True])
def test_tcp_survives_losses_inside_gso_packets(shared: TwoHosts, six: bool) -> None:
    """Frames that were cut must still be good TCP: same bytes out, no checksum errors."""
    shared.change(Profile(rtt=0.002, loss=0.01, seed=5))
    address = shared.b.address6 if six else shared.b.address
    family = socket.AF_INET6 if six else socket.AF_INET
    listener = shared.b.call(lambda: socket.create_server((address, 0), family=family))
    listener.settimeout(PATIENCE)
    data = os.urandom(1 << 20) * 3

    def send() -> None:
        with shared.a.call(lambda: socket.create_connection(listener.getsockname()[:2], PATIENCE)) as near:
            near.sendall(data)

    sender = threading.Thread(target=send)
    sender.start()
    far, _ = listener.accept()
    far.settimeout(PATIENCE)
    digest = hashlib.sha256()
    while piece := far.recv(1 << 20):
        digest.update(piece)
    sender.join()
    assert digest.digest() == hashlib.sha256(data).digest()
    for way, key in enumerate(("a_to_b", "b_to_a")):
        counts = shared.stats()[key]
        assert counts["lost"] == seeded_random.count_lost(5, way, 0.01, counts["packets"])
        assert counts["undeliverable"] == counts["overrun"] == 0
    assert shared.stats()["a_to_b"]["lost"] > 0
    for line in shared.b.call(lambda: Path("/proc/thread-self/net/snmp").read_text()).splitlines():
        if line.startswith("Tcp:") and "InCsumErrors" in line:
            column = line.split().index("InCsumErrors")
        elif line.startswith("Tcp:"):
            assert line.split()[column] == "0"


def test_rate_is_never_exceeded_and_the_tail_is_dropped(shared: TwoHosts) -> None:
    rate = 8_000_000
    shared.change(Profile(rate_bits=rate, queue=20_000))
    near, far = udp_pair(shared)
    before = shared.stats()
    for _ in range(100):
        near.send(bytes(1000 - 28))
    counts = wait_until_empty(shared, 100)
    after = shared.stats()
    assert counts["packets"] == counts["delivered_packets"] + counts["dropped"] == 100
    assert counts["delivered_bytes"] * 8 <= rate * (after["time"] - before["time"])
    assert counts["delivered_packets"] >= 20  # what fits the queue gets through
    assert len(far.recv(2000)) == 1000 - 28


def test_jitter_does_not_reorder(shared: TwoHosts) -> None:
    shared.change(Profile(rtt=0.01, jitter=0.005, seed=8))
    near, far = udp_pair(shared)
    for number in range(200):
        near.send(b"%d" % number)
    assert [int(far.recv(100)) for _ in range(200)] == list(range(200))


def test_commands_run_on_their_host(shared: TwoHosts) -> None:
    for host in (shared.a, shared.b):
        done = host.run(["ip", "-o", "address"], capture_output=True, text=True, check=True)
        assert f"{host.address}/24" in done.stdout
        assert f"{host.address6}/64" in done.stdout
        assert "lo" in done.stdout


def test_sysctls_are_set_and_bad_ones_leave_nothing_behind() -> None:
    with TwoHosts(Profile(), "nt", sysctls={"net.ipv4.tcp_congestion_control": "cubic"}) as hosts:
        path = Path("/proc/sys/net/ipv4/tcp_congestion_control")
        assert hosts.b.call(path.read_text).strip() == "cubic"
    with pytest.raises(HostsError, match=r"net\.ipv4\.nonsense"):
        with TwoHosts(Profile(), "nt", sysctls={"net.ipv4.nonsense": "1"}) as hosts:
            pass
    assert not [name for name in netns.names() if name in (hosts.a.name, hosts.b.name)]


def test_an_exception_leaves_nothing_behind() -> None:
    with pytest.raises(ZeroDivisionError):
        with TwoHosts(Profile(), "nt") as hosts:
            child = hosts.a.popen(["sleep", "1000"])
            assert netns.exists(hosts.a.name)
            raise ZeroDivisionError
    assert child.returncode is not None
    assert not netns.exists(hosts.a.name)
    assert not netns.exists(hosts.b.name)
    with pytest.raises(HostsError, match="was stopped"):
        hosts.stats()


def test_unsent_data_does_not_outlive_the_world() -> None:
    """Otherwise its buffers would count against the memory of all TCP connections of this machine."""
    with TwoHosts(Profile(), "nt") as hosts:
        listener = hosts.b.call(lambda: socket.create_server((hosts.b.address, 0)))
        near = hosts.a.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        near.connect(listener.getsockname())
        far, _ = listener.accept()
        near.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                near.send(bytes(1 << 16))
        space = os.open(netns.path(hosts.a.name), os.O_RDONLY)
        near.close()
    try:
        deadline = time.monotonic() + PATIENCE
        while "\nTCP: inuse 0 " not in netns.call(f"/proc/self/fd/{space}", sockstat):
            assert time.monotonic() < deadline, "the connection lives on"
            time.sleep(0.05)
    finally:
        os.close(space)
        far.close()
        listener.close()


def sockstat() -> str:
    return Path("/proc/thread-self/net/sockstat").read_text()


def test_a_dead_emulator_is_reported_not_waited_for() -> None:
    with TwoHosts(Profile(), "nt") as hosts:
        assert hosts._emulator is not None
        os.kill(hosts._emulator.pid, signal.SIGKILL)
        with pytest.raises(HostsError, match="emulator ended"):
            hosts.stats()
    assert not netns.exists(hosts.a.name)


def hold(prefix: str) -> tuple[subprocess.Popen[str], list[str], int]:
    """Start another process that holds TwoHosts; return it, its namespaces and its emulator's process ID."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, prefix], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    emulator = int(holder.stdout.readline())
    return holder, [f"{prefix}-{side}-{holder.pid}" for side in "ab"], emulator


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_clean_up(number: signal.Signals) -> None:
    holder, names, emulator = hold("nt")
    inside = [pid for name in names for pid in netns.pids(name)]
    assert len(inside) == 2
    holder.send_signal(number)
    holder.wait(PATIENCE)
    assert not set(names) & set(netns.names())
    for pid in (emulator, *inside):
        wait_gone(pid)


def test_clean_removes_only_namespaces_of_ended_processes(shared: TwoHosts) -> None:
    holder, names, emulator = hold("nt")
    inside = [pid for name in names for pid in netns.pids(name)]
    assert not set(names) & set(leftovers.find("nt"))
    holder.kill()
    holder.wait()
    wait_gone(emulator)
    assert set(names) <= set(leftovers.find("nt"))
    assert set(names) <= set(leftovers.clean("nt"))
    assert not set(names) & set(netns.names())
    assert netns.exists(shared.a.name)
    for pid in inside:
        wait_gone(pid)


def test_the_emulator_writes_its_status_file(tmp_path: Path) -> None:
    names = [f"nt-{side}-{os.getpid()}-status" for side in "ab"]
    file = tmp_path / "status.json"
    try:
        for name in names:
            netns.add(name)
        words = ["--ns-a", names[0], "--ns-b", names[1], "--rtt", "5ms", "--status", str(file)]
        child = subprocess.Popen([sys.executable, "-m", "netem.emulator", *words])
        deadline = time.monotonic() + PATIENCE
        while not up(names[1]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        while not file.exists():
            if handles(child.pid, signal.SIGUSR1):
                child.send_signal(signal.SIGUSR1)
            time.sleep(0.01)
            assert time.monotonic() < deadline
        assert child.poll() is None
        file.unlink()
        child.terminate()
        assert child.wait(PATIENCE) == 0
        assert '"rtt": 0.005' in file.read_text()
    finally:
        for name in names:
            netns.delete(name)


def handles(pid: int, number: signal.Signals) -> bool:
    """Return whether a process catches a signal (proc(5): SigCgt)."""
    caught = re.search(r"SigCgt:\s+([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


def up(name: str) -> bool:
    return "wan" in netns.call(name, lambda: Path("/proc/thread-self/net/dev").read_text())


def test_a_bad_namespace_is_one_sentence() -> None:
    words = ["--ns-a", "nt-nowhere", "--ns-b", "nt-nowhere"]
    done = subprocess.run(
        [sys.executable, "-m", "netem.emulator", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "netem: error: network namespace nt-nowhere: No such file or directory\n"
