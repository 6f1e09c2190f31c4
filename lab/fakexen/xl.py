"""The fake xl: the verbs that a migration needs.

Words, order and exit codes are those of Xen 4.17 (tools/xl/xl_migrate.c, xl_vmcontrol.c): options end at the first
operand, whose rest is ignored. The program `xl` of a
fake host calls `run`.
"""

from __future__ import annotations

import getopt
import json
import os
import sys
from typing import Any, NoReturn

from lab.fakexen.host import Domain, Host, LibxlError, find_disks
from lab.fakexen.messages import complain
from lab.fakexen.receiver import receive
from lab.fakexen.sender import Sender

HEAD = "Name                                        ID   Mem VCPUs\tState\tTime(s)"
VERBOSE = "   UUID                            Reason-Code\tSecurity Label"

DOM0: Domain = {"domid": 0, "name": "Domain-0", "uuid": "00000000-0000-0000-0000-000000000000", "paused": False,
                "shutdown": False, "guest": 1}  # fmt: skip


def main(host: Host, words: list[str]) -> int:
    """Do what `xl WORDS` does on `host`. Returns its exit status."""
    try:
        flags, rest = getopt.getopt(words, "vftTN")
    except getopt.GetoptError:
        return _usage()
    verb, *words = rest or ["help"]
    verbs = {"info": _info, "list": _list, "domid": _domid, "create": _create, "destroy": _destroy,
             "rename": _rename, "pause": _pause, "unpause": _unpause, "migrate": _migrate,
             "migrate-receive": _receive}  # fmt: skip
    run = verbs.get(verb)
    if run is None:
        return _usage()
    if ("-N", "") in flags and verb == "migrate":
        complain("command does not implement -N (dryrun) option")
        return 1
    try:
        return run(host, words, [flag for flag, _ in flags])
    except (getopt.GetoptError, IndexError):
        _usage()
        return 2
    except LibxlError as error:
        complain(f"libxl: error: {error}")
        return 1


def _usage() -> int:
    complain("Usage xl [-vfNtT] <subcommand> [args]")
    return 1


# -- one domain ------------------------------------------------------------------------------------


def _domain_id(host: Host, who: str) -> int:
    """Return the id that `who` stands for: digits are one, whatever domains are called."""
    if who.isascii() and who.isdecimal():
        return int(who) & 0xFFFFFFFF
    for domain in host.domains():
        if domain["name"] == who:
            return int(domain["domid"])
    complain(f"{who} is an invalid domain identifier (rc=-6)")
    sys.exit(1)


def _list(host: Host, words: list[str], flags: list[str]) -> int:
    options, who = getopt.getopt(words, "vl", ["long"])
    domains = [DOM0, *host.domains()]
    if who:
        domid = _domain_id(host, who[0])
        domains = [domain for domain in domains if domain["domid"] == domid]
        if not domains:
            complain(f"Error: Domain '{who[0]}' does not exist.")
            return 1
    if {"-l", "--long"} & dict(options).keys():  # list_domains_details of tools/xl/xl_info.c
        with_config = [domain for domain in domains if "config" in domain]
        print(json.dumps([{"domid": one["domid"], "config": _config(one)} for one in with_config], indent=4))
        return 0
    print(HEAD + (VERBOSE if options else ""))
    for domain in domains:
        still = domain["paused"] or domain["shutdown"]
        state = ("r-" if domain["domid"] == 0 else "--" if still else "-b") + ("p" if domain["paused"] else "-")
        state += ("ss" if domain["shutdown"] else "--") + "-"
        row = f"{domain['name']:<40} {domain['domid']:5d} {256:5d} {1:5d}     {state}  {12.5:8.1f}"
        if options:
            row += f" {domain['uuid']} {'2' if domain['shutdown'] else '-':>8} {'-':>16}"
        print(row)
    return 0


def _config(domain: Domain) -> dict[str, Any]:
    """Return the configuration as libxl_retrieve_domain_configuration does: with the name that the domain has."""
    config: dict[str, Any] = domain["config"]
    return {**config, "c_info": {**config["c_info"], "name": domain["name"]}}


def _info(host: Host, words: list[str], flags: list[str]) -> int:
    """Print some of output_physinfo and output_xeninfo; the knob `info` changes or removes (null) lines."""
    lines = {
        "host": os.path.basename(host.root), "nr_cpus": "4", "hw_caps": "178bf3ff:f6d8320b:2e500800:244037ff",
        "virt_caps": "pv hvm hap shadow", "total_memory": "8191", "free_memory": "4096", "xen_major": "4",
        "xen_minor": "17", "xen_extra": ".5", "xen_version": "4.17.5",
        "xen_commandline": "placeholder dom0_mem=1024M", "xend_config_format": "4",
    }  # fmt: skip
    for name, value in {**lines, **host.knob("info", {})}.items():
        if value is not None:
            print(f"{name:<23}: {value}")
    return 0


