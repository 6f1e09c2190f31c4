"""The ways on namespaces: xl's stream through IPsec, the paper's tools in sequence, what a user would pick, and the
plugin. Each is measured by the bench; here stands only what is typed.

`downtime`: how long the guest stands still. With a disk that is copied by a tool it must stand still from the begin
of the copy, or its disk would change under it; else from the suspension in the stream until the far xl lets it run.
"""

from __future__ import annotations

import json
import secrets
import shlex
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lab.errors import CommandError
from lab.fakexen import tcp
from lab.hosts.topology import HOST_B
from lab.measure import images
from lab.measure.native.bench import Bench
from lab.measure.native.hosts import NAME, Hosts
from lab.measure.sshd import NAME as HOST
from lab.measure.sshd import Sshd

Way = Callable[[Bench, int], dict[str, Any]]
_PORT = 9000
_OPENSSL = ["openssl", "enc", "-aes-128-cbc", "-pbkdf2"]


def existing(bench: Bench, writes: int) -> dict[str, Any]:
    """xl's stream over one TCP connection, which IPsec seals or nobody; the disk is where both hosts have it."""
    address = HOST_B.nics[0].address
    with ExitStack() as stack:
        hosts = Hosts(bench, stack)
        far = [sys.executable, tcp.__file__, "--listen", address, str(_PORT), str(bench.there / "bin" / "xl")]
        listener = bench.b.popen([*far, "migrate-receive"], stdin=-3, stdout=-1, stderr=-3)
        stack.callback(listener.wait)
        stack.callback(listener.terminate)
        assert listener.stdout is not None
        stack.callback(listener.stdout.close)
        if listener.stdout.readline() != b"listening\n":
            raise CommandError("nobody listens on host-b")
        shell = shlex.join([sys.executable, tcp.__file__, address, str(_PORT)])
        with bench.measured():
            bench.run(hosts.command(["xl", "migrate", "-s", shell, NAME, HOST]))
        _migrated(bench, hosts)
    return bench.figures


def paper(bench: Bench, writes: int, *, partial: bool) -> dict[str, Any]:
    """The paper's own tools, one after the other, the guest being stopped. full: AES-128, SCP, decrypt; partial:
    compress, AES-128, SCP, decrypt, decompress into the disk."""
    with ExitStack() as stack:
        hosts = Hosts(bench, stack, memory=False)
        ssh = stack.enter_context(hosts.ssh())
        key = bench.here / "key"
        key.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
        far = bench.there / "key"
        bench.run(["scp", *ssh.shell[1:], str(key), f"{HOST}:{far}"])
        plain, sealed = bench.here / "disk.gz", bench.here / "disk.enc"
        arrived, opened = bench.there / "disk.enc", bench.there / "disk.gz"
        with bench.measured():
            if partial:
                with bench.phase("compress"), plain.open("wb") as out:
                    bench.run(["gzip", "-c", str(bench.image.path)], stdout=out)
            source = plain if partial else bench.image.path
            with bench.phase("encrypt"):
                bench.run([*_OPENSSL, "-pass", f"file:{key}", "-in", str(source), "-out", str(sealed)])
            with bench.phase("scp"):
                bench.run(["scp", *ssh.shell[1:], str(sealed), f"{HOST}:{arrived}"])
            target = opened if partial else hosts.arrived
            words = [*_OPENSSL, "-d", "-pass", f"file:{far}", "-in", str(arrived), "-out", str(target)]
            with bench.phase("decrypt"):
                bench.run([*ssh.shell, HOST, shlex.join(words)])
            if partial:
                with bench.phase("decompress"):
                    write = f"cp --sparse=always /dev/stdin {shlex.quote(str(hosts.arrived))}"
                    bench.run([*ssh.shell, HOST, f"gunzip -c {shlex.quote(str(opened))} | {write}"])
        bench.check("disk", hosts.arrived, bench.image.sha256)
    bench.figures["downtime"] = bench.figures["seconds"]
    return bench.figures


