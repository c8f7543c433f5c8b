# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Checks what a training server offers before any node gets it."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.offered import check_offered, declared_in
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import BASES, DECLARED
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem

_OPTIONS = {**DECLARED, **BASES}


def check_offers(host: str, arguments: c.Mapping[str, t.Any], texts: c.Sequence[str]) -> None:
    """Raise DeliveryError for manifests of other adapters than those in the arguments of the task.

    ``host`` has described them.
    """
    if not texts:
        return
    given = {name: arguments[name] for name in _OPTIONS if name in arguments}
    validated = ArgumentSpecValidator(_OPTIONS).validate(given)
    try:
        if validated.error_messages:
            raise DeliveryError.of("adapters", f"cannot be used: {'; '.join(validated.error_messages)}.")
        options = validated.validated_parameters
        check_offered([Manifest.from_text(text) for text in texts], declared_in(options["adapters"], options["bases"]))
    except DeliveryError as exc:
        remedy = "Inspect that host and the interpreter of Ansible's modules on it before you use its adapters."
        first = Problem(host, "described adapters that it should have refused.", remedy)
        raise DeliveryError(first, *exc.problems) from exc
