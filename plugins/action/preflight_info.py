# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of preflight_info: how a host is reached, as whom, and its clock."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import typing as t

from ansible import constants as C
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.checklist import FAILED, Checklist
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.signatures import SIGNATURES
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import escaped
from ansible_collections.lorafleet.delivery.plugins.module_utils._ways import AUTO, ways_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.action import GatedAction, account_of, failed, host_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.failures import Failure
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.offers import check_offers
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._once import once_a_run
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._preflight.contact import (
    CONNECTION,
    TRANSFER_CONNECTION,
    add_clock,
    add_lost,
    add_reached,
    add_refused,
    add_unknown_answer,
    reached,
)
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._preflight.direct import TRIED, check_way, tried_ways, way_check
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._signing.signature_files import with_signed
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.ends import node_end, source_end
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.options import given_options
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.probe import probe
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.rsync import TransferOptions
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.slots import transfer_slot

_MODULE = "lorafleet.delivery.preflight_info"
# Ansible displays them for the host that called the module.
_NOT_SHARED = ("warnings",)
# Without these of a source, a node cannot reach it either.
_REACHED = (CONNECTION, TRANSFER_CONNECTION)


class ActionModule(GatedAction):
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        source = self._task.delegate_to
        if source is None:
            return {**result, **self._preflight(variables)}
        if source not in variables["hostvars"]:
            checklist = Checklist()
            remedy = "Set agent_training_host to its name there, or put that host into the group training."
            checklist.add(CONNECTION, FAILED, f"{source!r} is not a host in the inventory.", remedy)
            return {**result, **_result(checklist, {})}

        def shared() -> dict[str, t.Any]:
            return {key: value for key, value in self._preflight(variables).items() if key not in _NOT_SHARED}

        # Nodes with the same adapters share one check of their training server, also a failed one.
        key = [self._task._uuid, source, self._task.args]
        return {**result, **(once_a_run("preflight_info", key, shared) or self._preflight(variables))}

    def _preflight(self, variables: dict[str, t.Any]) -> dict[str, t.Any]:
        """Run the module, and put what the controller finds before its checks."""
        checklist, unreadable = Checklist(), Checklist()
        arguments = self._task.args
        with unreadable.checking(SIGNATURES):
            with_signed(arguments)
        if unreadable.failed():
            # The module checks everything else.
            arguments = {**arguments, "signatures": ""}
        before = time.time()
        try:
            found = self._execute_module(module_name=_MODULE, module_args=arguments, task_vars=variables)
            check_offers(host_of(self, variables), self._task.args, found.get("manifests", ()))
        except DeliveryError as exc:
            add_unknown_answer(checklist, self._connection, exc)
            return _result(checklist, {})
        except AnsibleConnectionFailure as exc:
            add_lost(checklist, self._connection, str(exc))
            return _result(checklist, {})
        except AnsibleError as exc:
            add_refused(checklist, self._connection, Failure(str(exc)), account_of(self, variables))
            return _result(checklist, {})
        after = time.time()
        if {"checks", "user", "time"} <= found.keys():
            add_reached(checklist, self._connection, found.pop("user"))
            add_clock(checklist, before, found.pop("time"), after)
            checklist.checks += unreadable.checks
            self._check_transfer_connection(checklist, variables, found["checks"])
            node_python = found.pop("python", "")
            if self._task.args.get("part") == "node":
                self._check_ways(checklist, variables, node_python)
            return _result(checklist, found)
        failure = Failure.of_result(found) or Failure(str(found.get("msg", "")))
        add_refused(checklist, self._connection, failure, account_of(self, variables))
        return _result(checklist, {})

    def _check_transfer_connection(self, checklist: Checklist, variables: dict[str, t.Any], checks: list[dict[str, str]]) -> None:
        """Open the connection of a transfer, which is not Ansible's own."""
        host = self._task.delegate_to or variables["inventory_hostname"]
        # Each program is missed once.
        passed = {one["check"] for one in checks if one["state"] != FAILED}
        programs = [program for program in ("rsync", "flock") if program in passed]
        # The path of a socket has at most about a hundred characters. TMPDIR may be too long.
        with checklist.checking(TRANSFER_CONNECTION), tempfile.TemporaryDirectory(dir="/tmp") as sockets:
            end = node_end(host, self, os.path.join(sockets, "socket"))
            probe(host, end, programs, source=self._task.args.get("part") == "source")
            checklist.ok(TRANSFER_CONNECTION, reached(self._connection))

    def _check_ways(self, checklist: Checklist, variables: dict[str, t.Any], node_python: str) -> None:
        """Let the node connect to its source by each way in which a delivery would do so."""
        node, source = variables["inventory_hostname"], str(self._task.args.get("source") or "")
        try:
            given = given_options(_MODULE, self._task.args)
        except DeliveryError:
            # The module has said so.
            return
        names = [name for name in ways_of(given) if name in TRIED]
        if not names:
            return
        why = ""
        if self._task.check_mode:
            why = "not tried in check mode"
        elif not source:
            why = "not tried without option source"
        elif any(one["state"] == FAILED and one["check"] in _REACHED for one in self._task.args.get("source_checks") or ()):
            why = f"not tried, because {source} cannot be reached"
        elif checklist.failed(TRANSFER_CONNECTION):
            why = f"not tried without the {TRANSFER_CONNECTION}"
        if why:
            for name in names:
                checklist.unknown(way_check(name), why)
            return
        with checklist.checking(way_check(names[0])), contextlib.ExitStack() as held:
            sockets = held.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))
            at_node = node_end(node, self, os.path.join(sockets, "node"))
            held.callback(at_node.close)
            at_source = source_end(source, self, variables, os.path.join(sockets, "source"))
            held.callback(at_source.close)
            # Otherwise, nodes could take all ports from each other.
            held.enter_context(transfer_slot(C.DEFAULT_LOCAL_TMP, source, given["transfer_streams"]))
            options = TransferOptions(given["transfer_timeout"])
            ends = (source, node, at_source, at_node)
            for way in tried_ways(given, ends, variables["hostvars"][source], node_python, options):
                check_way(checklist, way, required=given["transfer"] != AUTO)


def _result(checklist: Checklist, found: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the result of the module with the controller's checks before its own."""
    checks = [{key: escaped(text) for key, text in check.items()} for check in checklist.to_json()]
    result = {"changed": False, **found, "checks": [*checks, *found.get("checks", ())]}
    own = failed(*checklist.problems())
    problems = [*own["problems"], *found.get("problems", ())]
    if problems:
        message = "\n".join(filter(None, (own["msg"], found.get("msg"))))
        result.update(failed=True, problems=problems, msg=message)
    return result
