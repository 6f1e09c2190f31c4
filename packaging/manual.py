"""Makes the man pages, the configuration file and the shell completion from the program's options and settings.

    python3 packaging/manual.py FOLDER

Prose stands in packaging/man/*.in. Lists are made here from the click commands, the fields of Config and the
classes of errors each time the package is built, so that no page differs from the program. A line `@NAME@` of a
template is replaced by the part of that name. Pages are mdoc (mdoc(7)).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from xenplugin import __version__  # noqa: E402
from xenplugin.cli.main import cli  # noqa: E402
from xenplugin.codec.seal import CIPHERS  # noqa: E402
from xenplugin.config import Config, option_text  # noqa: E402
from xenplugin.errors import BY_CODE  # noqa: E402

#: Names of option values, where the option's own name is unsuitable.
METAVARS = {"ssh": "command", "remote_program": "command", "config": "file", "level": "level", "key_file": "key"}
#: Values that the shell completes.
VALUES = {
    "--level": ("auto", "store", "1", "3", "6", "9", "19"),
    "--cipher": ("auto", *CIPHERS),
    "--congestion": ("cubic", "bbr"),
    "--mode": ("live", "static", "full"),
}
#: Examples for settings that have no default to write because the program finds their value.
EXAMPLES = {"congestion": '"bbr"', "address": '"192.0.2.7"', "shared": '["/dev/vg_san"]'}
AUTO = ("level", "cipher", "streams")


def verbs() -> dict[str, click.Command]:
    """Return the verbs that are not hidden, in alphabetical order."""
    return {name: command for name, command in sorted(cli.commands.items()) if not command.hidden}


def options(command: click.Command) -> list[click.Option]:
    """Return the options of a verb that are not hidden, in the order of `--help`."""
    return [each for each in command.params if isinstance(each, click.Option) and not each.hidden]


def arguments(command: click.Command) -> list[str]:
    """Return the arguments of a verb as `--help` writes them, such as [HOST:]DST."""
    return [each for each in command.collect_usage_pieces(click.Context(command)) if each != "[OPTIONS]"]


def settings() -> list[Field[Any]]:
    """Return the settings that the configuration file may have."""
    return [each for each in fields(Config) if each.metadata]


def default(setting: Field[Any]) -> str | None:
    """Return the setting's default as TOML; None if it has no default to write."""
    value = setting.default
    if setting.name == "state_dir":
        return '"/var/lib/xen/xenplugin"'  # the default of root, not of the user who builds
    if setting.name in AUTO:
        return '"auto"'
    if value is None:
        return None
    if setting.type == "tuple[str, ...]":
        return json.dumps(value)
    if isinstance(value, tuple):  # of pairs: a table
        return "{" + ", ".join(f"{json.dumps(key)} = {json.dumps(each)}" for key, each in value) + "}"
    return json.dumps(value if isinstance(value, str | bool | int) else option_text(setting.name, value))


def configuration() -> str:
    """Return the configuration file: every setting with its default, commented out."""
    lines = [
        "# Settings of xenplugin on this host: xenplugin.conf(5). Values after # are defaults or examples.",
        "# Options on the command line override this file. The far host reads its own.",
    ]
    for setting in settings():
        flag = f" Option {setting.metadata['flag']}." if setting.metadata["flag"] else ""
        value = default(setting)
        shown = value or f"{EXAMPLES[setting.name]}  # an example; by default it is found automatically"
        lines += ["", *_wrapped(f"{setting.metadata['help']}{flag}", 116), f"#{setting.name} = {shown}"]
    return "\n".join(lines) + "\n"


def _wrapped(text: str, width: int) -> Iterator[str]:
    line = "#"
    for word in text.split():
        if len(line) + 1 + len(word) > width:
            yield line
            line = "#"
        line += f" {word}"
    yield line


# -- man pages ---------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """Return `text` for mdoc: nothing in it is a macro, and hyphens are printed as typed."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("'", "\\(aq")
    return f"\\&{text}" if text.startswith(".") else text


def _flag(option: click.Option) -> str:
    names = [f"Fl {escaped(name[1:])}" for name in (*option.opts, *option.secondary_opts)]
    value = "" if option.is_flag else f" Ar {escaped(_metavar(option))}"
    return " , ".join(f"{name}{value}" for name in names)


def _metavar(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices))
    name = str(option.name)
    return option.metavar.lower() if option.metavar else METAVARS.get(name, name.replace("_", "-"))


def _option_list(made: list[click.Option]) -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for option in made:
        yield f".It {_flag(option)}"
        yield escaped(option.help or "")
    yield ".El"


def _key(option: click.Option) -> tuple[str, str]:
    return option.opts[0], option.help or ""


def _shared() -> list[click.Option]:
    """Return the options that more than one verb has with the same help, each once."""
    seen: dict[tuple[str, str], list[click.Option]] = {}
    for command in verbs().values():
        for option in options(command):
            seen.setdefault(_key(option), []).append(option)
    return [each[0] for _, each in sorted(seen.items()) if len(each) > 1]


