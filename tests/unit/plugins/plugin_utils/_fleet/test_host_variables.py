# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.host_variables import (
    HostVariables,
    trust_as_template,
)

Variables = t.Dict[str, t.Any]


class HostVars(t.Dict[str, Variables]):
    """The variables of hosts, in the form of the magic variable ``hostvars``."""

    def raw_get(self, host: str) -> Variables:
        return {"groups": {"training": ["sbs29"]}, "inventory_hostname": host, **self[host]}


@pytest.fixture
def hosts() -> t.Callable[..., list[HostVariables]]:
    def of(**variables: Variables) -> list[HostVariables]:
        hostvars, evaluated = HostVars(variables), t.cast("Variables", {})
        templar = Templar(DataLoader())
        return [HostVariables.of(name, hostvars, templar, evaluated) for name in variables]

    return of


Hosts = t.Callable[..., t.List[HostVariables]]


def test_host_variables_templates_are_evaluated_for_their_host(hosts: Hosts) -> None:
    template = {"agent_name": trust_as_template("{{ inventory_hostname }}")}
    assert [host.get("agent_name") for host in hosts(jw2=template, jw3=template)] == ["jw2", "jw3"]


def test_host_variables_that_cannot_be_evaluated_are_unknown(hosts: Hosts) -> None:
    [host] = hosts(jw2={"agent_adapters": trust_as_template("{{ ansible_facts.adapters }}"), "agent_name": None})
    assert host.get("agent_adapters") is host.get("agent_name") is host.get("agent_owner") is None
    assert list(host.unknown) == ["agent_adapters"]


def test_host_variables_texts_that_are_no_templates_stay(hosts: Hosts) -> None:
    [host] = hosts(jw2={"agent_notes": ["100 %"], "agent_keep": 4})
    assert (host.get("agent_notes"), host.get("agent_keep")) == (["100 %"], 4)


def test_host_variables_default_of_role_depends_on_values_of_host(hosts: Hosts) -> None:
    alike = {"agent_models_dir": "/srv/models"}
    *nodes, server = hosts(a={}, b=alike, c=alike, d={"agent_training_host": "sbs29"}, sbs29={"training_models_dir": "/train"})
    assert [host.get("agent_training_host") for host in nodes] == ["sbs29"] * 4
    assert [host.get("agent_source_models_dir") for host in nodes] == ["/train"] * 4
    assert [host.get("agent_store") for host in nodes] == [
        "/home/.lorafleet",
        "/srv/.lorafleet",
        "/srv/.lorafleet",
        "/home/.lorafleet",
    ]
    assert "agent_store" not in server.names()
