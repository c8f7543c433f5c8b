# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The exact command of each end, from the variables of an inventory and the keywords of a play."""

from __future__ import annotations

import getpass
import os
import shlex
import typing as t

import pytest
from ansible import constants as C
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play import Play
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import become_loader, connection_loader
from ansible.template import Templar
from ansible_collections.lorafleet.delivery.plugins.action.adapter_sync import ActionModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.ends import node_end, source_end
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End

HOME = os.path.expanduser("~")
# ansible.cfg may set something else.
ANSIBLES = "-C -o ControlMaster=auto -o ControlPersist=60s"
ALWAYS = [
    "ssh",
    *("-o", "BatchMode=yes"),
    *("-o", "StrictHostKeyChecking=yes"),
    *("-o", "Compression=no"),
    *("-o", "ServerAliveInterval=15"),
    *("-o", "ServerAliveCountMax=4"),
    *("-o", "ControlMaster=auto"),
    *("-o", "ControlPersist=60"),
    *("-o", 'ControlPath="/run/source"'),
    *ANSIBLES.split()[1:],
]
FAST = ["-o", "Ciphers=^aes128-gcm@openssh.com"]


def action(keywords: dict[str, t.Any]) -> ActionModule:
    """The action plugin in a play with these keywords."""
    play = Play.load({"hosts": "all", "connection": "ssh", "tasks": [{"ping": {}}], **keywords}, loader=DataLoader())
    [task] = [task for block in play.compile() for task in block.block if task.action == "ping"]
    context = PlayContext(play=play)
    return ActionModule(task, connection_loader.get("local", context, os.devnull), context, DataLoader(), None, None)


def command(of_source: dict[str, t.Any], **keywords: t.Any) -> list[str]:
    """The command that runs ``true`` on a source with these variables."""
    variables = {"inventory_hostname": "sbs29", "ansible_ssh_args": ANSIBLES, **of_source}
    return source_end("sbs29", action(keywords), {"hostvars": {"sbs29": variables}}, "/run/source").argv(["true"])


def test_source_end_local_connection_runs_on_controller() -> None:
    assert command({"ansible_connection": "local", "ansible_user": "trainer"}) == ["true"]


def test_source_end_local_play_runs_on_controller() -> None:
    assert command({}, connection="local") == ["true"]


@pytest.mark.parametrize("kind", [{}, {"ansible_connection": "ssh"}])
def test_source_end_ssh_default_options(kind: dict[str, t.Any]) -> None:
    assert command({"ansible_host": "192.0.2.4", **kind}) == [
        *ALWAYS,
        *("-o", "ConnectTimeout=10"),
        *FAST,
        *("--", "192.0.2.4", "true"),
    ]


def test_source_end_ssh_variables_of_inventory() -> None:
    variables = {
        "ansible_host": "192.0.2.4",
        "ansible_port": 2222,
        "ansible_user": "trainer",
        "ansible_ssh_private_key_file": "~/keys/fleet",
        "ansible_ssh_executable": "/opt/openssh/bin/ssh",
        "ansible_ssh_timeout": 5,
    }
    assert command(variables) == [
        "/opt/openssh/bin/ssh",
        *ALWAYS[1:],
        *("-o", "Port=2222"),
        *("-o", f'IdentityFile="{HOME}/keys/fleet"'),
        *("-o", 'User="trainer"'),
        *("-o", "ConnectTimeout=5"),
        *FAST,
        *("--", "192.0.2.4", "true"),
    ]


def test_source_end_jump_host() -> None:
    assert command({"ansible_ssh_common_args": "-o ProxyJump=me@bastion", "ansible_ssh_extra_args": "-4"}) == [
        *ALWAYS,
        *("-o", "ConnectTimeout=10"),
        *("-o", "ProxyJump=me@bastion"),
        "-4",
        *FAST,
        *("--", "sbs29", "true"),
    ]


