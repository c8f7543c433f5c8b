# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes the hosts that failed tasks and items were delegated to beside the file FLEET_RECORD."""

from __future__ import annotations

import os
import pathlib
import typing as t

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: failed_targets
short_description: Write where tasks failed
description: For the tests of this collection alone.
type: notification
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "failed_targets"
    CALLBACK_NEEDS_ENABLED = True

    def _write(self, kind: str, result: t.Any) -> None:
        path = pathlib.Path(os.environ["FLEET_RECORD"]).with_suffix(".targets")
        with path.open("a", encoding="utf-8") as stream:
            stream.write(f"{kind} {result._task.delegate_to}\n")

    def v2_runner_item_on_failed(self, result: t.Any) -> None:
        self._write("item", result)

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        self._write("loop", result)

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        self._write("loop", result)
