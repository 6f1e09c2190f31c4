"""The search for secrets on a host: what looks like a secret, what does not, and where it searches."""

from __future__ import annotations

import base64
import json
import os
import random
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.errors import CommandError, LabUsageError
from lab.hosts.role import secrets as host_secrets
from lab.verify.judge.leaks import (
    SecretSearch,
    describe_secrets,
    search_commands,
    search_files,
    search_processes,
)

FOUND: dict[str, Callable[[bytes], bytes]] = {
    "hex": lambda secret: secret.hex().encode(),
    "hex in capitals": lambda secret: secret.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64 for urls": base64.urlsafe_b64encode,
    "hex with colons": lambda secret: secret.hex(":").encode(),
    "hex with spaces": lambda secret: secret.hex(" ").encode(),
    "hex in words": lambda secret: secret.hex(" ", 4).encode(),
    "hex in quads": lambda secret: secret.hex("-", 8).encode(),
    "hex and commas": lambda secret: ", ".join(f"{byte:02x}" for byte in secret).encode(),
    "hex as C has it": lambda secret: ", ".join(f"0x{byte:02x}" for byte in secret).encode(),
    "numbers": lambda secret: str(list(secret)).encode(),
    "repr": lambda secret: repr(secret).encode(),
    "repr of a bytearray": lambda secret: repr(bytearray(secret)).encode(),
    "repr in JSON": lambda secret: json.dumps(repr(secret)).encode(),
    "latin-1 in JSON": lambda secret: json.dumps(secret.decode("latin-1")).encode(),
    "a number": lambda secret: str(int.from_bytes(secret, "big") | 1 << 255).encode(),
}
PUBLIC = [
    "Accepted publickey for root from 10.71.1.10 port 5 ssh2: ED25519 SHA256:{base64}",
    "ssh-ed25519 {base64}",
    '"sha256": "tree1:{hex}"',
    "sha256={hex}",
    "digest {hex}",
    "SHA-256 = {colons}",
]
NOT_PUBLIC = [
    "derived by HKDF-SHA256: {hex}",
    "derived by HKDF SHA256: {hex}",
    "hmac_sha256({hex}",
    "the secret's sha256: {hex}",
    "session of SHA256-{hex}",
    "nodigest {hex}",
]
#: Lines of logs, environments and xenstore of a Debian host with Xen.
HARMLESS = [
    "INVOCATION_ID=bd1b4c1a37a645c1a3a2c5b5b3f1d5a7",
    "/vm/6b1d6e35-1a0e-44a5-9d3e-3c4dbd34d0a1/uuid",
    "/usr/lib/python3/dist-packages/xenplugin/transfer/initiator/acceptor/reassembly",
    "BOOT_IMAGE=/boot/vmlinuz-6.1.0-28-amd64 root=UUID=6b1d6e35-1a0e-44a5-9d3e-3c4dbd34d0a1 ro",
    "__CURSOR=s=739ad463348b4ceca5a9e69c95a3c93f;i=4ece7;b=6c7c6013a26343b29e964691ff25d04c;m=4fc72436e",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "LS_COLORS=rs=0:di=01;34:ln=01;36:mh=00:pi=40;33",
    "org.freedesktop.systemd1.Manager.SubscribeToEverythingThatHappens",
    "====================================================================",
    "2026-11-29 04:41:42 2026-11-29 04:41:43 2026-11-29 04:41:44 2026-11-29 04:41:45 2026-11-29 04:41:46",
    "10 20 30 40 50 60 70 80 90 11 22 33 44 55 66 77 88 99 12 23 34 45 56 67 78 89 91 13 24 35 46 57 68 79",
    "cpus: " + ", ".join(map(str, range(64))),
    "0, 1, 0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 2, 3, 4, 5, 2, 3, 4, 5, 2, 3, 4, 5, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7",
    "6b1d6e35-1a0e-44a5-9d3e-3c4dbd34d0a1 7b1d6e35-1a0e-44a5-9d3e-3c4dbd34d0a2 8b1d6e35-1a0e-44a5-9d3e-3c4d",
    r"dev-disk-by\x2duuid-6b1d6e35\x2d1a0e\x2d44a5\x2d9d3e\x2d3c4dbd34d0a1.swap \x2d \x2d \x2d \x2d \x2d \x2d",
    "0x0000000000000000-0x000000000009fc00 0x000000000009fc00-0x00000000000a0000",
    "00:16:3e:5c:1a:01 00:16:3e:5c:1a:02 00:16:3e:5c:1a:03 00:16:3e:5c:1a:04 fe80::216:3eff:fe5c:1a01",
]


