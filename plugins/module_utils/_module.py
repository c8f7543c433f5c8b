# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The base class of the collection's modules. No other file of module_utils imports Ansible."""

from __future__ import annotations

import contextlib
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ._errors import DeliveryError, Problem


class DeliveryModule(AnsibleModule):
    """A module that supports check mode and fails with a list of problems."""

    def __init__(self, argument_spec: dict[str, t.Any], **kwargs: t.Any) -> None:
        super().__init__(argument_spec, supports_check_mode=True, **kwargs)

    def fail(self, problems: t.Iterable[Problem], **results: t.Any) -> t.NoReturn:
        """Fail with the problems, as a message and as data, and with results of what was done."""
        error = DeliveryError(*problems)
        self.fail_json(msg=str(error), problems=error.to_json(), **results)
        raise AssertionError("fail_json does not return")

    @contextlib.contextmanager
    def failing_on_error(self) -> t.Iterator[None]:
        """Fail with the problems of a DeliveryError."""
        try:
            yield
        except DeliveryError as exc:
            self.fail(exc.problems)
