"""What xl reads in a guest's configuration file (xl.cfg(5)), as libxl's JSON: the settings that a fake host knows.

The file may also be that JSON. Which JSON the real xl prints for which text is in tests/data/xen/configurations.
"""

from __future__ import annotations

import ast
import json
import re
import uuid as uuids
from typing import Any

_PREFIX = re.compile(r"(?:(?:phy|file|tap\d?|aio|(raw|qcow2|vhd)):)+")


class ConfigError(Exception):
    """xl cannot read the file."""


def read(path: str, more: list[str]) -> dict[str, Any]:
    """Return the configuration in the file `path` with the settings `more`, each as "name=value". Raises
    ConfigError with xl's message, OSError."""
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()
    if text.startswith("{"):
        found: dict[str, Any] = json.loads(text)
        return found
    values: dict[str, Any] = {}
    try:
        for statement in ast.parse("\n".join([text, *more])).body:
            _assign(statement, values)
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{path}:{getattr(error, 'lineno', 1)}: config parsing error: {error}") from None
    return _fields(values)


def _assign(statement: ast.stmt, values: dict[str, Any]) -> None:
    if isinstance(statement, ast.Assign):
        (target,) = statement.targets
    elif isinstance(statement, ast.AugAssign) and isinstance(statement.op, ast.Add):
        target = statement.target
    else:
        raise ValueError("syntax error")
    value = ast.literal_eval(statement.value)
    if not isinstance(target, ast.Name) or not isinstance(value, str | int | list):
        raise ValueError("syntax error")
    values[target.id] = value if isinstance(statement, ast.Assign) else values.get(target.id, type(value)()) + value


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    if "name" not in values:
        raise ConfigError("Domain name must be specified.")
    kind = values.get("type", "pv")
    memory = int(values.get("memory", 32)) * 1024
    about = {"max_memkb": int(values.get("maxmem", 0)) * 1024 or memory, "target_memkb": memory, f"type.{kind}": {}}
    about |= {name: values[name] for name in ("kernel", "ramdisk") if name in values}
    uuid = str(uuids.UUID(values["uuid"]) if "uuid" in values else uuids.uuid4())
    found: dict[str, Any] = {"c_info": {"type": kind, "name": values["name"], "uuid": uuid}, "b_info": about}
    for key, name, part in (("disks", "disk", _disk), ("nics", "vif", _nic)):
        if isinstance(values.get(name), list) and values[name]:
            found[key] = [part(text, number) for number, text in enumerate(values[name])]
    return found


def _disk(text: str, _number: int) -> dict[str, Any]:
    """Read a disk (xl-disk-configuration(5)): positional, with keys, or with a prefix as xm had them."""
    text, _, target = text.partition("target=")
    words = [word.strip() for word in text.split(",")]
    given = dict(word.split("=", 1) for word in words if "=" in word)
    names = ["target", "format", "vdev", "access"]
    if target:
        given["target"] = target
    elif match := _PREFIX.match(words[0]):
        words[0] = words[0][match.end() :]
        given["format"] = match[1] or "raw"
    plain = [word for word in words if "=" not in word]
    left = (name for name in names if name not in given)
    given |= {name: word for name, word in zip(left, plain, strict=False) if word}
    vdev, _, kind = given["vdev"].partition(":")
    cdrom = kind == "cdrom" or given.get("devtype") == "cdrom"
    found = {"pdev_path": given["target"], "vdev": vdev, "format": given.get("format", "raw")}
    if backend := given.get("backendtype"):
        found["backend"] = backend
    if cdrom:
        return found | {"removable": 1, "is_cdrom": 1}
    return found | ({"readwrite": 1} if given.get("access", "rw") in ("rw", "w") else {})


def _nic(text: str, number: int) -> dict[str, Any]:
    found: dict[str, Any] = {"devid": number}
    for word in filter(None, map(str.strip, text.split(","))):
        key, equals, value = word.partition("=")
        if not equals or key != key.strip():
            raise ConfigError(f"unrecognized argument `{word}'")
        if key in ("mac", "bridge", "ip", "script"):
            found[key] = value
    return found
