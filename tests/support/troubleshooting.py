# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The messages that docs/troubleshooting.md quotes."""

from __future__ import annotations

import re

from tests.support.paths import CHECKOUT

_PAGE = CHECKOUT / "docs" / "troubleshooting.md"


def documented(cause: str) -> re.Pattern[str]:
    """The message of a cause as the page has it, in which ... matches anything."""
    found = re.search(rf"^\| {re.escape(cause)} \| (.+) \|$", _PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{_PAGE.name} has no row for {cause!r}"
    return re.compile(".+".join(map(re.escape, re.split(r" \.\.\. |\.\.\.", found[1]))), re.DOTALL)
