# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deliveries with become and with passwords: real accounts, sudo rules and sshds."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t

import pytest
from ansible.plugins.loader import become_loader, shell_loader
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.failures import Account
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.become import Become
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End, transfer
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.rsync import TransferOptions, TransferResult

from tests.support import sshd as sshd_server
from tests.support.accounts import OTHER_SECRET, SECRET, Accounts
from tests.support.fleet import CLEANER_3B, CLEANER_8B, TRAVELS, WEIGHTS, Fleet, contents, travelling
from tests.support.playbooks import Run

LIMIT = 60
BY_PASSWORD = ("PasswordAuthentication yes",)
BY_KEYBOARD = ("UsePAM yes", "KbdInteractiveAuthentication yes")


def assert_password_not_leaked(fleet: Fleet, *runs: Run) -> None:
    """Neither output nor files of the runs contain the password, not even with -vvv."""
    texts = [text for done in runs for text in (done.output, str(done.results))]
    texts += [path.read_text(encoding="utf-8") for path in fleet.root.glob("record.*") if path.is_file()]
    for text in texts:
        assert SECRET not in text
        assert OTHER_SECRET not in text


def test_deploy_as_operator_becoming_root(fleet: Fleet, accounts: Accounts) -> None:
    home, operator = accounts.home, accounts.operator
    accounts.may("(ALL) NOPASSWD: ALL")
    become = {**accounts.server.variables(), "ansible_become": True}
    # The operator cannot enter it.
    (home / "node").mkdir(mode=0o700)
    fleet.hosts["jw2-1"].update(become, agent_models_dir=str(home / "node/models"), agent_store=str(home / "node/.lorafleet"))
    fleet.groups["agents"].update(agent_owner="root", agent_group=operator)
    (home / "node/models").mkdir(mode=0o755)
    group = pwd.getpwnam(operator).pw_gid
    fleet.deploy("--limit", "jw2")
    for name in (CLEANER_3B, CLEANER_8B):
        assert contents(home / "node/models" / name) == travelling(fleet.source / name)
        for file in TRAVELS:
            status = (home / "node/models" / name / file).stat()
            assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, group, 0o644)
        assert not list((home / "node/.lorafleet" / name / "staging").iterdir())
        assert {path.stat().st_uid for path in (home / "node/.lorafleet" / name).rglob("*")} == {0}
    assert fleet.deploy("--limit", "jw2").changed() == []

    # safetensors saves files readable by their owner only, here root.
    source = home / "source"
    source.mkdir(mode=0o700)
    fleet.offer(CLEANER_3B, "bf16", into=source)
    fleet.offer(CLEANER_8B, into=source)
    (source / CLEANER_3B / WEIGHTS).chmod(0o600)
    fleet.hosts["sbs29"].update(become, training_models_dir=str(source))
    fleet.deploy("--limit", "jw2")
    assert contents(home / "node/models" / CLEANER_3B) == travelling(source / CLEANER_3B)


def test_deploy_becoming_root_with_passwords_at_both_ends(fleet: Fleet, accounts: Accounts) -> None:
    """Each end has an account and a password of its own. The adapters are in root's home there."""
    home = accounts.home
    accounts.may("(ALL) ALL")
    accounts.may("(ALL) ALL", accounts.other)
    server = accounts.server.variables()
    (home / "node/models").mkdir(parents=True)
    fleet.hosts["jw2-1"].update(server, ansible_become_password=SECRET)
    fleet.hosts["jw2-1"].update(agent_models_dir=str(home / "node/models"), agent_store=str(home / "node/.lorafleet"))
    fleet.hosts["sbs29"].update(server, ansible_user=accounts.other, ansible_sudo_pass=OTHER_SECRET)
    with tempfile.TemporaryDirectory(dir=pathlib.Path("~root").expanduser(), prefix="lorafleet-") as directory:
        source = pathlib.Path(directory)
        fleet.hosts["sbs29"]["training_models_dir"] = f"~/{source.name}"
        for name in (CLEANER_3B, CLEANER_8B):
            fleet.offer(name, into=source)
            (source / name / WEIGHTS).chmod(0o600)
        # For the node, and for tasks that are delegated to the source.
        done = fleet.deploy("--limit", "jw2", "--become", "-vvv")
        for name in (CLEANER_3B, CLEANER_8B):
            assert contents(home / "node/models" / name) == travelling(source / name)
    assert_password_not_leaked(fleet, done)


