# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answers of modules for tests that run none."""

from __future__ import annotations

import typing as t


def described(**changed: t.Any) -> dict[str, t.Any]:
    """What adapter_info returns for no adapter, with changes by keyword."""
    empty: dict[str, t.Any] = {key: {} for key in ("goldens", "excluded", "directories", "notes", "suggested_rows")}
    return {"changed": False, "manifests": [], **empty, "cached": [], "folded": [], **changed}
