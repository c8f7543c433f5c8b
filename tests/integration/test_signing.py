# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Playbooks sign and trust, and deliveries to nodes that trust signers."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import termios

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import SNAPSHOT_NAMESPACE
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.serials import read_record

from tests.support.fleet import CLEANER_3B, CLEANER_8B, DESCRIBER_3B, Fleet, contents
from tests.support.playbooks import CHECKOUT, LIMIT, PLAYBOOK, Run, recording
from tests.support.signing import Keys, root_lines, signer_line
from tests.support.signing_fleet import CONFIRMED, installed_trust, prepare_signing
from tests.support.terminal import Terminal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root, to mount"),
]


@pytest.fixture
def keys(tmp_path: pathlib.Path) -> Keys:
    (tmp_path / "keys").mkdir()
    return Keys(tmp_path / "keys")


@pytest.fixture
def signing_fleet(fleet: Fleet, keys: Keys) -> Fleet:
    """A fleet whose nodes will trust alice."""
    prepare_signing(fleet, keys)
    return fleet


def succeeded(done: Run) -> Run:
    assert done.rc == 0, done.output
    return done


def refused(done: Run, node: str) -> str:
    """Return the message of a node that refused."""
    assert done.rc != 0
    [message] = done.failures(node)
    return message


def test_fleet_serves_what_is_signed(signing_fleet: Fleet, keys: Keys) -> None:
    """And what a snapshot of the fleet names."""
    fleet, served = signing_fleet, signing_fleet.served("jw3-1", DESCRIBER_3B)
    policy = json.loads((fleet.root / "trust" / "policy.json").read_text(encoding="utf-8"))
    (fleet.root / "trust" / "policy.json").write_text(json.dumps({**policy, "snapshot_hours": 30}), encoding="utf-8")
    daily = signer_line("daily", keys.public("daily"), namespace=SNAPSHOT_NAMESPACE)
    (fleet.root / "trust" / "snapshot_signers").write_text(daily, encoding="utf-8")
    snapshot = ("snapshot", "-e", f"training_snapshot_key={keys.private('daily')}")
    signatures = fleet.root / "signatures"
    succeeded(fleet.run("trust"))
    assert sorted(os.listdir(installed_trust(fleet, "jw3-1"))) == ["allowed_signers", "policy.json", "snapshot_signers"]

    # Nothing is signed yet, so nothing is transferred.
    message = refused(fleet.run("deploy", "--limit", "jw3", "-e", "agent_trust="), "jw3-1")
    assert "is not signed; this node serves signed releases only. Sign it with playbooks/sign.yml." in message
    assert not fleet.stored("jw3-1", DESCRIBER_3B).exists()

    # Without a terminal and without confirmation, nothing is signed.
    subprocess.run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", fleet.root / "pem"], check=True)
    fleet.groups["training"]["training_openssf_key"] = str(fleet.root / "pem")
    assert "Nothing was signed." in refused(fleet.run("sign"), "sbs29")
    assert f"adapter {CLEANER_3B}, release" in succeeded(fleet.run("sign", "--check")).output
    assert os.listdir(signatures) == []
    succeeded(fleet.run("sign", *CONFIRMED))
    assert {*os.listdir(signatures)} == {CLEANER_3B, CLEANER_8B, DESCRIBER_3B}
    assert len(list((signatures / DESCRIBER_3B).glob("*.openssf"))) == 1
    succeeded(fleet.run(*snapshot))
    ready = succeeded(fleet.run("preflight", "--limit", "jw3"))
    assert "required on this node; signed releases: 1 of 1" in ready.output

    fleet.deploy()
    record = read_record(str(fleet.stored("jw3-1", DESCRIBER_3B) / "accepted.json"))
    assert record is not None
    assert record.serial == 1
    signed = {"signers": ["alice"], "serial": 1, "expires": record.accepted[0].statement.expires.isoformat()}
    assert fleet.reported("jw3-1", DESCRIBER_3B)["signed"] == signed
    assert fleet.deploy().changed() == []
    assert fleet.reported("jw3-1", DESCRIBER_3B)["signed"] == signed

    # Another release of the same form, which nobody has signed.
    before, changed = contents(served), fleet.source / DESCRIBER_3B / "tokenizer_config.json"
    changed.write_text(changed.read_text(encoding="utf-8") + " ", encoding="utf-8")
    message = refused(fleet.run("deploy", "--limit", "jw3"), "jw3-1")
    assert f"compared with {fleet.root / 'trust'} on the controller: is not signed;" in message
    assert contents(served) == before
    succeeded(fleet.run("sign", *CONFIRMED, "--tags", "describer"))
    succeeded(fleet.run(*snapshot))
    fleet.deploy("--limit", "jw3")
    assert contents(served) != before


