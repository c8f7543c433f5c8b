# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.
"""The options of a task that say how files get to a node."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import TRANSFER
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._rsync import check_transfer_options


def given_options(module: str, arguments: c.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return what a module documents as ``transfer_*``, from the task. Raises DeliveryError."""
    validated = ArgumentSpecValidator(TRANSFER).validate({name: arguments[name] for name in TRANSFER if name in arguments})
    if validated.error_messages:
        raise DeliveryError.of(module, f"{'; '.join(validated.error_messages)}.")
    found: dict[str, t.Any] = validated.validated_parameters
    check_transfer_options(found)
    return found
