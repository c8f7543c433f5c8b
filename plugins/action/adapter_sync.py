# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of adapter_sync: asks the node what it lacks, moves that, and has the node judge what arrived."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import tempfile
import time
import typing as t

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader
from ansible.utils.display import Display
from ansible_collections.lorafleet.delivery.plugins.module_utils._advisories import version_warnings
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._progress.events import Event, Meter, emit
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._steps import VERIFYING, WAITING
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.become import Become
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.rsync import TransferOptions
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.session import Session, no_zstd
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.slots import transfer_slot
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.ssh import OPTIONS

display = Display()

_MODULE = "lorafleet.delivery.adapter_sync"
# Options of the ssh connection that say what a password is for; an older ansible-core may lack them.
_PASSWORD_IS_FOR = ("password_mechanism", "pkcs11_provider")


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        seconds: dict[str, float] = {}
        with _timed(seconds, "plan"):
            plan = self._phase("plan", variables)
        if plan.get("failed") or self._task.check_mode:
            return {**result, **_public(plan)}
        result["seconds"] = seconds
        _warn_of(variables["inventory_hostname"], plan["rsync"])
        if any(adapter["sent"] for adapter in plan["adapters"]):
            try:
                self._bring(plan, variables, result)
            except DeliveryError as exc:
                return {**result, "failed": True, "msg": str(exc), "problems": exc.to_json()}
        # Also where nothing was lacking: an earlier run may have ended between the transfer and this.
        if not all(adapter["stored"] for adapter in plan["adapters"]):
            emit(Event(variables["inventory_hostname"], VERIFYING))
            with _timed(seconds, "settle"):
                settled = self._phase("settle", variables)
            if settled.get("failed"):
                return {**result, **_public(settled)}
            # What two adapters share was not on the node yet when it was planned.
            for planned, found in zip(plan["adapters"], settled["adapters"]):
                planned.update(taken=found["taken"], taken_bytes=found["taken_bytes"])
        return {**result, **_public(plan)}

    def _phase(self, phase: str, variables: dict[str, t.Any]) -> dict[str, t.Any]:
        """Run the module of the same name on the node."""
        arguments = {**self._task.args, "phase": phase}
        found: dict[str, t.Any] = self._execute_module(module_name=_MODULE, module_args=arguments, task_vars=variables)
        return found

    def _node_end(self, node: str, control_path: str) -> End:
        """The end at the node, whose files belong to the user that modules run as."""
        end = _end(node, self._connection, control_path)
        plugin, user = self._connection.become, self.get_become_option("become_user")
        # As Ansible has it for every command of a task: who is that user already does not become it.
        already = user and user == self._get_remote_user() and not C.BECOME_ALLOW_SAME_USER
        if plugin is None or already:
            return end
        if plugin.require_tty:
            raise DeliveryError.of(
                node,
                f"has no terminal for a transfer, but become method {plugin.name} requires one.",
                "Set ansible_become_method to one that needs no terminal, such as sudo.",
            )
        return dataclasses.replace(end, become=Become(node, plugin, self._connection._shell))

    def _bring(self, plan: dict[str, t.Any], variables: dict[str, t.Any], result: dict[str, t.Any]) -> None:
        """Move all that is missing, and say so in C(result). Raises DeliveryError when it cannot be done."""
        source, node = str(self._task.args["source"]), variables["inventory_hostname"]
        asked = plan["options"]
        way = TransferOptions(asked["transfer_timeout"], asked["transfer_bwlimit"], asked["transfer_compress"])
        if way.compress and not plan["zstd"]:
            raise no_zstd(node, plan["rsync"])
        with contextlib.ExitStack() as held:
            # The path of a socket has a hundred characters at most, which TMPDIR may not leave room for.
            sockets = held.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))
            session = Session(
                source,
                node,
                self._source_end(source, variables, os.path.join(sockets, "source")),
                self._node_end(node, os.path.join(sockets, "node")),
                way,
                asked["transfer_tries"],
            )
            held.callback(session.close)
            with _timed(result["seconds"], "wait"):
                waiting = functools.partial(emit, Event(node, WAITING))
                held.enter_context(transfer_slot(C.DEFAULT_LOCAL_TMP, source, asked["transfer_streams"], waiting))
            held.callback(lambda: result.update(session.summary()))
            held.enter_context(_timed(result["seconds"], "transfer"))
            for adapter in plan["adapters"]:
                if adapter["sent"]:
                    display.vv(f"{adapter['name']}: {adapter['sent_bytes']} bytes from {source}", host=node)
                    directory = os.path.join(str(self._task.args["source_models_dir"]), adapter["name"])
                    # How many bytes compressed files make is known only when they are through.
                    expected = 0 if way.compress else adapter["sent_bytes"] - adapter["staged_bytes"]
                    meter = Meter(node, adapter["name"], expected)
                    session.fetch(adapter["name"], adapter["sent"], directory, adapter["staging"], meter)
                    meter.done()
        _warn_of(source, session.source_rsync)

    def _source_end(self, source: str, variables: dict[str, t.Any], control_path: str) -> End:
        """The end at the source, with its connection's options as Ansible would have them for a task delegated to that host."""
        if source not in variables["hostvars"]:
            raise AnsibleActionFail(f"source {source!r} is no host of the inventory")
        of_source = variables["hostvars"][source]
        kind = of_source.get("ansible_connection", self._task.connection)
        connection = connection_loader.get(kind, self._play_context, os.devnull)
        if connection is None:
            raise AnsibleActionFail(f"{source}: connection plugin {kind} does not exist")
        names = C.config.get_plugin_vars("connection", connection._load_name)
        # What plays and the command line say counts where the inventory says nothing.
        said: dict[str, t.Any] = {"port": self._task.port, "remote_user": self._task.remote_user}
        for name in ("password", "timeout"):
            # Where variables of the node say them, Ansible has put these into the play context: they are not for the source.
            if not any(variable in variables for variable in C.MAGIC_VARIABLE_MAPPING[name]):
                said[name] = getattr(self._play_context, name)
        connection.set_options(task_keys=said, var_options={name: of_source[name] for name in names if name in of_source})
        return _end(source, connection, control_path)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], phase: str) -> t.Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[phase] = round(time.monotonic() - start, 3)


