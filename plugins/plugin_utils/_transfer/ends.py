# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The two ends of a transfer, connected and become as Ansible would do it for a task there."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import getpass
import os
import typing as t

from ansible import constants as C
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.loader import become_loader, connection_loader, shell_loader
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

from .._contact.failures import Account
from .become import Become, check_usable
from .relay import End
from .ssh import OPTIONS

# Options of the ssh connection that define the use of its password. Older ansible-core lacks them.
_PASSWORD_USES = ("password_mechanism", "pkcs11_provider")
_SUPPORTED = "Set ansible_connection to ssh or local."
_BECOME_KEYWORDS = ("become_user", "become_flags", "become_exe")


def node_end(node: str, action: t.Any, control_path: str) -> End:
    """The end at the node, from the connection of its action plugin.

    Raises DeliveryError for a connection or a become method that cannot be used.
    """
    connection = action._connection
    end = _connected(node, connection, control_path)
    return _become(end, node, connection.become, connection._shell, action._get_remote_user())


def source_end(source: str, action: t.Any, variables: c.Mapping[str, t.Any], control_path: str) -> End:
    """The end at the source, with connection and become of a task that is delegated to that host.

    ``variables`` are those of the task on the node. Raises DeliveryError for an unknown host, and
    for a connection or a become method that cannot be used.
    """
    if source not in variables["hostvars"]:
        problem = f"is {source!r}, which is not a host in the inventory."
        raise DeliveryError.of("source", problem, "Set it to the inventory name of the training server.")
    source_vars, task, context = variables["hostvars"][source], action._task, action._play_context
    kind = source_vars.get("ansible_connection", task.connection)
    connection = connection_loader.get(kind, context, os.devnull)
    if connection is None:
        raise DeliveryError.of(source, f"has connection {kind!r}, which is not a connection plugin.", _SUPPORTED)
    # Keywords of the play and options of the command line apply if the inventory sets nothing.
    keywords: dict[str, t.Any] = {"port": task.port, "remote_user": task.remote_user}
    for name in ("password", "timeout"):
        # If variables of the node set one of these, Ansible has put it into the play context. It
        # does not apply to the source.
        if not any(variable in variables for variable in C.MAGIC_VARIABLE_MAPPING[name]):
            keywords[name] = getattr(context, name)
    _set_options(connection, "connection", keywords, source_vars)
    end = _connected(source, connection, control_path)
    if not boolean(source_vars.get("ansible_become", task.become), strict=False):
        return end
    method = source_vars.get("ansible_become_method") or task.become_method or C.DEFAULT_BECOME_METHOD
    plugin = become_loader.get(method)
    if plugin is None:
        problem = f"has become method {method!r}, which is not a become plugin."
        remedy = "Correct ansible_become_method, or install the collection that has this plugin."
        raise DeliveryError.of(source, problem, remedy)
    keywords = {name: getattr(task, name) for name in _BECOME_KEYWORDS}
    if not any(variable in variables for variable in _password_variables(action._connection.become)):
        keywords["become_pass"] = context.become_pass
    _set_options(plugin, "become", keywords, source_vars)
    shell = shell_loader.get("sh")
    shell.executable = source_vars.get("ansible_shell_executable") or C.DEFAULT_EXECUTABLE
    user = connection.get_option("remote_user") if connection.has_option("remote_user") else getpass.getuser()
    return _become(end, source, plugin, shell, user)


def _set_options(plugin: t.Any, kind: str, keywords: dict[str, t.Any], host_vars: c.Mapping[str, t.Any]) -> None:
    """Give a plugin its options, as Ansible does."""
    names = C.config.get_plugin_vars(kind, plugin._load_name)
    plugin.set_options(task_keys=keywords, var_options={name: host_vars[name] for name in names if name in host_vars})


def _password_variables(plugin: t.Any) -> set[str]:
    """The variables with which a node sets the password of its become plugin.

    If one of them is set, the play context has the node's password instead of the answer to
    ``--ask-become-pass``.
    """
    names = set(C.MAGIC_VARIABLE_MAPPING["become_pass"])
    if plugin is not None:
        defined = C.config.get_configuration_definitions("become", plugin._load_name)
        names.update(variable["name"] for variable in defined.get("become_pass", {}).get("vars", ()))
    return names


def _connected(host: str, connection: t.Any, control_path: str) -> End:
    """The end at a host. Raises DeliveryError for an unsupported connection."""
    if connection.transport == "local":
        return End(None)
    if connection.transport != "ssh":
        problem = f"has connection {connection.transport!r}, over which no adapters can be transferred."
        raise DeliveryError.of(host, problem, _SUPPORTED)
    options = {option: connection.get_option(option) for option in OPTIONS}
    if not _uses_password(connection):
        options["password"] = None
    return End(options, control_path, askpass_dir=C.DEFAULT_LOCAL_TMP)


def _become(end: End, host: str, plugin: t.Any, shell: t.Any, remote_user: str | None) -> End:
    """The end with the become plugin of its host, if there is one.

    Raises DeliveryError for a method that cannot be used.
    """
    if plugin is None:
        return end
    user = plugin.get_option("become_user")
    # Like Ansible for every command of a task.
    if user and user == remote_user and not C.BECOME_ALLOW_SAME_USER:
        return end
    check_usable(host, plugin)
    account = Account(host, remote_user, str(user or "another user"), plugin.name)
    return dataclasses.replace(end, become=Become(account, plugin, shell))


def _uses_password(connection: t.Any) -> bool:
    """Return whether the password of an ssh connection is meant for its host.

    Otherwise it is the PIN of a token, or disabled.
    """
    uses = {option: connection.get_option(option) for option in _PASSWORD_USES if connection.has_option(option)}
    return uses.get("password_mechanism") != "disable" and not uses.get("pkcs11_provider")