def sign_trust(directory: pathlib.Path, files: str, root: str) -> None:
    """Sign a version of the trust as docs/signing.md shows."""
    sign = f"ssh-keygen -q -Y sign -n trust@lorafleet.delivery -f {root} > {os.path.basename(root)}.sig"
    subprocess.run(["sh", "-c", f"sha256sum {files} | {sign}"], cwd=directory, check=True)


def test_node_refuses_what_a_lost_key_has_signed(signing_fleet: Fleet, keys: Keys) -> None:
    """In a fleet with two roots, who both sign each version of the trust."""
    fleet, trust = signing_fleet, signing_fleet.root / "trust"
    policy = {**json.loads((trust / "policy.json").read_text(encoding="utf-8")), "root_threshold": 2}
    (trust / "policy.json").write_text(json.dumps(policy), encoding="utf-8")
    (trust / "roots").write_text(root_lines(keys, "rita", "rosa"), encoding="utf-8")
    for root in ("rita", "rosa"):
        sign_trust(trust, "allowed_signers policy.json roots", keys.private(root))
    succeeded(fleet.run("trust"))
    succeeded(fleet.run("sign", *CONFIRMED, "--tags", "describer"))
    (trust / "allowed_signers").write_text(signer_line("bob", keys.public("bob")), encoding="utf-8")
    (trust / "revoked_keys").write_text(f"{keys.public('alice')}\n", encoding="utf-8")
    (trust / "policy.json").write_text(json.dumps({**policy, "version": 2}), encoding="utf-8")
    sign_trust(trust, "allowed_signers policy.json revoked_keys roots", keys.private("rita"))
    message = refused(fleet.run("trust", "--limit", "jw3"), "jw3-1")
    assert "version 2 of the trust: is signed by 1 of the roots of version 1" in message
    sign_trust(trust, "allowed_signers policy.json revoked_keys roots", keys.private("rosa"))
    succeeded(fleet.run("trust"))
    assert "which is revoked on this node" in refused(fleet.run("deploy", "--limit", "jw3", "-e", "agent_trust="), "jw3-1")


@pytest.mark.parametrize(("answer", "signs"), [("yes", True), ("y", False)])
def test_sign_asks_once_on_a_terminal(signing_fleet: Fleet, answer: str, signs: bool) -> None:
    fleet, terminal = signing_fleet, Terminal(columns=120)
    process = subprocess.Popen(
        [str(PLAYBOOK), "-i", str(fleet.write_inventory()), str(CHECKOUT / "playbooks" / "sign.yml")],
        env={**recording(fleet.root / "record.jsonl"), "TERM": "xterm"},
        cwd=fleet.root,
        stdin=terminal.program,
        stdout=terminal.program,
        stderr=terminal.program,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    try:
        terminal.close_program()
        while not any("Sign this? Write yes" in line for line in terminal.visible):
            assert terminal.read(), "\n".join(terminal.everything)
        assert any(f"adapter {DESCRIBER_3B}, release" in line for line in terminal.everything)
        terminal.answer(f"{answer}\r")
        while terminal.read():
            pass
        process.wait(LIMIT)
    finally:
        process.kill()
        process.wait()
        terminal.close()
    assert (process.returncode == 0) is signs, "\n".join(terminal.everything)
    assert bool(os.listdir(fleet.root / "signatures")) is signs