def test_source_end_ssh_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    # ssh finds the agent in Ansible's environment, or where the inventory points it to.
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    assert command({}) == [*ALWAYS, *("-o", "ConnectTimeout=10"), *FAST, *("--", "sbs29", "true")]
    other = command({"ansible_ssh_common_args": "-o IdentityAgent=/run/other"})
    assert other == [*ALWAYS, *("-o", "ConnectTimeout=10"), *("-o", "IdentityAgent=/run/other"), *FAST, *("--", "sbs29", "true")]


def test_source_end_ssh_args_of_inventory_replace_defaults() -> None:
    assert command({"ansible_ssh_args": "-C -F /etc/fleet/ssh_config"}) == [
        *ALWAYS[: ALWAYS.index('ControlPath="/run/source"') + 1],
        *("-F", "/etc/fleet/ssh_config"),
        *("-o", "ConnectTimeout=10"),
        *FAST,
        *("--", "sbs29", "true"),
    ]


def test_source_end_play_keywords_apply_like_in_delegated_tasks() -> None:
    from_play = command({}, remote_user="deploy", port=2022)
    assert 'User="deploy"' in from_play
    assert "Port=2022" in from_play
    from_inventory = command({"ansible_user": "trainer"}, remote_user="deploy")
    assert 'User="trainer"' in from_inventory
    assert 'User="deploy"' not in from_inventory


@pytest.mark.parametrize("variable", ["ansible_password", "ansible_ssh_pass"])
def test_source_end_node_variables_do_not_apply(variable: str) -> None:
    made = action({})
    of_node = {variable: "s3cret", "ansible_timeout": 77, "ansible_user": "served", "ansible_port": 77}
    # Like Ansible before it runs the task for that node.
    made._play_context = made._play_context.set_task_and_variable_override(made._task, of_node, Templar(DataLoader()))
    assert made._play_context.password == "s3cret"  # noqa: S105
    variables = {**of_node, "hostvars": {"sbs29": {"inventory_hostname": "sbs29", "ansible_ssh_args": ANSIBLES}}}
    end = source_end("sbs29", made, variables, "/run/source")
    assert end.ssh is not None
    assert end.ssh["password"] is None
    assert end.argv(["true"]) == [*ALWAYS, *("-o", "ConnectTimeout=10"), *FAST, *("--", "sbs29", "true")]


def test_source_end_ask_pass_password_applies() -> None:
    made = action({})
    made._play_context.password = "s3cret"  # noqa: S105
    end = source_end("sbs29", made, {"hostvars": {"sbs29": {"inventory_hostname": "sbs29"}}}, "/run/source")
    assert end.ssh is not None
    assert end.ssh["password"] == "s3cret"  # noqa: S105


def end_at_node(connection: str = "ssh", become: dict[str, t.Any] | None = None, **variables: t.Any) -> End:
    """The end at a node with these variables, for a task that becomes another user with sudo."""
    made = action({"connection": connection})
    made._connection = connection_loader.get(connection, made._play_context, os.devnull)
    made._connection.set_options(var_options={"inventory_hostname": "jw2-1", "ansible_ssh_args": ANSIBLES, **variables})
    if become is not None:
        plugin = become_loader.get(become.pop("ansible_become_method", "sudo"))
        plugin.set_options(var_options=become)
        made._connection.set_become_plugin(plugin)
    return node_end("jw2-1", made, "/run/node")


def without_mark(end: End) -> list[str]:
    """The command that runs ``true`` at an end, without the random success marker."""
    argv = end.argv(["true"])
    mark = end.become.plugin.success if end.become else "no mark"
    key = mark.rpartition("-")[2]
    return [word.replace(mark, "MARK").replace(key, "KEY") for word in argv]


def test_node_end_without_become() -> None:
    assert without_mark(end_at_node()) == [
        *(word.replace("source", "node") for word in ALWAYS),
        *("-o", "ConnectTimeout=10"),
        *FAST,
        *("--", "jw2-1", "true"),
    ]
    assert without_mark(end_at_node("local")) == ["true"]


