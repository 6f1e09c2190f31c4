"""Makes an initramfs of busybox, a few modules and an /init, without running anything of the system it is for.

Debian's own initramfs has udev and takes half a minute under software emulation; this one takes a second. Modules
are uncompressed here and listed in /modules/order, each after its dependencies, for /init to load.
"""

from __future__ import annotations

import lzma
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from lab.errors import BuildError

#: The programs that the two /init scripts use.
_APPLETS = (
    *("[", "cat", "cp", "dd", "findfs", "head", "insmod", "md5sum", "mkdir", "mkfifo", "mount", "mv", "sed", "sh"),
    *("stty", "switch_root", "tail", "tar", "tee", "umount", "usleep"),
)
_FOLDERS = ("bin", "dev", "modules", "proc", "run", "sbin", "sys", "tmp")


def make(tree: Path, modules: Iterable[str], files: Mapping[str, bytes]) -> bytes:
    """Return a cpio archive (newc, not compressed) for the kernel of `tree`, with its busybox, `modules` and
    `files`.

    The names of `files` are paths without the leading /, in folders that exist (_FOLDERS); all are executable.
    Raises BuildError.
    """
    content = dict.fromkeys(_FOLDERS, (stat.S_IFDIR | 0o755, b""))
    content["bin/busybox"] = (stat.S_IFREG | 0o755, (tree / "bin/busybox").read_bytes())
    content |= {f"bin/{name}": (stat.S_IFLNK | 0o777, b"busybox") for name in _APPLETS}
    order = []
    for path in in_order(modules_folder(tree), modules):
        name = PurePosixPath(path.name.removesuffix(".xz")).name
        content[f"modules/{name}"] = (stat.S_IFREG | 0o644, _content(path))
        order.append(name)
    content["modules/order"] = (stat.S_IFREG | 0o644, "".join(f"{name}\n" for name in order).encode())
    for name, data in files.items():
        content[name] = (stat.S_IFREG | 0o755, data)
    return cpio(content)


def modules_folder(tree: Path) -> Path:
    """Return the folder with the modules of the one kernel of `tree`. Raises BuildError."""
    found = sorted((tree / "usr/lib/modules").iterdir())
    if len(found) != 1:
        raise BuildError(f"the image must have one kernel, but has {len(found)}")
    return found[0]


def in_order(folder: Path, modules: Iterable[str]) -> list[Path]:
    """Return the files of `modules` and of their dependencies, each after those that it needs. Modules that are
    built into the kernel have no file. Raises BuildError for a module that does not exist."""
    needs = {}
    for line in _lines(folder / "modules.dep"):
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name: dict[str, list[str]] = {}
    for path in needs:
        by_name.setdefault(_name(path), []).append(path)
    # An algorithm is requested by an alias that several modules may have (crc32c); all of them are taken.
    for words in map(str.split, _lines(folder / "modules.alias")):
        if words[0] == "alias" and _name(words[2]) != _name(words[1]) and _name(words[2]) in by_name:
            by_name.setdefault(_name(words[1]), []).extend(by_name[_name(words[2])])
    built_in = {_name(line) for line in _lines(folder / "modules.builtin")}
    # Modules that a module requests without using a symbol of theirs (ext4: crc32c).
    soft = {}
    for words in map(str.split, _lines(folder / "modules.softdep")):
        if words[0] == "softdep" and words[2] == "pre:":
            soft[_name(words[1])] = words[3:]
    order: list[str] = []

    def add(path: str) -> None:
        if path in order:
            return
        for name in soft.get(_name(path), []):
            for other in by_name.get(_name(name), []):
                add(other)
        for other in needs[path]:
            add(other)
        order.append(path)

    for module in modules:
        if _name(module) not in built_in:
            if _name(module) not in by_name:
                raise BuildError(f"the kernel in the image has no module {module}")
            for path in by_name[_name(module)]:
                add(path)
    return [folder / path for path in order]


def cpio(content: Mapping[str, tuple[int, bytes]]) -> bytes:
    """Return the cpio archive with `content`: name -> (st_mode, data). Source: Linux,
    Documentation/driver-api/early-userspace/buffer-format.rst."""
    out = bytearray()
    entries = [*sorted(content.items()), ("TRAILER!!!", (0, b""))]
    for number, (name, (mode, data)) in enumerate(entries, 1):
        path = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(path), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + path
        out += bytes(-len(out) % 4)
        out += data
        out += bytes(-len(out) % 4)
    return bytes(out)


def _name(path: str) -> str:
    return PurePosixPath(path).name.split(".ko")[0].replace("-", "_")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data
