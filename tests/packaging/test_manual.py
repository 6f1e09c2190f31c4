"""The pages, the configuration file and the completion say what the program does: all of it, and nothing else."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tomllib
from dataclasses import Field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from xenplugin import __version__
from xenplugin.config import Config, load
from xenplugin.errors import BY_CODE

ROOT = Path(__file__).parents[2]


def _manual() -> ModuleType:
    spec = importlib.util.spec_from_file_location("manual", ROOT / "packaging/manual.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


manual = _manual()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    manual.main(folder)
    return folder


def test_the_configuration_file_changes_nothing(made: Path) -> None:
    assert load(made / "xenplugin.conf") == Config(file=made / "xenplugin.conf")


@pytest.mark.parametrize("setting", manual.settings(), ids=lambda each: each.name)
def test_each_setting_stands_in_the_file_with_its_default(made: Path, setting: Field[Any], tmp_path: Path) -> None:
    name = setting.name
    lines = (made / "xenplugin.conf").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"#{name} = "))
    (tmp_path / "conf").write_text(line[1:])
    got = getattr(load(tmp_path / "conf"), name)
    if name == "state_dir":
        assert got == Path("/var/lib/xen/xenplugin")
    elif name in manual.EXAMPLES:
        assert getattr(Config(), name) is None and got is not None
    else:
        assert got == getattr(Config(), name)


def test_the_configuration_page_has_every_setting(made: Path) -> None:
    page = (made / "xenplugin.conf.5").read_text(encoding="utf-8")
    assert re.findall(r"^\.It Ic (\w+)", page, re.MULTILINE) == [each.name for each in manual.settings()]


def test_the_page_has_every_verb_option_and_exit_code(made: Path) -> None:
    page = (made / "xenplugin.1").read_text(encoding="utf-8").replace("\\-", "-")
    for name, command in manual.verbs().items():
        assert re.search(rf"^\.It Cm {name}\b", page, re.MULTILINE)
        for option in manual.options(command):
            assert option.help
            for flag in (*option.opts, *option.secondary_opts):
                assert re.search(rf"Fl {flag[1:]}(?![\w-])", page), flag
    for code in BY_CODE:
        assert f".It {code}\n" in page
    assert __version__ in page and not re.search(r"@[A-Z]", page)


def test_hidden_commands_are_not_in_the_manual(made: Path) -> None:
    page = (made / "xenplugin.1").read_text(encoding="utf-8")
    assert not re.search(r"^\.It Cm receive", page, re.MULTILINE)


@pytest.mark.parametrize("name", ["xenplugin.1", "xenplugin.conf.5"])
def test_pages_are_good_mdoc(made: Path, name: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("no groff on this machine")
    done = subprocess.run(
        ["groff", "-mdoc", "-Tascii", "-ww", "-z", str(made / name)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_text_cannot_become_a_macro() -> None:
    assert manual.escaped(".Sh '-\\") == "\\&.Sh \\(aq\\-\\e"


@pytest.mark.parametrize(("flag", "values"), manual.VALUES.items())
def test_values_that_the_shell_offers_are_taken(flag: str, values: tuple[str, ...]) -> None:
    names = [each.name for each in manual.settings() if each.metadata["flag"] == flag]
    for name in names:
        for value in values:
            Config().with_values({name: value})
    assert names or flag == "--mode"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ver"], {"verify"}),
        (["copy", "--ci"], {"--cipher"}),
        (["copy", "--cipher", "aes-1"], {"aes-128-gcm"}),
        (["copy", "--cipher", "auto", "/etc/hostn"], {"/etc/hostname"}),
        (["copy", "-q", "/etc/passwd", "/etc/hostn"], {"/etc/hostname"}),
        (["copy", "a", "b", "/etc/hostn"], set()),
        (["nonsense", ""], set()),
        (["bench", "--config", "/etc/hostn"], {"/etc/hostname"}),
    ],
)
def test_the_shell_completes(made: Path, words: list[str], offered: set[str]) -> None:
    script = (
        f'source "{made}/completions/xenplugin"; COMP_WORDS=(xenplugin "$@"); COMP_CWORD=$#; _xenplugin;'
        ' printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *words], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == offered and done.stderr == ""


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "packaging/debian/changelog").read_text(encoding="utf-8")
    assert project["version"] == __version__
    assert changelog.startswith(f"xenplugin ({__version__}) ")


def test_the_package_depends_on_what_the_project_depends_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    control = (ROOT / "packaging/debian/control").read_text(encoding="utf-8")
    (depends,) = re.findall(r"^Depends:\n((?: .*\n)+)", control, re.MULTILINE)
    for text in project["dependencies"]:
        name, _, version = text.partition(">=")
        # Debian's version of pyxs is that of a day, and there is only the one.
        wanted = f" python3-{name},\n" if name == "pyxs" else f" python3-{name} (>= {version}),\n"
        assert wanted in depends
