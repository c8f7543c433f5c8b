# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports of real runs, as tests/fixtures/record_reports.py has recorded them."""

from __future__ import annotations

import json
import pathlib
import typing as t

RECORDED = pathlib.Path(__file__).with_name("fixtures") / "reports"
NAMES = ("deployed", "failed", "drifted", "rolled_back")


def load(name: str) -> dict[str, t.Any]:
    report: dict[str, t.Any] = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    return report
