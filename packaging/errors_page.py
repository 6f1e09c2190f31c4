"""Makes docs/errors.md: each error of the program, with its exit code and what to do.

    python3 packaging/errors_page.py > docs/errors.md

The errors are read from the program's source: each place that makes an object of a class of xenplugin.errors. A
word in *italics* stands for what the program fills in. Errors without a hint stand below the advice for their kind.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from xenplugin import errors  # noqa: E402

#: What to do after an error without a hint: by exit code, and by where its source is; the first that fits counts.
ADVICE = (
    (2, "", "Look at `xenplugin VERB --help`."),
    (10, "", "Correct the file or the setting that the message names."),
    (11, "migrate/xl_", "Xen's tools are of a version that this program does not know. Please report the line."),
    (11, "xen/", "Look at what xl printed above the line, and at its logs in /var/log/xen."),
    (11, "migrate/guard", "Look at what xl printed above the line."),
    (11, "", "Install the same version of xenplugin on both hosts. If it happens again, please report the line."),
    (12, "", "Give the right key. If it is right, carry or send the data again: it was changed on its way."),
    (13, "", "Look at the disk and its file system (`dmesg`), and run the same command again."),
    (14, "", "Run the same command again: it resumes the transfer."),
    (15, "", "Change what the message names, and run the same command again. Nothing was changed."),
    (20, "", "Run `xenplugin recover` on both hosts, and `xenplugin status` to see what is left."),
    (130, "", "Run the same command again: it resumes the transfer."),
)
#: How an expression is called that the program fills in, if its own name says too little.
WORDS = {
    "exc": "reason", "error": "reason", "strerror": "reason", "why": "reason", "why_not": "reason", "e": "reason",
    "tail": "reason", "strip": "reason", "label": "name", "len": "number", "min": "name", "real": "path",
    "join": "words", "quote": "words", "shown": "words", "get": "kind", "dirname": "folder", "lower": "reason",
}  # fmt: skip

_INTRODUCTION = """\
# Errors

Made from the source by `packaging/errors_page.py`. An error is one line, `xenplugin: error: ...`, and where there
is one, a line with a hint. Here they are by exit code. A word in *italics* stands for what the program fills in. An
error that the far host found begins with `far side:`. Through `xl migrate` the exit status is xl's own (usually 1);
`xenplugin migrate` and `--json` have these codes.

An error that starts with `internal error` is a defect of the program: please report it."""


@dataclass(frozen=True)
class Entry:
    """An error: its exit code, its message, and the hint with it, if any. `source`: its module below xenplugin/."""

    code: int
    message: str
    hint: str
    source: str

    @property
    def advice(self) -> str:
        """What to do, if there is no hint."""
        return next(text for code, place, text in ADVICE if code == self.code and self.source.startswith(place))


class Module:
    """One module's tree, with the texts that stand under a name in it."""

    def __init__(self, path: Path, constants: dict[str, str]) -> None:
        self.source = path.relative_to(ROOT / "xenplugin").as_posix()
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.constants = constants | self._assigned(self.tree.body)

    def entries(self, codes: dict[str, int]) -> Iterator[Entry]:
        """Yield the errors that are made in it; `codes`: the exit code for each class."""
        for scope in [self.tree, *(node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef))]:
            texts = self.constants if scope is self.tree else self.constants | self._assigned(ast.walk(scope))
            for call in self._calls(scope):
                for code, text, hint in _parts(call, self.source, codes):
                    hints = " / ".join(_texts(hint, texts)) if hint is not None else ""
                    for message in filter(_says_something, _texts(text, texts)):
                        yield Entry(code, message, hints if _says_something(hints) else "", self.source)

    @staticmethod
    def _calls(scope: ast.AST) -> Iterator[ast.Call]:
        """Yield the calls in `scope`, but not those of functions inside it."""
        waiting = list(ast.iter_child_nodes(scope))
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Call):
                yield node
            if not isinstance(node, ast.FunctionDef):
                waiting += ast.iter_child_nodes(node)

    @staticmethod
    def _assigned(nodes: Iterator[ast.AST] | list[ast.stmt]) -> dict[str, str]:
        found: dict[str, str] = {}
        for node in nodes:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                texts = _texts(node.value, {}) if _is_text(node.value) else []
                if texts:
                    found[node.targets[0].id] = texts[0]
        return found


