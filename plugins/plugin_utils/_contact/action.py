# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The base of the action plugins that run a module of this collection on a host."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem

from .._kept_manifests import with_texts
from .failures import Account, Failure, explain


class ContactAction(ActionBase):
    """Explains why a module did not run: the host, the account, the cause and the remedy.

    Replaces references to manifests with their texts.
    """

    def _execute_module(self, *args: t.Any, **kwargs: t.Any) -> dict[str, t.Any]:
        task_vars = kwargs.get("task_vars") or {}
        arguments = kwargs.get("module_args") or self._task.args
        try:
            if "manifests" in arguments:
                kwargs["module_args"] = with_texts(arguments)
            result: dict[str, t.Any] = super()._execute_module(*args, **kwargs)
        except DeliveryError as exc:
            return {"failed": True, "msg": str(exc), "problems": exc.to_json()}
        except AnsibleError as exc:
            problem = explain(Failure(str(exc)), account_of(self, task_vars))
            if problem is None:
                raise
            return failed(problem)
        # Ansible repeats the arguments in the result, to display them.
        invocation = result.get("invocation")
        if isinstance(invocation, dict) and isinstance(invocation.get("module_args"), dict):
            invocation["module_args"].pop("manifests", None)
        failure = Failure.of_result(result)
        problem = explain(failure, account_of(self, task_vars)) if failure else None
        return failed(problem) if problem else result


class NodeAction(ContactAction, NormalAction):
    """Runs the module of the same name, with async and check mode as Ansible itself does."""


def account_of(action: ActionBase, task_vars: dict[str, t.Any]) -> Account:
    """The account of a task, on the host that it is delegated to."""
    host = str(action._task.delegate_to or task_vars.get("inventory_hostname", ""))
    plugin, user = action._connection.become, action._get_remote_user()
    if plugin is None:
        return Account(host, user)
    return Account(host, user, str(plugin.get_option("become_user") or "another user"), plugin.name)


def failed(problem: Problem) -> dict[str, t.Any]:
    """The result of a task that failed with a problem."""
    error = DeliveryError(problem)
    return {"failed": True, "msg": str(error), "problems": error.to_json()}