def tools(bench: Bench, writes: int, *, disk: Callable[[Bench, Hosts, Sshd], None]) -> dict[str, Any]:
    """What a user would pick: the disk by `disk`, then xl over ssh."""
    with ExitStack() as stack:
        hosts = Hosts(bench, stack)
        ssh = stack.enter_context(hosts.ssh())
        with bench.measured():
            with bench.phase("disk"):
                disk(bench, hosts, ssh)
            with bench.phase("memory"):
                bench.run(hosts.command(["xl", "migrate", "-s", shlex.join(ssh.shell), NAME, HOST]))
        _migrated(bench, hosts)
        bench.check("disk", hosts.arrived, bench.image.sha256)
    bench.figures["downtime"] = bench.figures["seconds"]
    return bench.figures


def _rsync(bench: Bench, hosts: Hosts, ssh: Sshd) -> None:
    words = ["rsync", "-S", "-z", "--zc=zstd", "-e", shlex.join(ssh.shell)]
    bench.run([*words, str(bench.image.path), f"{HOST}:{hosts.arrived}"])


def _zstd(bench: Bench, hosts: Hosts, ssh: Sshd) -> None:
    far = f"zstd -q -d --sparse -f -o {shlex.quote(str(hosts.arrived))}"
    line = f"zstd -q -1 -T0 -c {shlex.quote(str(bench.image.path))} | {shlex.join([*ssh.shell, HOST, far])}"
    bench.run(["bash", "-o", "pipefail", "-c", line])


def plugin(bench: Bench, writes: int, *, mode: str) -> dict[str, Any]:
    """`xenplugin migrate`, with the disk, which the far side does not have."""
    with ExitStack() as stack:
        hosts = Hosts(bench, stack, copied=True, writes=writes)
        ssh = stack.enter_context(hosts.ssh())
        words = [sys.executable, "-P", "-m", "xenplugin", "migrate", "--json", "--no-progress", "--mode", mode]
        words += ["--config", str(bench.here / "xenplugin.conf"), "-s", shlex.join(ssh.shell), NAME, HOST]
        with tempfile.TemporaryFile() as out:
            with bench.measured():
                said = bench.run(hosts.command(words), stdout=out)
            out.seek(0)
            result = _result(out.read())
        _migrated(bench, hosts)
        # What the guest has written up to its suspension is there as well.
        now = images.sha256(hosts.disk)
        bench.check("disk", hosts.arrived, now)
        bench.figures["written"] = now != bench.image.sha256
    # Before the transport begins to count, and after it has ended: the programs' start, and xl's.
    start = bench.figures["seconds"] - sum(result["phases"].values())
    bench.figures["phases"] = {"start": round(max(0.0, start), 3), **result["phases"]}
    bench.figures["result"] = result
    bench.figures["said"] = said[-10:]
    return bench.figures


def _result(text: bytes) -> dict[str, Any]:
    """What xenplugin says of a migration. Raises CommandError."""
    try:
        found: dict[str, Any] = json.loads(text)
        sum(found["phases"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CommandError(f"xenplugin did not say how it went ({error!r}): {text[:200]!r}") from None
    return found


def _migrated(bench: Bench, hosts: Hosts) -> None:
    """What xl's own times say, and that the memory is what was sent."""
    times = hosts.times()
    bench.check("memory", Path(bench.there / "memory"), bench.stream.sha256)
    bench.figures["downtime"] = round(times["runs"] - times["suspended"], 3)
    bench.figures["phases"] = bench.figures["phases"] or {
        "connect": round(bench.figures["seconds"] - (times["runs"] - times["began"]), 3),
        "memory": round(times["suspended"] - times["began"], 3),
        "stopped": round(times["runs"] - times["suspended"], 3),
    }


WAYS: dict[str, Way] = {
    "existing": existing,
    "existing-gcm": existing,
    "plain": existing,
    "paper-full": lambda bench, writes: paper(bench, writes, partial=False),
    "paper-partial": lambda bench, writes: paper(bench, writes, partial=True),
    "rsync": lambda bench, writes: tools(bench, writes, disk=_rsync),
    "zstd": lambda bench, writes: tools(bench, writes, disk=_zstd),
    "full": lambda bench, writes: plugin(bench, writes, mode="full"),
    "static": lambda bench, writes: plugin(bench, writes, mode="static"),
    "live": lambda bench, writes: plugin(bench, writes, mode="live"),
}