def test_node_end_with_become() -> None:
    serving = ["sh", "-c", "sudo -H -S -n  -u serving /bin/sh -c 'echo MARK ; true'"]
    [*connects, becomes] = without_mark(end_at_node(become={"ansible_become_user": "serving"}))
    assert connects == without_mark(end_at_node())[:-1]
    assert shlex.split(becomes) == serving
    assert without_mark(end_at_node("local", become={"ansible_become_user": "serving"})) == serving


def test_node_end_become_password_is_no_argument() -> None:
    become = {"ansible_become_password": "s3cret", "ansible_become_user": "serving", "ansible_become_flags": "-S"}
    end = end_at_node("local", become=become)
    assert end.become is not None
    assert end.become.plugin.get_option("become_pass") == "s3cret"
    asks = 'sudo -S -p "[sudo via ansible, key=KEY] password:" -u serving'
    assert without_mark(end) == ["sh", "-c", f"{asks} /bin/sh -c 'echo MARK ; true'"]


def test_node_end_become_same_user_is_skipped() -> None:
    assert without_mark(end_at_node(become={}, ansible_user="root"))[-1] == "true"
    assert "sudo" in without_mark(end_at_node(become={}, ansible_user="deploy"))[-1]


def test_node_end_become_method_with_terminal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(become_loader.get("sudo", class_only=True), "require_tty", True)
    with pytest.raises(DeliveryError, match=r"jw2-1: has no terminal.*become method sudo requires one\. Set ansible_become_m"):
        end_at_node(become={})


def end_at_source(of_source: dict[str, t.Any], of_node: dict[str, t.Any] | None = None, **keywords: t.Any) -> End:
    """The end at a source, for a task on a node with its own variables."""
    made = action(keywords)
    made._play_context = made._play_context.set_task_and_variable_override(made._task, of_node or {}, Templar(DataLoader()))
    variables = {"inventory_hostname": "sbs29", "ansible_ssh_args": ANSIBLES, **of_source}
    return source_end("sbs29", made, {**(of_node or {}), "hostvars": {"sbs29": variables}}, "/run/source")


BECOMES_ROOT = ["sh", "-c", "sudo -H -S -n  -u root /bin/sh -c 'echo MARK ; true'"]


@pytest.mark.parametrize(("of_source", "keywords"), [({"ansible_become": True}, {}), ({}, {"become": True})])
def test_source_end_with_become(of_source: dict[str, t.Any], keywords: dict[str, t.Any]) -> None:
    [*connects, becomes] = without_mark(end_at_source(of_source, **keywords))
    assert connects == command({})[:-1]
    assert shlex.split(becomes) == BECOMES_ROOT


def test_source_end_variables_of_source_win_over_keywords_of_task() -> None:
    assert end_at_source({"ansible_become": False}, become=True).become is None
    keywords = {"become": True, "become_user": "serving", "become_flags": "-E"}
    assert "sudo -E  -u serving " in without_mark(end_at_source({}, **keywords))[-1]
    of_source = {"ansible_become_user": "trainer", "ansible_become_flags": "-H", "ansible_shell_executable": "/bin/bash"}
    assert "sudo -H  -u trainer /bin/bash -c " in without_mark(end_at_source(of_source, **keywords))[-1]


@pytest.mark.parametrize("variable", ["ansible_become_password", "ansible_become_pass", "ansible_sudo_pass"])
def test_source_end_become_password_is_that_of_source(variable: str) -> None:
    become = {"ansible_become": True}
    of_source = end_at_source({**become, variable: "of source"}, {**become, variable: "of node"}).become
    assert of_source is not None
    assert of_source.plugin.get_option("become_pass") == "of source"