@pytest.mark.parametrize("host", ["jw2-1", "sbs29"])
def test_deploy_becoming_a_user_by_su_with_password_is_refused(fleet: Fleet, accounts: Accounts, host: str) -> None:
    home, operator = accounts.home, accounts.operator
    fleet.hosts[host].update(ansible_become=True, ansible_become_method="su", ansible_become_user=operator)
    fleet.hosts[host]["ansible_become_password"] = SECRET
    # It belongs to the user that modules run as on the node.
    node = accounts.directory("node", operator if host == "jw2-1" else "root")
    accounts.directory("node/models", operator)
    cache = accounts.directory("cache", operator)
    fleet.hosts["jw2-1"].update(agent_models_dir=str(node / "models"), agent_store=str(node / ".lorafleet"))
    fleet.groups["all"]["ansible_python_interpreter"] = "/usr/bin/python3"
    for name in (CLEANER_3B, CLEANER_8B):
        fleet.offer(name, into=home / "source")
        (home / "source" / name / WEIGHTS).chmod(0o644)
    fleet.hosts["sbs29"].update(training_models_dir=str(home / "source"), training_cache_dir=str(cache))
    done = fleet.run("deploy", "--limit", "jw2")
    assert done.rc == 2
    assert f"{host}: has no terminal for a transfer, but become method su requires one" in done.failures("jw2-1")[0]
    assert not list(node.glob(".lorafleet/*/staging/*/*"))


@pytest.mark.parametrize("connection", ["ssh", "local"])
def test_deploy_as_operator_becoming_an_unprivileged_user(fleet: Fleet, accounts: Accounts, connection: str) -> None:
    """Over ssh with a sudo password, locally without."""
    variables: dict[str, t.Any] = {"ansible_become": True, "ansible_become_user": accounts.other}
    variables["agent_load_test_user"] = accounts.other
    if connection == "ssh":
        accounts.may("(ALL) ALL")
        variables.update(accounts.server.variables(), ansible_become_password=SECRET)
    node = accounts.directory("node", accounts.other, 0o700)
    variables.update(agent_models_dir=str(node / "models"), agent_store=str(node / ".lorafleet"))
    fleet.hosts["jw2-1"].update(variables, ansible_python_interpreter="/usr/bin/python3")
    accounts.directory("node/models", accounts.other)
    done = fleet.deploy("--limit", "jw2", "-vvv")
    for name in (CLEANER_3B, CLEANER_8B):
        assert contents(node / "models" / name) == travelling(fleet.source / name)
    assert {path.lstat().st_uid for path in node.rglob("*")} == {pwd.getpwnam(accounts.other).pw_uid}
    assert f" -u {accounts.other} " in str(done.of("jw2-1", "adapter_sync")["commands"])
    assert_password_not_leaked(fleet, done)


def test_deploy_becoming_root_by_doas_at_both_ends(fleet: Fleet, accounts: Accounts) -> None:
    rules = pathlib.Path("/etc/doas.conf")
    general = [path for path in sys.path if pathlib.Path(path, "ansible_collections/community/general").is_dir()]
    if not shutil.which("doas") or not general:
        pytest.skip("wants doas and the collection community.general")
    if rules.exists():
        pytest.skip("does not change this machine's rules for doas")
    home, server = accounts.home, accounts.server.variables()
    (home / "node/models").mkdir(parents=True)
    (home / "source").mkdir(mode=0o700)
    for name in (CLEANER_3B, CLEANER_8B):
        fleet.offer(name, into=home / "source")
    variables = {**server, "ansible_become": True, "ansible_become_method": "community.general.doas"}
    fleet.hosts["jw2-1"].update(variables, agent_models_dir=str(home / "node/models"), agent_store=str(home / "node/.lorafleet"))
    fleet.hosts["sbs29"].update(variables, training_models_dir=str(home / "source"))
    try:
        rules.write_text(f"permit nopass {accounts.operator}\n", encoding="utf-8")
        fleet.deploy("--limit", "jw2")
        for name in (CLEANER_3B, CLEANER_8B):
            assert contents(home / "node/models" / name) == travelling(home / "source" / name)
        # doas would ask for the password on a terminal.
        rules.write_text(f"permit {accounts.operator}\n", encoding="utf-8")
        done = fleet.run("deploy", "--limit", "jw2", "-e", "agent_load_test_force=true")
        assert done.rc == 2
    finally:
        rules.unlink()


