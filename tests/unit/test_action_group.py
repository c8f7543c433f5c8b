# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import yaml

from tests.support.paths import CHECKOUT


def test_every_module_is_in_the_action_group_as_it_says() -> None:
    groups = yaml.safe_load((CHECKOUT / "meta" / "runtime.yml").read_text())["action_groups"]
    assert groups == {"delivery": sorted(path.stem for path in (CHECKOUT / "plugins" / "modules").glob("*.py"))}
