# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Finds facts that override variables of the inventory.

The modules of this collection set no facts, see ``_contact/answers``. But Ansible accepts facts of
any name from all other modules that a play runs on a host, and unless ``inject_facts_as_vars`` is
off, they override the inventory.
"""

from __future__ import annotations

import collections.abc as c
import typing as t

from ansible import constants as C
from ansible.plugins.loader import connection_loader

from .findings import Finding
from .role_options import documented_variables

OF_FLEET = frozenset({"lorafleet_own_variables", "lorafleet_training", "lorafleet_notes"})
_REMEDY = (
    "Facts do not have such names: find out which module returned it, and whether that host can be trusted. With"
    " inject_facts_as_vars = False in section defaults of ansible.cfg, facts cannot override variables."
)


def overriding_facts(variables: c.Mapping[str, t.Any]) -> set[str]:
    """Return the variables of the roles and of ssh connections that facts of a host set.

    ``variables`` are those of the host.
    """
    facts = variables.get("ansible_facts")
    if not facts or not C.INJECT_FACTS_AS_VARS:
        return set()
    # Ansible knows the options of a plugin once it is loaded.
    connection_loader.get("ssh", class_only=True)
    # Ansible ignores facts with the names of most connection variables, but not of all.
    connection = {name for name in C.config.get_plugin_vars("connection", "ssh") if name.startswith("ansible_")}
    # In ``ansible_facts``, names lack this beginning.
    return {name for name in (*documented_variables(), *OF_FLEET, *connection) if name.removeprefix("ansible_") in facts}


def findings_of(overridden: c.Iterable[str]) -> list[Finding]:
    """Return what is wrong with facts that override these variables."""
    problem = "is set by a fact of the host, which overrides the inventory."
    return [Finding(name, problem, _REMEDY) for name in sorted(overridden)]
