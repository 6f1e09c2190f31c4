"""The Vagrantfile's restart of FreeBSD, which Vagrant has not: run by Ruby, with as much of Vagrant as it uses."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]

_VAGRANT = """
module Vagrant
  module Errors
    class VagrantError < StandardError; end
    class SSHDisconnected < VagrantError; end
    class VMBootTimeout < VagrantError; end
  end
  class Plugin
    def self.name(*) = nil
    def self.guest_capability(system, capability, &block) = ($capability = [system, capability, block.call])
  end
  def self.plugin(_) = Plugin
  def self.configure(_) = nil
end
module Kernel
  def sleep(_) = ($now += 2)
end
class Time
  def self.now = $now
end
$now = 0
"""
# A machine on which `shutdown` takes it through the states in `script`: what `test` and `ready?` answer then.
_MACHINE = """
Machine = Struct.new(:states, :log) do
  def communicate = self
  def ui = self
  def info(text) = log << text
  def sudo(command, **)
    log << command
    states.shift
    raise Vagrant::Errors::SSHDisconnected
  end
  def ready?
    state = states.size > 1 ? states.shift : states.first
    raise IOError if state == :breaks
    state != :down
  end
  def test(command)
    log << command unless log.include?(command)
    raise IOError if states.first == :breaks
    states.first == :asks
  end
end
"""


@pytest.fixture(scope="module")
def ruby() -> str:
    found = shutil.which("ruby")
    if found is None:
        pytest.skip("ruby is not installed (it comes with vagrant)")
    return found


def restart(ruby: str, folder: Path, *states: str) -> list[str]:
    """Let the Vagrantfile restart a machine that goes through `states`, and return what was done."""
    names = ", ".join(f":{state}" for state in states)
    script = f"""{_VAGRANT}{_MACHINE}
load "Vagrantfile"
machine = Machine.new([{names}], [])
raise "wrong capability" unless $capability[0, 2] == [:freebsd, :reboot]
begin
  $capability[2].reboot(machine)
rescue Vagrant::Errors::VMBootTimeout
  machine.log << "given up in time: #{{$now.between?(500, 5000)}}"
end
puts machine.log, "then it is #{{machine.states.first}}"
"""
    done = subprocess.run(
        [ruby, "-e", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "VAGRANT_DOTFILE_PATH": str(folder)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


ASKS, SAYS, SHUTS = "kenv -q xenlab_restart", "Restarting FreeBSD with other loader tunables...", "shutdown -r now"


def test_no_restart_that_nobody_asked_for(ruby: str, tmp_path: Path) -> None:
    assert restart(ruby, tmp_path, "up") == [ASKS, "then it is up"]


@pytest.mark.parametrize("ending", [["asks", "asks"], ["asks", "breaks", "down"], ["down", "down", "breaks"]])
def test_it_waits_for_a_kernel_that_does_not_ask(ruby: str, tmp_path: Path, ending: list[str]) -> None:
    assert restart(ruby, tmp_path, "asks", *ending, "up") == [ASKS, SAYS, SHUTS, "then it is up"]


def test_it_does_not_wait_for_ever(ruby: str, tmp_path: Path) -> None:
    done = restart(ruby, tmp_path, "asks", "down")
    assert done == [ASKS, SAYS, SHUTS, "given up in time: true", "then it is down"]
