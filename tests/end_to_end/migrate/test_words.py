"""Plain `xl migrate` with the plugin enabled, as people and programs type it: the guest moves whole, or stays."""

from __future__ import annotations

import shlex
import signal
import time
from pathlib import Path

import pytest

from tests.fakes.world import G1, World
from tests.helpers.program import Done, Running, wait_until


@pytest.fixture
def enabled(world: World) -> World:
    """Two hosts, one enabled; its ssh knows a few options."""
    script = world.a.root / "bin" / "ssh"
    script.write_text(
        "#!/bin/sh\n"
        "while case $1 in -G) exit 1 ;; -p | -o) shift ;; -*) ;; *) false ;; esac do shift; done\n"
        "host=$1; shift; case $1 in -p | -o) shift 2 ;; -G) exit 1 ;; esac\n"
        f'exec {world.ssh} "$host" "$@"\n'
    )
    script.chmod(0o755)
    world.a.configure(ssh="ssh")
    world.a.run("xenplugin", "enable")
    return world


def xl(world: World, *words: str | Path) -> Running:
    return world.a.start(world.a.root / "sbin" / "xl", *words)


def moves(world: World, *words: str) -> Done:
    done = xl(world, *words).end()
    assert done.code == 0 and "Migration successful." in done.err, done.err
    world.await_quiet()
    world.assert_intact(world.b)
    world.assert_settled()
    return done


def stays(world: World, code: int, *words: str) -> Done:
    done = xl(world, *words).end()
    assert done.code == code and done.error and done.hint, f"exit {done.code}: {done.err}"
    world.await_quiet()
    world.assert_intact(world.a)
    world.assert_settled()
    return done


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["-l", "--live", "-p", "more", ""])
def test_words_after_the_host_are_refused(enabled: World, after: str) -> None:
    """xl ignores them; the guest once moved without its disks, and ran on a stale one."""
    enabled.create()
    assert "after HOST" in stays(enabled, 2, "migrate", "g1", "hostb", after).error


@pytest.mark.slow
def test_a_guest_whose_policy_is_off_is_left_to_xl_whatever_the_words(enabled: World) -> None:
    """The administrator has said that xl moves this guest, whose disk hostb has."""
    enabled.create(disks=0)
    enabled.a.store.nodes[f"/tool/xenplugin/policy/{G1}/enabled"] = b"0"
    done = xl(enabled, "migrate", "-s", enabled.ssh, "g1", "hostb", "--live").end()
    assert done.code == 0 and "without its disks" in done.err and "linked to" not in done.err
    enabled.assert_intact(enabled.b)


def test_all_digits_are_a_domain_id(enabled: World) -> None:
    enabled.create()
    moves(enabled, "migrate", f"00{enabled.a.domains()[0]['domid']}", "hostb")


@pytest.mark.parametrize("guest", ["g9", "0", "29999", "", "99999999999999999999"])
def test_an_unknown_guest_is_not_left_to_xl(enabled: World, guest: str) -> None:
    """Which would move one that gets that name or number meanwhile."""
    enabled.create()
    done = stays(enabled, 1, "migrate", guest, "hostb")
    assert "no guest" in done.error and "Migration" not in done.err


# -- the host, and what reaches a shell ------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("-s", "ssh -p 2222", "hostb"),
        ("-p 2222 hostb",),
        ("-s", "ssh root@hostb", ""),
        ("-s", "ssh hostb -p 22", ""),
    ],
)
def test_options_of_ssh_may_be_in_either_word(enabled: World, words: tuple[str, ...]) -> None:
    enabled.create()
    moves(enabled, "migrate", *words[:-1], "g1", words[-1])


@pytest.mark.parametrize("host", ["", "-p 2222", "hostb sudo", "$(touch x)hostb", "hostb;touch x", "hostb #"])
def test_a_host_that_is_no_host_is_refused(enabled: World, host: str) -> None:
    enabled.create()
    stays(enabled, 2, "migrate", "g1", host)
    assert not (enabled.a.root / "x").exists()


@pytest.mark.parametrize("host", ["$(touch x)hostb", "hostb; touch x", "hostb`touch x`", "hostb' 'touch x"])
def test_our_own_command_line_runs_in_no_shell(world: World, host: str) -> None:
    world.create()
    done = world.a.start(world.a.root / "bin/xenplugin", "migrate", "-s", world.ssh, "g1", host).end()
    assert done.code == 14 and "Could not resolve" in done.error, done.err
    world.await_quiet()
    assert not (world.a.root / "x").exists() and not (world.b.root / "x").exists()
    world.assert_intact(world.a)


