"""What tests and the plugin rely on of xl, checked against the fake one and, in a Xen host's dom0, the real one:

    python3 xl_cases.py XL [GUEST]

with a running GUEST for those that need one, which is as it was afterwards (its migration breaks off before its
memory moves). Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

BANNER = b"xl migration receiver ready, send binary domain data.\n"
MAGIC = b"Xen saved domain, xl format\n \0 \r"
NONE = "no-such-guest"
PATIENCE = 120
# What is run in place of ssh: writes down its words, answers as a receiver does, takes message 2 and ends.
_SSH = """import os, struct, sys
folder = {folder!r}
open(folder + "/words", "w").write(" ".join(sys.argv[1:]))
os.write(1, {banner!r})
def read(count):
    data = b""
    while len(data) < count and (piece := os.read(0, count - len(data))):
        data += piece
    return data
head = read(48)
open(folder + "/message", "wb").write(head + read(struct.unpack("=I", head[44:])[0]))
"""


def call(xl: str, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([xl, *words], input=data, capture_output=True, timeout=PATIENCE)


def rows(xl: str) -> list[str]:
    return call(xl, "list", "-v").stdout.decode().splitlines()


def message(config: dict[str, object], magic: bytes = MAGIC) -> bytes:
    """Message 2."""
    text = json.dumps(config).encode() + b"\0"
    return magic + struct.pack("=5I", 0x01020304, 3, 0, len(text) + 4, len(text)) + text


def start(xl: str, guest: str, folder: str, *options: str) -> tuple[subprocess.CompletedProcess[bytes], str, bytes]:
    """A migration that breaks off after message 2: how xl ended, what it ran in place of ssh, message 2."""
    script = Path(folder, "ssh.py")
    script.write_text(_SSH.format(folder=folder, banner=BANNER))
    ssh = shlex.join([sys.executable, str(script)])
    done = call(xl, *options[:1], "migrate", *options[1:], "-s", ssh, guest, "far")
    return done, Path(folder, "words").read_text(), Path(folder, "message").read_bytes()


def case_list_has_a_row_for_each_domain(xl: str) -> None:
    head, *found = rows(xl)
    assert re.fullmatch(r"Name +ID +Mem VCPUs\tState\tTime\(s\) +UUID +Reason-Code\tSecurity Label", head), head
    for row in found:
        assert re.fullmatch(
            r"\S+ +\d+ +\d+ +\d+     [r-][b-][p-][s-][rscwS?-][d-]  +\d+\.\d"
            r" [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12} +(-|[0-9a-f]+) +\S+",
            row,
        ), row
    assert found[0].startswith("Domain-0 ")


def case_one_domain_is_listed_alone(xl: str) -> None:
    head, _ = rows(xl)[:2]
    done = call(xl, "list", "-v", "0")
    assert done.returncode == 0 and done.stdout.decode().startswith(f"{head}\nDomain-0 "), done
    assert len(done.stdout.decode().splitlines()) == 2, done
    done = call(xl, "domid", "--", "Domain-0")
    assert (done.returncode, done.stdout) == (0, b"0\n"), done


def case_no_such_domain(xl: str) -> None:
    """All digits are a domain id."""
    for words in (("list", "-v", "32000"), ("list", "32000")):
        done = call(xl, *words)
        assert done.returncode == 1 and not done.stdout, done
        assert done.stderr.endswith(b"Error: Domain '32000' does not exist.\n"), done
    done = call(xl, "destroy", "32000")
    assert done.returncode == 1 and done.stderr.endswith(b"destroy failed (rc=-21)\n"), done
    done = call(xl, "domid", "32000")
    assert done.returncode == 1 and done.stderr.endswith(b"maybe this domain does not exist.\n"), done


def guest_is_listed_alone(xl: str, guest: str) -> None:
    (row,) = [row for row in rows(xl) if row.startswith(f"{guest} ")]
    domid = call(xl, "domid", "--", guest).stdout.decode().strip()
    alone = call(xl, "list", "-v", domid).stdout.decode()
    # its processor time has gone on
    assert [alone.splitlines()[-1].split()[at] for at in (0, 1, 6)] == [row.split()[at] for at in (0, 1, 6)], alone
    assert row.split()[1] == domid and alone.endswith("\n")


def case_no_such_guest(xl: str) -> None:
    for words in (("destroy", NONE), ("rename", NONE, "other"), ("pause", NONE), ("migrate", NONE, "far")):
        done = call(xl, *words)
        assert done.returncode == 1 and b"invalid domain identifier (rc=-6)" in done.stderr, done
    done = call(xl, "domid", NONE)
    assert done.returncode == 1 and b"Can't get domid of domain name" in done.stderr and not done.stdout


def case_words_that_make_no_sense(xl: str) -> None:
    for words in (("migrate", "--nonsense", "g", "h"), ("migrate", "g"), ("destroy",)):
        assert call(xl, *words).returncode == 2, words
    assert call(xl, "migrate-receive", "word").returncode == 1


def case_a_receiver_whose_source_ends(xl: str) -> None:
    done = call(xl, "migrate-receive")
    assert (done.returncode, done.stdout) == (1, BANNER), done


def case_a_receiver_that_gets_something_else(xl: str) -> None:
    before = rows(xl)
    done = call(xl, "migrate-receive", data=message({}, b"x" * 32))
    assert (done.returncode, done.stdout) == (1, BANNER), done
    assert len(rows(xl)) == len(before)


def case_a_receiver_looks_for_the_disks_first(xl: str) -> None:
    """Before a byte of the stream: no domain is left of it."""
    before = rows(xl)
    config = {
        "c_info": {"type": "pv", "name": NONE, "uuid": "00000000-1111-2222-3333-444444444444"},
        "b_info": {"max_vcpus": 1, "max_memkb": 32768, "target_memkb": 32768, "type.pv": {"kernel": "/dev/null"}},
        "disks": [{"pdev_path": "/nowhere/disk.img", "vdev": "xvda", "format": "raw", "readwrite": 1}],
    }
    done = call(xl, "migrate-receive", "-e", data=message(config))
    assert (done.returncode, done.stdout) == (1, BANNER), done
    assert b"stat" in done.stderr, done.stderr
    assert len(rows(xl)) == len(before)


def guest_what_a_migration_begins_with(xl: str, guest: str) -> None:
    before = [row for row in rows(xl) if row.startswith(f"{guest} ")]
    with tempfile.TemporaryDirectory() as folder:
        done, words, got = start(xl, guest, folder, "-v", "-p", "-e", "--debug")
        assert words == "far xl -v migrate-receive -e -d -p", words
        assert done.returncode == 1 and b"Migration failed, resuming at sender." in done.stderr, done
    order, mandatory, optional, length, size = struct.unpack("=5I", got[32:52])
    assert (got[:32], order, mandatory, optional, length) == (MAGIC, 0x01020304, 3, 0, len(got) - 48)
    assert size == length - 4 and got[-1:] == b"\0" and got.count(b"\0", 52) == 1
    config = json.loads(got[52:-1])
    (row,) = before
    assert config["c_info"]["name"] == guest and config["c_info"]["uuid"] in row
    assert config["c_info"].get("domid", 0) == 0
    for disk in config.get("disks", []):
        assert disk["pdev_path"].startswith("/") and disk["vdev"]
    (after,) = [row for row in rows(xl) if row.startswith(f"{guest} ")]
    assert after.split()[:4] == before[0].split()[:4] and "ss" not in after.split()[4]


def guest_keeps_its_domain_id_if_asked(xl: str, guest: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _, words, got = start(xl, guest, folder, "-v", "-D")
    assert words == "far xl -v migrate-receive" and json.loads(got[52:-1])["c_info"]["domid"] > 0


def guest_of_a_transport_that_fails_at_once(xl: str, guest: str) -> None:
    done = call(xl, "migrate", "-s", "false", guest, "far")
    assert done.returncode == 1 and b"exited with error status 1" in done.stderr, done
    assert any(row.startswith(f"{guest} ") for row in rows(xl))


def guest_cannot_have_anothers_name(xl: str, guest: str) -> None:
    done = call(xl, "rename", guest, "Domain-0")
    assert done.returncode == 1 and b"already exists" in done.stderr, done


CASES: dict[str, Callable[..., None]] = {
    name: case for name, case in list(globals().items()) if name.startswith(("case_", "guest_")) and callable(case)
}


def main() -> int:
    xl, *guest = sys.argv[1:]
    failed = 0
    for name, case in CASES.items():
        if name.startswith("guest_") and not guest:
            continue
        try:
            case(xl, *(guest if name.startswith("guest_") else []))
            print(f"ok      {name}")
        except Exception:
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}")
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ["LC_ALL"] = "C"
    sys.exit(main())