def _domid(host: Host, words: list[str], flags: list[str]) -> int:
    _, names = getopt.getopt(words, "")
    for domain in [DOM0, *host.domains()]:
        if domain["name"] == names[0]:
            print(domain["domid"])
            return 0
    complain(f"Can't get domid of domain name '{names[0]}', maybe this domain does not exist.")
    return 1


def _create(host: Host, words: list[str], flags: list[str]) -> int:
    """Create a domain from a configuration file, which is xl.cfg(5) or libxl's JSON."""
    from lab.fakexen import config_file  # takes a while, and other commands need nothing of it

    first = [words.pop(0)] if words and not words[0].startswith("-") and "=" not in words[0] else []
    options, rest = getopt.getopt(words, "Fnqf:pcdeVAi", ["dryrun", "quiet", "defconfig="])
    given = dict(options)
    path = given.get("-f") or given.get("--defconfig") or (first + rest)[0]
    if not {"-q", "--quiet"} & given.keys():
        complain(f"Parsing config from {path}")
    try:
        config = config_file.read(path, [word for word in rest if "=" in word])
    except OSError as error:
        complain(f"Failed to read config file: {path}: {error.strerror}")
        return 3
    except config_file.ConfigError as error:
        complain(str(error))
        return 1
    if "-N" in flags or {"-n", "--dryrun"} & given.keys():
        os.write(1, os.fsencode(json.dumps(config, indent=4, ensure_ascii=False)))
        return 0
    for nic in config.get("nics", []):  # libxl__device_nic_setdefault
        nic.setdefault("bridge", "xenbr0")
    find_disks(config)
    domain = host.make(config, config["c_info"]["name"])
    host.furnish(domain["domid"], 0)
    if "-p" not in given:
        host.unpause(domain["domid"])
    return 0


def _destroy(host: Host, words: list[str], flags: list[str]) -> int:
    try:
        host.destroy(_domain_id(host, words[-1]))
    except LibxlError as error:
        complain(f"destroy failed (rc={error.rc})")
        return 1
    return 0


def _rename(host: Host, words: list[str], flags: list[str]) -> int:
    try:
        host.rename(_domain_id(host, words[0]), words[1])
    except LibxlError as error:
        complain(f"libxl: error: {error}\nCan't rename domain '{words[0]}'.")
        return 1
    return 0


def _pause(host: Host, words: list[str], flags: list[str]) -> int:
    return _quietly(host.pause, _domain_id(host, words[0]))


def _unpause(host: Host, words: list[str], flags: list[str]) -> int:
    return _quietly(host.unpause, _domain_id(host, words[0]))


def _quietly(act: Any, domid: int) -> int:
    try:
        act(domid)
    except LibxlError as error:
        complain(f"libxl: error: {error}")
    return 0


def _migrate(host: Host, words: list[str], flags: list[str]) -> int:
    options, where = getopt.getopt(words, "FC:s:epDh", ["debug", "live", "help"])
    given = dict(options)
    if given.keys() & {"-h", "--help"}:
        print("Usage: xl [-vtTf] migrate [options] <Domain> <host>")
        return 0
    who, far = where[0], where[1]
    domain = host.domain(_domain_id(host, who))
    rune = far
    if ssh := given.get("-s", "ssh"):
        verbose = flags.count("-v")
        rune = f"exec {ssh} {far} xl" + (" -t" if "-t" in flags or os.isatty(2) else "")
        rune += (" -T" if "-T" in flags else "") + (f" -{'v' * verbose}" if verbose else "")
        rune += " migrate-receive" + (" -e" if given.keys() & {"-e", "-F"} else "")
        rune += (" -d" if "--debug" in given else "") + (" -p" if "-p" in given else "")
    config = domain["config"]
    if "-C" in given:
        from lab.fakexen import config_file

        config = config_file.read(given["-C"], [])
    elif "-D" in given:
        config = {**config, "c_info": {**config["c_info"], "domid": domain["domid"]}}
    text = json.dumps(config, indent=4, ensure_ascii=False)  # libxl writes bytes as they are
    for key, value in host.knob("twice", {}).items():  # as no xl writes it: libxl reads the first, Python the last
        text = text.replace(f'"{key}":', f'"{key}": {json.dumps(value)}, "{key}":', 1)
    return Sender(host, domain, rune, os.fsencode(text) + b"\0").run()


def _receive(host: Host, words: list[str], flags: list[str]) -> int:
    options, rest = getopt.getopt(words, "Fedrp")
    return _usage() if rest else receive(host, ("-p", "") in options)


def run(host: Host) -> NoReturn:
    """Be the program `xl` of `host`."""
    sys.exit(main(host, sys.argv[1:]))