@pytest.mark.parametrize("variable", ["ansible_become_password", "ansible_become_pass", "ansible_sudo_pass"])
def test_source_end_become_password_of_node_does_not_apply(variable: str) -> None:
    made = action({"become": True})
    of_node = {variable: "of node"}
    made._connection.set_become_plugin(become_loader.get("sudo"))
    # Ansible puts the node's password there, from whichever variable it came.
    made._play_context.become_pass = "of node"  # noqa: S105
    end = source_end("sbs29", made, {**of_node, "hostvars": {"sbs29": {"inventory_hostname": "sbs29"}}}, "/run/source")
    assert end.become is not None
    assert end.become.plugin.get_option("become_pass") is None


def test_source_end_ask_become_pass_password_applies() -> None:
    made = action({"become": True})
    made._play_context.become_pass = "asked"  # noqa: S105
    end = source_end("sbs29", made, {"hostvars": {"sbs29": {"inventory_hostname": "sbs29"}}}, "/run/source")
    assert end.become is not None
    assert end.become.plugin.get_option("become_pass") == "asked"


def test_source_end_become_same_user_is_skipped() -> None:
    become = {"ansible_become": True, "ansible_become_user": "trainer"}
    assert end_at_source({**become, "ansible_user": "trainer"}).become is None
    here = {"ansible_connection": "local", "ansible_become": True, "ansible_become_user": getpass.getuser()}
    assert end_at_source(here).become is None
    assert without_mark(end_at_source({**here, "ansible_become_user": "trainer"}))[:2] == ["sh", "-c"]


def test_source_end_unknown_become_method_is_refused() -> None:
    with pytest.raises(DeliveryError, match=r"sbs29: has become method 'no_such_method', which is not a become plugin\. Correct"):
        end_at_source({"ansible_become": True, "ansible_become_method": "no_such_method"})


@pytest.mark.parametrize("end", [end_at_source, lambda variables: end_at_node(become=variables)], ids=["source", "node"])
def test_end_with_su_password_is_refused(end: t.Callable[[dict[str, t.Any]], End]) -> None:
    """su reads it from a terminal. Root needs no password to become another user."""
    su = {"ansible_become": True, "ansible_become_method": "su", "ansible_become_user": "trainer"}
    with pytest.raises(DeliveryError, match=r"has no terminal for a transfer, but become method su requires one to ask for"):
        end({**su, "ansible_become_password": "s3cret"})
    assert "su  trainer -c " in without_mark(end(su))[-1]


PASSWORD = ["-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=1"]


@pytest.mark.parametrize("variable", ["ansible_password", "ansible_ssh_pass", "ansible_ssh_password"])
def test_end_with_ssh_password_allows_one_prompt(variable: str) -> None:
    assert command({variable: "s3cret"}) == [ALWAYS[0], *PASSWORD, *command({})[3:]]
    assert without_mark(end_at_node(**{variable: "s3cret"})) == [ALWAYS[0], *PASSWORD, *without_mark(end_at_node())[3:]]


@pytest.mark.parametrize("use", [{"ansible_ssh_password_mechanism": "disable"}, {"ansible_ssh_pkcs11_provider": "/lib/token.so"}])
def test_node_end_password_for_other_purpose_is_not_used(use: dict[str, str]) -> None:
    if not use.keys() <= set(C.config.get_plugin_vars("connection", "ssh")):
        pytest.skip("this ansible-core has no such option")
    assert without_mark(end_at_node(ansible_password="s3cret", **use)) == without_mark(end_at_node())  # noqa: S106


def test_source_end_unsupported_connection_is_refused() -> None:
    with pytest.raises(DeliveryError, match=r"sbs29: has connection 'psrp', over which no adapters .* Set ansible_connection"):
        command({"ansible_connection": "psrp"})
    with pytest.raises(DeliveryError, match=r"sbs29: has connection 'none_such', which is not a connection plugin\. Set ansible"):
        command({"ansible_connection": "none_such"})


def test_source_end_unknown_source_is_refused() -> None:
    with pytest.raises(DeliveryError, match=r"source: is 'sbs29', which is not a host in the inventory\. Set it to"):
        source_end("sbs29", action({}), {"hostvars": {"jw2": {}}}, "none")
