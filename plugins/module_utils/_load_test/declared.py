# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Compare the configuration of an adapter on this host with the inventory."""

from __future__ import annotations

import os
import typing as t

from .._adapter.files import CONFIG_FILE
from .._adapter.lora_config import config_problems, read_lora_config
from .._errors import DeliveryError
from .case import Case


def check_declaration(case: Case, directory: str) -> dict[str, t.Any]:
    """Return the adapter's configuration, which is as declared. Raises DeliveryError."""
    config = read_lora_config(os.path.join(directory, CONFIG_FILE))
    problems = config_problems(config, case.declared)
    if problems:
        raise DeliveryError(*problems)
    return config