def _parts(call: ast.Call, source: str, codes: dict[str, int]) -> Iterator[tuple[int, ast.expr, ast.expr | None]]:
    """Yield the exit code, the message and the hint, if any, of the error that a call makes."""
    name = _called(call)
    if name == "refuses":  # a check before a guest moves (migrate/checks/rules)
        yield codes["RefusedError"], call.args[1], call.args[2]
    elif source in ("config.py", "setting_values.py") and name == "ValueError":
        about = ast.Constant("*setting* = *value*: ")
        yield codes["ConfigError"], ast.BinOp(about, ast.Add(), call.args[0]), None
    elif name in codes and call.args:
        yield codes[name], call.args[0], next((word.value for word in call.keywords if word.arg == "hint"), None)


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _says_something(text: str) -> bool:
    """Return whether there is a word in `text` beside what the program fills in."""
    return re.search(r"\w", re.sub(r"\*[^*]+\*", "", text)) is not None


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _texts(node: ast.expr, names: dict[str, str]) -> list[str]:
    """Return the texts that `node` may give; none if it only passes on another error's."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            found = [""]
            for part in parts:
                more = _texts(part.value if isinstance(part, ast.FormattedValue) else part, names)
                found = [before + after for before in found for after in more or ["*text*"]]
            return found
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [a + b for a in _texts(left, names) for b in _texts(right, names) or [""]]
        case ast.BinOp(left=left):
            return _texts(left, names)
        case ast.IfExp(body=body, orelse=other):
            return [text for each in (body, other) for text in _texts(each, names) or ["*text*"]]
        case ast.BoolOp(values=values):
            return [text for value in values if _is_text(value) for text in _texts(value, names)]
        case ast.Name(id=name):
            return [names[name]] if name in names else [_placeholder(name)]
        case ast.Attribute(attr="message" | "hint"):
            return []
        case ast.Attribute(attr=name):
            return [_placeholder(name)]
        case ast.Subscript(value=value):
            return _texts(value, {})
        case ast.Call(func=ast.Name(id="str" | "repr"), args=[inner]):
            return _texts(inner, {})
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return [_placeholder(name)]
    return ["*text*"]


def _placeholder(name: str) -> str:
    return f"*{WORDS.get(name, name.strip('_').replace('_', ' ').lower())}*"


def _codes() -> dict[str, int]:
    """Return the exit code for each name of a class of errors, those that other modules derive included."""
    found = {kind.__name__: kind.code for kind in errors.BY_CODE.values()}
    for path in _modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in found]
                if bases:
                    found[node.name] = found[bases[0]]
    return found


def _modules() -> list[Path]:
    return sorted((ROOT / "xenplugin").rglob("*.py"))


def entries() -> list[Entry]:
    """Return all errors, in order."""
    codes = _codes()
    constants = {name: text for name, text in vars(errors).items() if isinstance(text, str) and name.isupper()}
    found = {entry for path in _modules() for entry in Module(path, constants).entries(codes)}
    for what, hint in (*errors._SHORTAGES.values(), errors._PROCESSES):
        found.add(Entry(errors.XenpluginError.code, what, hint, "errors.py"))
    return sorted(found, key=lambda one: (one.code, re.sub(r"\W", "", one.message).lower(), one.hint, one.source))


def page() -> str:
    """Return the page."""
    lines = [_INTRODUCTION]
    for code, kind in sorted(errors.BY_CODE.items()):
        about = " ".join(inspect.cleandoc(kind.__doc__ or "").split())
        lines += ["", f"## {code}", "", about]
        found = [one for one in entries() if one.code == code]
        hinted = [f"| {_cell(one.message)} | {_cell(one.hint)} |" for one in found if one.hint]
        if hinted:
            lines += ["", "| error | hint |", "|---|---|", *dict.fromkeys(hinted)]
        for advice in dict.fromkeys(text for its, _, text in ADVICE if its == code):
            others = [f"- {_cell(one.message)}" for one in found if not one.hint and one.advice == advice]
            if others:
                lines += ["", f"**{advice}**", "", *dict.fromkeys(others)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())


if __name__ == "__main__":
    sys.stdout.write(page())