# -- the exit code --------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_undecided_move_does_not_end_as_any_other_failure(enabled: World) -> None:
    """The far host is lost just after message 6. Here xl itself ends with 1, as after every failure."""
    enabled.create()
    enabled.b.stall("r.cleared")
    running = xl(enabled, "migrate", "g1", "hostb")
    wait_until(lambda: enabled.b.reached("r.cleared") or running.process.poll() is not None, "message 6")
    ssh = enabled.a.root / "bin" / "ssh"
    works = ssh.read_text()
    ssh.write_text("#!/bin/sh\necho 'ssh: connect to host hostb: No route to host' >&2; exit 255\n")
    enabled.kill("ssh-domain")
    done = running.end()
    assert done.code == 20 and "recover" in done.hint, done.err
    again = xl(enabled, "migrate", "g1--migratedaway", "hostb").end()
    assert again.code == 20 and "recover" in again.hint, again.err
    ssh.write_text(works)
    enabled.b.release("r.cleared")
    enabled.await_quiet()
    for host in (enabled.b, enabled.a):
        host.recover()
    enabled.assert_intact()
    enabled.assert_settled()


# -- another receiver than ours --------------------------------------------------------------------


def foreign(world: World) -> list[str]:
    """As Ganeti's `socat -b524288 - TCP:IP:PORT #`, whose far end runs xl's own receiver."""
    return ["-s", f"{world.ssh} hostb xl migrate-receive #"]


def test_a_transport_to_xls_receiver_is_refused_at_once(enabled: World) -> None:
    enabled.create()
    done = stays(enabled, 1, "migrate", *foreign(enabled), "-C", str(enabled.folder / "g1.json"), "g1", "192.0.2.7")
    assert "another receiver" in done.error and f"policy/{G1}/enabled 0" in done.hint


def test_a_whole_command_as_host_is_refused(enabled: World) -> None:
    enabled.create()
    stays(enabled, 1, "migrate", "-s", "", "g1", f"{enabled.ssh} hostb xl migrate-receive")


@pytest.mark.slow
@pytest.mark.parametrize("empty", [False, True])
def test_a_guest_without_a_disk_is_left_to_xl(enabled: World, empty: bool) -> None:
    enabled.create(disks=0)
    whole = ["-s", "", "g1", f"{enabled.ssh} hostb xl migrate-receive"]
    done = moves(enabled, "migrate", *(whole if empty else [*foreign(enabled), "g1", "192.0.2.7"]))
    assert "has no disks" in done.err and "linked to" not in done.err


@pytest.mark.parametrize("through_the_shim", [True, False])
def test_xls_receiver_is_recognized_by_its_banner(enabled: World, through_the_shim: bool) -> None:
    """A wrapper that does not say what it runs on the far host."""
    enabled.create()
    wrapper = enabled.a.root / "bin" / "remote-shell"
    wrapper.write_text(f"#!/bin/sh\nexec {enabled.ssh} hostb xl migrate-receive\n")
    wrapper.chmod(0o755)
    enabled.a.configure(patience="300s")
    begun = time.monotonic()
    if through_the_shim:
        assert "xl's own receiver" in stays(enabled, 1, "migrate", "-s", "remote-shell", "g1", "hostb").error
    else:
        done = enabled.migrate("-s", "remote-shell").end()
        assert done.code == 11 and "xl's own receiver" in done.error and done.hint, done.err
    assert time.monotonic() - begun < 200  # not by a time-out
    enabled.await_quiet()
    enabled.assert_intact(enabled.a)


# -- how it ends -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_signal_comes_through(enabled: World, number: signal.Signals) -> None:
    """xl killed: 128 + 9, as a shell says; ctrl-C, which xl itself does not get: 128 + 2."""
    enabled.create()
    enabled.a.stall("s.memory0")
    running = xl(enabled, "migrate", "g1", "hostb")
    wait_until(lambda: enabled.a.reached("s.memory0"), "memory")
    if number is signal.SIGKILL:
        assert enabled.kill("xl")
    else:
        running.signal(number)
    enabled.a.release("s.memory0")
    done = running.end()
    assert done.code == 128 + number, done.err
    enabled.await_quiet()
    enabled.a.run("xenplugin", "recover")
    enabled.assert_intact(enabled.a)


@pytest.mark.slow
def test_a_move_that_succeeded_is_a_success_whatever_else_fails(enabled: World) -> None:
    """A cluster that hears of a failure starts the guest again."""
    enabled.create()
    enabled.a.stall("s.report")
    running = xl(enabled, "migrate", "g1", "hostb")
    wait_until(lambda: enabled.a.reached("s.report"), "the far side's report")
    assert enabled.kill("transport")
    enabled.a.release("s.report")
    done = running.end()
    assert done.code == 0 and "has moved" in done.err
    enabled.await_quiet()
    enabled.assert_intact(enabled.b)


def test_the_transport_by_hand_takes_words_of_ssh(enabled: World) -> None:
    enabled.create()
    ours = f"xenplugin transport -s {shlex.quote('ssh -p 22')}"
    moves(enabled, "migrate", "-s", ours, "g1", "-p 2222 hostb")