def synopsis() -> Iterator[str]:
    """Yield SYNOPSIS: a line for each verb."""
    for name, command in verbs().items():
        yield from (
            ".Nm xenplugin",
            f".Cm {name}",
            ".Op Ar options",
            *(f".{_flag(each)}" for each in options(command) if each.required),
            *(f".Ar {escaped(each)}" for each in arguments(command)),
        )


def commands() -> Iterator[str]:
    """Yield COMMANDS: what each verb does, and the options that only it has."""
    known = {_key(each) for each in _shared()}
    common = set.intersection(*({_key(each) for each in options(command)} for command in verbs().values()))
    yield ".Bl -tag -width Ds"
    for name, command in verbs().items():
        words = " ".join(f"Ar {escaped(word)}" for word in arguments(command))
        yield f".It Cm {name} {words}".rstrip()
        for count, paragraph in enumerate((command.help or "").replace("\b", "").strip().split("\n\n")):
            if count:
                yield ".Pp"
            yield escaped(" ".join(paragraph.split()))
        shared = [each.opts[-1] for each in options(command) if _key(each) in known - common]
        own = [each for each in options(command) if _key(each) not in known]
        if own:
            yield from _option_list(own)
        if shared:
            yield ".Pp"
            yield "Also, as described below:"
            yield from (f".Fl {escaped(flag[1:])} ," for flag in shared[:-1])
            yield f".Fl {escaped(shared[-1][1:])} ."
    yield ".El"


def shared_options() -> Iterator[str]:
    """Yield OPTIONS: those that several verbs have. Options that all have are not named with each verb."""
    yield from _option_list(_shared())


def exit_status() -> Iterator[str]:
    """Yield EXIT STATUS: the exit codes and their meaning."""
    yield ".Bl -tag -width Ds"
    yield ".It 0"
    yield "Done."
    for code, kind in sorted(BY_CODE.items()):
        yield f".It {code}"
        yield escaped(" ".join((kind.__doc__ or "").split()))
    yield ".El"


def keys() -> Iterator[str]:
    """Yield the settings: key, default, meaning, option."""
    yield ".Bl -tag -width Ds"
    for setting in settings():
        value = default(setting)
        yield f".It Ic {setting.name}" + (f" No = Li {escaped(value)}" if value is not None else "")
        yield escaped(setting.metadata["help"])
        if setting.metadata["flag"]:
            yield f".Pq option Fl {escaped(setting.metadata['flag'][1:])}"
    yield ".El"


PARTS = {
    "SYNOPSIS": synopsis,
    "COMMANDS": commands,
    "OPTIONS": shared_options,
    "EXIT": exit_status,
    "KEYS": keys,
}


def page(template: str) -> str:
    """Return the man page of `template`. Raises KeyError for an unknown part."""
    lines: list[str] = []
    for line in template.splitlines():
        if line.startswith("@") and line.endswith("@"):
            lines += PARTS[line.strip("@")]()
        else:
            lines.append(line.replace("@VERSION@", __version__))
    return "\n".join(lines) + "\n"


# -- completion --------------------------------------------------------------------------------------


def completion() -> str:
    """Return the completion for bash. It does not start Python, because the shell must not wait."""
    cases = []
    for name, command in verbs().items():
        flags = [flag for each in options(command) for flag in (*each.opts, *each.secondary_opts)]
        valued = [flag for each in options(command) if not each.is_flag for flag in each.opts]
        plain = [word.strip("[].").lower() for each in arguments(command) for word in each.split()]
        cases.append(
            f"    {name}) flags='{' '.join(flags)} --help' valued='{' '.join(valued)}' plain='{' '.join(plain)}' ;;"
        )
    choices = dict(VALUES)
    for command in verbs().values():
        for option in options(command):
            if isinstance(option.type, click.Choice):
                choices |= {flag: tuple(map(str, option.type.choices)) for flag in option.opts}
    values = [f"    {flag}) words='{' '.join(each)}' ;;" for flag, each in sorted(choices.items())]
    template = (ROOT / "packaging/completion/xenplugin.in").read_text(encoding="utf-8")
    for mark, text in (
        ("@VERBS@", " ".join(verbs())),
        ("@CASES@", "\n".join(cases)),
        ("@VALUES@", "\n".join(values)),
    ):
        template = template.replace(mark, text)
    return template


def main(folder: Path) -> None:
    """Write all files into `folder`."""
    (folder / "completions").mkdir(parents=True, exist_ok=True)
    for template in sorted((ROOT / "packaging/man").glob("*.in")):
        made = page(template.read_text(encoding="utf-8"))
        (folder / template.name.removesuffix(".in")).write_text(made, encoding="utf-8")
    (folder / "xenplugin.conf").write_text(configuration(), encoding="utf-8")
    (folder / "completions/xenplugin").write_text(completion(), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit((__doc__ or "").split("\n\n")[1].strip())
    main(Path(sys.argv[1]))
