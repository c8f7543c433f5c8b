# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rollback and audit playbooks on a fleet of directories."""

from __future__ import annotations

import getpass
import os

from tests.support.fleet import CLEANER_3B, CLEANER_8B, CONFIG, WEIGHTS, Fleet, contents, identity

NODES = ("jw2-1", "jw3-1")


def test_rollback_needs_no_training_server_and_returns(fleet: Fleet) -> None:
    fleet.deploy()
    first = {name: contents(fleet.served("jw2-1", name)) for name in (CLEANER_3B, CLEANER_8B)}
    nothing_before = fleet.run("rollback", "--tags", "cleaner")
    assert nothing_before.rc != 0
    assert f"{CLEANER_3B}: has no previous release on this node to roll back to. Deploy" in nothing_before.failures("jw2-1")[0]

    fleet.offer(CLEANER_3B, "bf16")
    fleet.deploy("--tags", "cleaner")
    second = contents(fleet.served("jw2-1", CLEANER_3B))
    assert second != first[CLEANER_3B]
    fleet.source.rename(fleet.source.with_name("switched-off"))
    untouched = identity(fleet.home("jw3-1"))

    everything = fleet.run("rollback")
    assert everything.rc != 0
    assert "Nothing is selected for the rollback. Select an agent (--tags cleaner)" in everything.failures("jw2-1")[0]
    # The 8b has no previous release: then the 3b is not taken back either.
    one_lacks = fleet.run("rollback", "--tags", "cleaner")
    assert one_lacks.rc != 0
    assert f"{CLEANER_8B}: has no previous release on this node" in one_lacks.failures("jw2-1")[0]
    assert contents(fleet.served("jw2-1", CLEANER_3B)) == second
    # A level raised since the first release must not prevent the rollback.
    fleet.groups["agents"]["agent_level"] = "adapter"
    checked = fleet.run("rollback", "--tags", "cleaner,3b", "--check")
    assert checked.rc == 0
    assert contents(fleet.served("jw2-1", CLEANER_3B)) == second

    # At this verbosity the results show the options; `run` names the holder of a lock.
    back = fleet.run("rollback", "--tags", "cleaner,3b", "-vvv")
    assert back.rc == 0, back.output
    run = back.of("jw2-1", "adapter_release")["invocation"]["module_args"]["run"]
    assert run == f"Roll back the nodes by {getpass.getuser()}@{os.uname().nodename}"
    assert checked.changed() == back.changed() != []
    assert back.adapters("jw2-1", "adapter_release")[CLEANER_3B]["action"] == "rolled_back"
    assert {name: contents(fleet.served("jw2-1", name)) for name in first} == first
    assert identity(fleet.home("jw3-1")) == untouched

    again = fleet.run("rollback", "--tags", "cleaner,3b")
    assert again.rc == 0, again.output
    assert contents(fleet.served("jw2-1", CLEANER_3B)) == second
    fleet.groups["agents"]["agent_level"] = "structure"
    assert fleet.run("audit").rc == 0


def test_audit_says_what_differs_and_changes_nothing(fleet: Fleet) -> None:
    never = fleet.run("audit")
    assert never.rc != 0
    assert f"{CLEANER_8B}: missing  no active release on this node" in never.failures("jw2-1")[0]

    fleet.deploy()
    clean = fleet.run("audit")
    assert clean.rc == 0, clean.output
    assert clean.changed() == []
    assert "2 adapters are identical to their verified releases." in clean.output

    served, other = fleet.served("jw2-1", CLEANER_3B), fleet.served("jw2-1", CLEANER_8B)
    weights = bytearray((served / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (served / WEIGHTS).write_bytes(weights)
    (served / "tokenizer.json").unlink()
    (served / "optimizer.pt").write_bytes(b"left here")
    (served / "forged\n.txt").write_bytes(b"")
    (served / CONFIG).chmod(0o666)
    other.chmod(0o700)
    (other / WEIGHTS).unlink()
    os.link(fleet.source / CLEANER_8B / WEIGHTS, other / WEIGHTS)
    [release] = (fleet.stored("jw2-1", CLEANER_8B) / "releases").iterdir()
    (release / CONFIG).unlink()
    drifted = {node: identity(fleet.home(node)) for node in NODES}
    found = fleet.run("audit", "--tags", "cleaner,describer")
    assert found.rc != 0
    assert found.changed() == []
    assert {node: identity(fleet.home(node)) for node in NODES} == drifted
    assert found.failures("jw3-1") == []
    lines = found.of("jw2-1", "adapter_release_info")["differences"]
    expected = [
        f"{CLEANER_3B}: mode     {served / CONFIG}  0666 instead of 0644",
        f"{CLEANER_3B}: changed  {served / WEIGHTS}  sha256 ",
        f"{CLEANER_3B}: extra    {str(served / 'forged')!r:.{len(str(served)) + 8}}\\n.txt'",
        f"{CLEANER_3B}: extra    {served / 'optimizer.pt'}",
        f"{CLEANER_3B}: missing  {served / 'tokenizer.json'}",
        f"{CLEANER_8B}: mode     {other}  0700 instead of 0755",
        f"{CLEANER_8B}: changed  {other / WEIGHTS}  has 2 hard links",
        f"{CLEANER_8B}: mode     {other / WEIGHTS}  0600 instead of 0644",
        f"{CLEANER_8B}: missing  {release / CONFIG}",
    ]
    assert len(lines) == len(expected), lines
    assert all(line.startswith(part) for part, line in zip(expected, lines)), lines
    # The person at the terminal sees the same, a line each.
    assert found.of("jw2-1", "assert")["msg"][1:] == lines