@pytest.mark.parametrize("name", FOUND)
def test_random_secrets_are_reported_in_every_spelling(name: str) -> None:
    chance = random.Random(name)
    missed = sum(
        not list(describe_secrets(b'{"secret": "' + FOUND[name](chance.randbytes(32)) + b'", "n": 1}'))
        for _ in range(3000)
    )
    assert missed <= 15  # base64: 1 in 1000, a decimal number: 1 in 300


@pytest.mark.parametrize("line", PUBLIC)
def test_public_values_are_not_reported(line: str) -> None:
    secret = secrets.token_bytes(32)
    text = line.format(hex=secret.hex(), base64=base64.b64encode(secret).decode(), colons=secret.hex(":"))
    assert not list(describe_secrets(text.encode()))
    assert (
        list(describe_secrets(text.replace(secret.hex(), f"x and {secret.hex()}").encode())) or "{hex}" not in line
    )


@pytest.mark.parametrize("line", NOT_PUBLIC)
def test_derived_values_and_similar_words_are_reported(line: str) -> None:
    assert list(describe_secrets(line.format(hex=secrets.token_hex(32)).encode()))


@pytest.mark.parametrize("line", HARMLESS)
def test_ordinary_text_is_not_reported(line: str) -> None:
    assert not list(describe_secrets(line.encode()))


def test_only_six_characters_of_a_secret_are_shown() -> None:
    secret = secrets.token_hex(32)
    (description,) = describe_secrets(secret.encode())
    assert description == f"hex, 64 characters: {secret[:6]}..."


def test_files_are_read_across_pieces_and_links_are_not_followed(tmp_path: Path) -> None:
    secret = secrets.token_hex(32)
    (tmp_path / "log.d").mkdir()
    (tmp_path / "log.d/big").write_text("." * ((1 << 20) - 20) + f" {secret} " + "." * 5000)
    (tmp_path / "outside").write_text(secret)
    (tmp_path / "log.d/link").symlink_to(tmp_path / "outside")
    (tmp_path / "log.d/system.journal").write_text(secret)
    search = SecretSearch()
    search_files(search, [tmp_path / "log.d", tmp_path / "missing", tmp_path / "outside"])
    assert [where for where, _ in search.leaks] == [str(tmp_path / "log.d/big"), str(tmp_path / "outside")]
    assert search.places == {"files": 2} and search.unread == {}


def test_places_that_cannot_be_read_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("syslog", "locked", "gone"):
        (tmp_path / name).write_text("nothing\n")
    opened = Path.open

    def refuse(self: Path, *words: Any) -> Any:
        if self.name in ("locked", "gone"):
            raise PermissionError if self.name == "locked" else FileNotFoundError
        return opened(self, *words)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_bytes", lambda self: refuse(Path("locked")))
    search = SecretSearch()
    search_files(search, [tmp_path])
    search_commands(search, {"xenstore": ["false"], "journal": ["sh", "-c", "echo half; exit 1"]})
    search_processes(search, [1])
    assert search.places == {"files": 1, "bytes of syslog": 8}
    assert search.unread == {"files": 1, "xenstore": 1, "journal": 1, "processes": 1}


def test_the_output_of_commands_is_searched(tmp_path: Path) -> None:
    secret = secrets.token_hex(32)
    search = SecretSearch()
    commands = {"xenstore": ["echo", f"/tool/xenplugin/secret = {secret}"], "nothing": ["no-such-command"]}
    search_commands(search, commands)
    assert [where for where, _ in search.leaks] == ["xenstore"] and search.places == {
        "bytes of xenstore": len(f"/tool/xenplugin/secret = {secret}\n")
    }


def test_ended_processes_and_the_search_itself_are_skipped() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    search = SecretSearch()
    search_processes(search, [ended.pid, os.getpid()])
    assert search.leaks == [] and search.places == {}


