"""Make a link with FreeBSD's Dummynet: two pipes of ipfw on a router between the hosts, one for each direction.

`loader` prepares a router's next start. `router` and `pipes` turn a Profile into ipfw's commands, `readback` checks
what ipfw made of them, `script` puts it all into a shell script for the router (all of these are pure), and `link`
runs the script.
"""

from netem.dummynet.link import Dummynet
from netem.dummynet.loader import TUNABLES, loader_script
from netem.dummynet.pipes import notes
from netem.dummynet.router import Router
from netem.dummynet.script import apply_script, undo_script

__all__ = ["TUNABLES", "Dummynet", "Router", "apply_script", "loader_script", "notes", "undo_script"]
