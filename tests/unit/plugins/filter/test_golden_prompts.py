# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.lorafleet.delivery.plugins.filter.golden_prompts import golden_prompts

from tests.support.paths import CHECKOUT

ROW = {"name": "a"}


def test_golden_prompts_agent_prompts_apply_to_all_its_adapters() -> None:
    hosts = {
        "one": {"agent_adapters": [ROW, {"name": "b"}], "agent_prompts": ["x"]},
        "two": {"agent_adapters": [ROW], "agent_prompts": ["x"]},
        "three": {"agent_adapters": [{"name": "c"}]},
    }
    assert golden_prompts(list(hosts), hosts) == {"a": ["x"], "b": ["x"]}


def test_golden_prompts_conflicting_hosts_are_refused() -> None:
    hosts = {name: {"agent_adapters": [ROW], "agent_prompts": [name]} for name in ("one", "two")}
    with pytest.raises(AnsibleFilterError, match=r"adapter a: two declares other prompts .*Declare them once"):
        golden_prompts(list(hosts), hosts)


@pytest.mark.parametrize("inventory", ["etri", "demo"])
@pytest.mark.parametrize("group", ["jw2", "jw3", "kcloud"])
def test_inventories_every_agent_has_prompts(inventory: str, group: str) -> None:
    path = CHECKOUT / "inventories" / inventory / "group_vars" / f"{group}.yml"
    prompts = yaml.safe_load(path.read_text(encoding="utf-8"))["agent_prompts"]
    assert len(prompts) >= 4
    assert all(isinstance(prompt, str) or set(prompt) == {"user"} for prompt in prompts)