class Host:
    """A node of a lab that runs the search on this machine; `patch` replaces what it searches."""

    name = "host-a"

    def __init__(self, patch: str) -> None:
        self.patch = patch

    def check(self, words: list[str], stdin: str, *, timeout: float) -> str:
        assert words[:2] == ["python3", "-"]
        program = stdin.replace('if __name__ == "__main__":', f"{self.patch}\nif __name__ == '__main__':")
        line = [sys.executable, "-IS", "-", *words[2:]]
        return subprocess.run(line, input=program, capture_output=True, text=True, check=True, timeout=60).stdout


class Lab:
    """A provider with two hosts."""

    class abilities:
        xen = True

    def __init__(self, patch: str, *only: str) -> None:
        self._patch = patch
        self._only = only or ("host-a", "host-b")

    def nodes(self) -> dict[str, Host]:
        nothing = "WATCHED = FOLDERS = ()\nSTORE = COMMANDS = {}\npids = lambda: []"
        return {name: Host(self._patch if name in self._only else nothing) for name in ("host-a", "host-b")}


#: A clock of which a quarter of a second passes each time it is read: in half a second there are two searches.
CLOCK = "clock = iter(range(100))\ntime.monotonic = lambda: next(clock) / 4"


def patched(tmp_path: Path, pid: int) -> str:
    """Return code that limits the search to process `pid` and the folder of the test."""
    return f"WATCHED = ()\nFOLDERS = ({str(tmp_path)!r},)\nSTORE = COMMANDS = {{}}\npids = lambda: [{pid}]\n{CLOCK}"


def test_both_hosts_run_the_search(tmp_path: Path) -> None:
    secret = secrets.token_hex(32)
    (tmp_path / "plugin.log").write_text(f"the secret is {secret}\n")
    careless = subprocess.Popen([sys.executable, "-c", "input()", secret], stdin=subprocess.PIPE)
    try:
        found = host_secrets.look_at_hosts(Lab(patched(tmp_path, careless.pid)), 0.5)  # type: ignore[arg-type]
    finally:
        careless.kill()
        careless.communicate()
    assert found.keys() == {"host-a", "host-b"}
    for finding in found.values():
        assert [where.split(" ")[0] for where, _ in finding.leaks] == [
            f"/proc/{careless.pid}/cmdline",
            str(tmp_path / "plugin.log"),
        ]
        assert finding.places["files"] == 1 and finding.places["processes"] == 2  # searched twice


def test_secrets_that_exist_only_during_a_migration_are_found(tmp_path: Path) -> None:
    """The xenstore entry and the file are gone when the search ends."""
    store, state = tmp_path / "store", tmp_path / "state"
    state.mkdir()
    seen, secret = tmp_path / "seen", secrets.token_hex(32)
    (state / "record").write_text(secret)
    store.write_text(f"/tool/xenplugin/migration/x/secret = {secret}\n")
    once = f"cat {store}; rm -f {store} {state}/record; echo again >{store}; touch {seen}"
    patch = f"WATCHED = ({str(state)!r},)\nSTORE = {{'xenstore': ['sh', '-c', {once!r}]}}\n"
    patch += "FOLDERS = ()\nCOMMANDS = {}\npids = lambda: []"
    found = host_secrets.look_at_hosts(Lab(patch, "host-a"), 0.5)  # type: ignore[arg-type]
    assert [where for where, _ in found["host-a"].leaks] == [str(state / "record"), "xenstore"]
    assert not (state / "record").exists() and seen.exists()
    assert found["host-a"].places["bytes of xenstore"] > 100


def test_a_host_with_invalid_output_is_an_error(tmp_path: Path) -> None:
    lab = Lab("main = lambda _: print('oh')")
    with pytest.raises(CommandError, match="host-a"):
        host_secrets.look_at_hosts(lab, 0)  # type: ignore[arg-type]


def test_hosts_in_namespaces_are_refused() -> None:
    lab = Lab("")
    lab.abilities = type("abilities", (), {"xen": False})  # type: ignore[assignment]
    with pytest.raises(LabUsageError):
        host_secrets.look_at_hosts(lab, 0)  # type: ignore[arg-type]