def test_deploy_with_ssh_password_at_either_end(fleet: Fleet, accounts: Accounts) -> None:
    node = accounts.directory("node", accounts.operator)
    accounts.directory("node/models", accounts.operator)
    source = accounts.home / "source"
    for name in (CLEANER_3B, CLEANER_8B):
        fleet.offer(name, into=source)
        # safetensors saves files readable by their owner only.
        (source / name / WEIGHTS).chmod(0o644)
    with accounts.served("by-password", *BY_PASSWORD) as at_node, accounts.served("by-keyboard", *BY_KEYBOARD) as at_source:
        for host, server in (("jw2-1", at_node), ("sbs29", at_source)):
            fleet.hosts[host].update(server.variables(), ansible_password=SECRET, ansible_python_interpreter="/usr/bin/python3")
            del fleet.hosts[host]["ansible_ssh_private_key_file"]
        cache = accounts.directory("cache", accounts.operator)
        fleet.hosts["sbs29"].update(training_models_dir=str(source), training_cache_dir=str(cache))
        fleet.hosts["jw2-1"].update(agent_models_dir=str(node / "models"), agent_store=str(node / ".lorafleet"))
        fleet.hosts["jw2-1"]["agent_load_test_user"] = accounts.operator
        done = fleet.deploy("--limit", "jw2", "-vvv")
        for server, method in ((at_node, "password"), (at_source, "keyboard-interactive/pam")):
            # Ansible's connection, and the one shared by all adapters of the node.
            assert sum(line.startswith(f"Accepted {method} for {accounts.operator}") for line in server.log) == 2
    for name in (CLEANER_3B, CLEANER_8B):
        assert contents(node / "models" / name) == travelling(source / name)
    assert_password_not_leaked(fleet, done)


@dataclasses.dataclass(frozen=True)
class Places:
    """One file at the source (this machine) and a staging directory for the receiver."""

    source: pathlib.Path
    staging: pathlib.Path

    def fetch(self, node: End) -> TransferResult:
        return transfer(End(None), node, ["weights"], str(self.source), str(self.staging), TransferOptions(30))

    @property
    def arrived(self) -> bool:
        path = self.staging / "weights"
        return path.exists() and path.read_bytes() == (self.source / "weights").read_bytes()


@pytest.fixture
def places(accounts: Accounts) -> Places:
    source = accounts.home / "source"
    source.mkdir()
    (source / "weights").write_bytes(os.urandom(1 << 20))
    return Places(source, accounts.directory("staging", accounts.operator, 0o700))


def end(server: sshd_server.Server, accounts: Accounts, **options: t.Any) -> End:
    """An end that accepts no key."""
    askpass_dir = str(accounts.directory("askpass", "root", 0o700))
    return End(server.options(private_key_file=None, **options), askpass_dir=askpass_dir)


def test_transfer_with_wrong_password_tries_once(accounts: Accounts, places: Places) -> None:
    with accounts.served("by-password", *BY_PASSWORD) as server:
        outcome = places.fetch(end(server, accounts, password="another"))  # noqa: S106
        assert (outcome.returncode, outcome.transient) == (255, False)
        assert f"{accounts.operator}@127.0.0.1: Permission denied (publickey,password)" in outcome.reason(30)
        assert sum(line.startswith("Failed password") for line in server.log) == 1


