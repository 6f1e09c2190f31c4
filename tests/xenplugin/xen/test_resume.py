"""Resuming by libxl: the calls that xl makes, in a process of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from xenplugin.errors import PeerError, RefusedError
from xenplugin.xen import resume

# Libraries that stand in for Xen's: they write down how they are called.
LIGHT = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
static void say(const char *what, long a, long b) {
    FILE *f = fopen(getenv("CALLS"), "a"); fprintf(f, "%s %ld %ld\n", what, a, b); fclose(f);
}
int libxl_ctx_alloc(void **ctx, int version, unsigned flags, void *lg) {
    say("alloc", version, flags); *ctx = lg; return getenv("NO_CTX") ? -3 : 0;
}
int libxl_domain_resume(void *ctx, uint32_t domid, int cancel, const void *how) {
    say("resume", domid, cancel); say("how", ctx != NULL, how != NULL);
    if (domid == 66) abort();
    if (domid == 5) fprintf(stderr, "libxl: error: xc_domain_resume failed\n");
    return domid == 5 ? -3 : 0;
}
int libxl_ctx_free(void *ctx) { say("free", ctx != NULL, 0); return 0; }
"""
LOG = r"""
#include <stdio.h>
void *xtl_createlogger_stdiostream(FILE *f, int level, unsigned flags) {
    return f == stderr && level == 7 && flags == 0 ? f : NULL;
}
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("libraries")
    for name, text in (("libxenlight.so.4.17", LIGHT), ("libxentoollog.so.1", LOG)):
        source = folder / f"{name}.c"
        source.write_text(text)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / name, source], check=True, timeout=60)
        source.unlink()
    return folder


@pytest.fixture
def calls(libraries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """resume()'s child finds the libraries here, and writes down its calls."""
    starter = tmp_path / "python"
    starter.write_text(
        f"#!{sys.executable}\nimport sys\nfrom xenplugin.xen import resume\n"
        f"resume.library.__defaults__ = (({str(libraries)!r},),)\n"
        "sys.argv = sys.argv[3:]\nsys.exit(resume.main())\n"
    )
    starter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(starter))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def test_it_resumes_as_xl_does(calls: Path) -> None:
    resume.resume(7)
    assert calls.read_text().split("\n")[:-1] == ["alloc 0 0", "resume 7 1", "how 1 0", "free 1 0"]


def test_libxl_fails(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PeerError, match="cannot resume domain 5: libxl error -3"):
        resume.resume(5)
    with pytest.raises(PeerError, match="cannot resume domain 66"):  # it crashes, we do not
        resume.resume(66)
    monkeypatch.setenv("NO_CTX", "1")
    calls.unlink()
    with pytest.raises(PeerError, match="cannot resume domain 7"):
        resume.resume(7)
    assert "resume" not in calls.read_text()


def test_a_libxl_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    with pytest.raises(PeerError, match="did not resume domain 7 within"):
        resume.resume(7, patience=0.2)


def test_the_running_xens_library_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/libxenlight.so.4.9", "a/libxenlight.so.4.17", "b/libxenlight.so.4.20.1", "a/libxenlight.so"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    where = (str(tmp_path / "a"), str(tmp_path / "b"))
    for version, taken in (("4.17", "a/libxenlight.so.4.17"), (None, "b/libxenlight.so.4.20.1"),
                           ("4.99", "b/libxenlight.so.4.20.1")):  # fmt: skip
        monkeypatch.setattr(resume, "xen_version", lambda version=version: version)
        assert resume.library("libxenlight", where) == str(tmp_path / taken)


def test_a_host_without_xens_libraries(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="libxenlight is not installed on this host"):
        resume.library("libxenlight", (str(tmp_path),))


def test_resuming_without_xen_is_a_clean_error() -> None:
    """The child of this very machine: it says what is missing and does not crash."""
    try:
        resume.library("libxenlight")
    except RefusedError:
        with pytest.raises(RefusedError, match="is not installed on this host"):
            resume.resume(7)
    else:
        with pytest.raises(PeerError, match="cannot resume domain 32000"):
            resume.resume(32000)


def test_a_name_is_not_a_domain_id(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["libxl", "g1"])
    assert resume.main() == 1
