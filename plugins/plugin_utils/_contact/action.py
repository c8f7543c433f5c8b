# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The bases of the action plugins that run a module of this collection on a host."""

from __future__ import annotations

import contextlib
import typing as t

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible.utils.display import Display
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import escaped, human_bytes, shown

from .._kept_manifests import with_packed, with_texts
from .._signing.signature_files import with_signed
from .answers import INSPECT, answer_of
from .failures import Account, Failure, explain
from .memory import MAX_MEMORY, bounded_memory


class GatedAction(ActionBase):
    """Lets only known keys in known forms pass from a host, see ``answers``.

    Replaces references to manifests with their texts, adds the statements that people have signed
    about them, and packs the texts.
    """

    def _execute_module(self, *args: t.Any, **kwargs: t.Any) -> dict[str, t.Any]:
        """Run a module of this collection. Raises DeliveryError for an answer of another form."""
        arguments = kwargs.get("module_args") or self._task.args
        if "manifests" in arguments:
            kwargs["module_args"] = with_packed(with_signed(with_texts(arguments)))
        host = host_of(self, kwargs.get("task_vars") or {})
        # Modules on this machine would inherit the limit, and hosts behind other connections too.
        bounded = bounded_memory(MAX_MEMORY) if self._connection.transport == "ssh" else contextlib.nullcontext()
        try:
            with bounded:
                found: dict[str, t.Any] = super()._execute_module(*args, **kwargs)
        except AnsibleConnectionFailure as exc:
            message = str(exc)
            if escaped(message) == message:
                raise
            # Without the cause, which has the same text.
            raise AnsibleConnectionFailure(escaped(message)) from None
        except MemoryError:
            # Without the cause, which holds on to what was read.
            problem = f"gave an answer that takes more than {human_bytes(MAX_MEMORY)} of memory."
            raise DeliveryError.of(host, problem, INSPECT) from None
        except (TypeError, ValueError, RecursionError) as exc:
            # JSON, but with objects of ansible-core in it, or too deep.
            raise DeliveryError.of(host, f"gave an answer that Ansible cannot read: {shown(str(exc))}.", INSPECT) from exc
        module = str(kwargs.get("module_name") or self._task.action).rpartition(".")[2]
        answer = answer_of(module, host, found, bool(self._task.delegate_to))
        if Display().verbosity >= 3:
            # Ansible shows the arguments then. What the host says of them is not let through.
            answer["invocation"] = {"module_args": dict(arguments)}
        return answer


class ContactAction(GatedAction):
    """Explains why a module did not run: the host, the account, the cause and the remedy."""

    def _execute_module(self, *args: t.Any, **kwargs: t.Any) -> dict[str, t.Any]:
        task_vars = kwargs.get("task_vars") or {}
        try:
            result = super()._execute_module(*args, **kwargs)
        except DeliveryError as exc:
            return failed(*exc.problems)
        except AnsibleError as exc:
            problem = explain(Failure(str(exc)), account_of(self, task_vars))
            if problem is None:
                raise
            return failed(problem)
        failure = Failure.of_result(result)
        problem = explain(failure, account_of(self, task_vars)) if failure else None
        return failed(problem) if problem else result


class NodeAction(ContactAction, NormalAction):
    """Runs the module of the same name, with check mode as Ansible itself does."""

    # Ansible would fetch the answer itself.
    _supports_async = False


def host_of(action: ActionBase, task_vars: dict[str, t.Any]) -> str:
    """The host that a task works on, which may be delegated."""
    return str(action._task.delegate_to or task_vars.get("inventory_hostname", ""))


def account_of(action: ActionBase, task_vars: dict[str, t.Any]) -> Account:
    """The account of a task, on the host that it is delegated to."""
    host, plugin, user = host_of(action, task_vars), action._connection.become, action._get_remote_user()
    if plugin is None:
        return Account(host, user)
    return Account(host, user, str(plugin.get_option("become_user") or "another user"), plugin.name)


def failed(*problems: Problem) -> dict[str, t.Any]:
    """The result of a task that failed with these problems, which may quote a host."""
    error = DeliveryError(*problems)
    entries = [{key: text and escaped(text) for key, text in entry.items()} for entry in error.to_json()]
    return {"failed": True, "msg": escaped(str(error)), "problems": entries}