def _warn_of(host: str, rsync: str) -> None:
    for warning in version_warnings(host, {"rsync": rsync} if rsync else {}):
        display.warning(warning)


def _end(host: str, connection: t.Any, control_path: str) -> End:
    """The end of a transfer at a host. Raises AnsibleActionFail for a connection that no rsync can pass through."""
    if connection.transport == "local":
        return End(None)
    if connection.transport != "ssh":
        raise AnsibleActionFail(f"{host}: adapters cannot be sent over connection {connection.transport!r}; use ssh or local")
    options = {option: connection.get_option(option) for option in OPTIONS}
    if not _answers(connection):
        options["password"] = None
    return End(options, control_path, askpass_dir=C.DEFAULT_LOCAL_TMP)


def _answers(connection: t.Any) -> bool:
    """Whether a password of an ssh connection is there to be given to its host: it may be a token's PIN, or not wanted at all."""
    said = {option: connection.get_option(option) for option in _PASSWORD_IS_FOR if connection.has_option(option)}
    return said.get("password_mechanism") != "disable" and not said.get("pkcs11_provider")


def _public(found: dict[str, t.Any]) -> dict[str, t.Any]:
    """A module's result without what only this action needs."""
    adapters = [
        {key: value for key, value in adapter.items() if key not in ("staging", "staged_bytes")}
        for adapter in found.get("adapters", ())
    ]
    public = {key: value for key, value in found.items() if key not in ("invocation", "adapters", "options", "zstd")}
    return {**public, "adapters": adapters} if "adapters" in found else public