@pytest.mark.parametrize("jump", [BY_PASSWORD, BY_KEYBOARD], ids=["password", "keyboard"])
@pytest.mark.parametrize("jump_host", ["127.0.0.1", "localhost"], ids=["the same name", "another name"])
def test_transfer_does_not_give_the_password_to_a_jump_host(
    accounts: Accounts, places: Places, jump: tuple[str, ...], jump_host: str
) -> None:
    """The jump host asks for the same user's password and would accept it."""
    with accounts.served("target", *BY_PASSWORD) as target, accounts.served("jump", *jump, "ListenAddress ::1") as bastion:
        known = accounts.home / "known_hosts"
        key = (accounts.home / "jump" / "host_key.pub").read_text(encoding="utf-8")
        known.write_text(f"{target.known_hosts.read_text(encoding='utf-8')}[{jump_host}]:{bastion.port} {key}", encoding="utf-8")
        config = accounts.home / "ssh_config"

        def through(more: str) -> End:
            config.write_text(
                f"Host jump\n HostName {jump_host}\n Port {bastion.port}\n User {accounts.operator}\n {more}\n"
                f"Host *\n UserKnownHostsFile {known}\n IdentitiesOnly yes\n GlobalKnownHostsFile /dev/null\n",
                encoding="utf-8",
            )
            arguments = f"-F {config} -o ProxyJump=jump"
            return dataclasses.replace(reached, ssh={**(reached.ssh or {}), "ssh_common_args": arguments})

        reached = end(target, accounts, password=SECRET)
        refused = places.fetch(through(""))
        assert refused.returncode == 255
        assert f"not answered, the password is only for {accounts.operator}@127.0.0.1: " in refused.stderr
        assert any(line.startswith("Failed ") for line in bastion.log)
        assert not any(line.startswith("Accepted ") for line in bastion.log)
        assert not any("Connection from" in line for line in target.log)
        # With a key for the jump host, the target gets the password.
        assert places.fetch(through(f"IdentityFile {bastion.private_key}")).returncode == 0
        assert places.arrived
        assert any(line.startswith("Accepted password") for line in target.log)


def becoming(accounts: Accounts, **options: t.Any) -> End:
    """An end at which the operator becomes root through sudo."""
    plugin, shell = become_loader.get("sudo"), shell_loader.get("sh")
    plugin.set_options(var_options=options)
    shell.executable = "/bin/sh"
    account = Account("jw2-1", accounts.operator, plugin.get_option("become_user"), "sudo")
    return End(accounts.server.options(), become=Become(account, plugin, shell))


def test_transfer_with_sudo_password(accounts: Accounts, places: Places) -> None:
    accounts.may("(ALL) ALL")
    outcome = places.fetch(becoming(accounts, ansible_become_password=SECRET))
    assert (outcome.returncode, places.arrived) == (0, True)
    assert (places.staging / "weights").stat().st_uid == 0
    assert SECRET not in str(outcome)

    # A password that is not asked for is not sent.
    accounts.may("(ALL) NOPASSWD: ALL")
    (places.staging / "weights").unlink()
    assert places.fetch(becoming(accounts, ansible_become_password=SECRET)).returncode == 0
    assert places.arrived


@pytest.mark.parametrize(
    ("password", "message"),
    [
        ("another", "jw2-1: rejected the password to become root."),
        (None, "jw2-1: requires a password to become root."),
    ],
)
def test_transfer_refused_by_sudo_names_the_reason(
    accounts: Accounts, places: Places, password: str | None, message: str
) -> None:
    accounts.may("(ALL) ALL")
    node = becoming(accounts, **({"ansible_become_password": password} if password else {}))
    with pytest.raises(DeliveryError) as caught:
        places.fetch(node)
    assert str(caught.value).startswith(message)
    assert os.listdir(places.staging) == []
    # No process is left here; a remote password prompt ends when its connection closes.
    assert node.become is not None
    deadline = time.monotonic() + LIMIT
    while left := commands_with(node.become.plugin.success):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def commands_with(words: str) -> list[str]:
    """The commands of this machine's processes that contain ``words``."""
    found = subprocess.run(["ps", "-e", "-o", "args="], capture_output=True, text=True, check=True).stdout.splitlines()
    return [command for command in found if words in command]


def test_transfer_becoming_an_unknown_user_names_it(accounts: Accounts, places: Places) -> None:
    accounts.may("(ALL) NOPASSWD: ALL")
    with pytest.raises(
        DeliveryError, match=r"jw2-1: as user .* becoming nobody-here by sudo, the become user nobody-here does not exist"
    ):
        places.fetch(becoming(accounts, ansible_become_user="nobody-here"))
