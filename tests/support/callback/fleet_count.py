# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counts in the file FLEET_COUNT how often a run puts the variables of a host together."""

from __future__ import annotations

import os
import typing as t

from ansible.plugins.callback import CallbackBase
from ansible.vars.manager import VariableManager

DOCUMENTATION = r"""
name: fleet_count
short_description: Count how often variables are put together
description: For the tests of this collection alone.
type: notification
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "fleet_count"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        get_vars = VariableManager.get_vars

        def counted(manager: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
            # Also in the workers, which are forked later. One byte is written at once.
            with open(os.environ["FLEET_COUNT"], "ab", buffering=0) as stream:
                stream.write(b".")
            return get_vars(manager, *args, **kwargs)

        VariableManager.get_vars = counted
