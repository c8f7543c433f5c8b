# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module ``os`` with some functions replaced, for one module of the collection."""

from __future__ import annotations

import os
import typing as t


class PatchedOs:
    """Set as ``os`` of one module; all others keep the real one."""

    def __init__(self, **replaced: t.Any) -> None:
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> t.Any:
        return getattr(os, name)
