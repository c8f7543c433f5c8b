# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Variables of hosts, as far as their values are known before the first contact."""

from __future__ import annotations

import collections.abc as c
import functools
import json
import pathlib
import re
import typing as t

from ansible.errors import AnsibleError
from ansible.module_utils.common.yaml import yaml_load

try:
    from ansible.template import trust_as_template
except ImportError:
    # ansible-core 2.18, which templates every text.
    def trust_as_template(value: str) -> str:
        return value


from .fact_checks import overriding_facts

_ROLES = pathlib.Path(__file__).parents[3] / "roles"


class HostVariables:
    """The variables of one host: those of the inventory and the defaults of role agent.

    A value that cannot be evaluated, because it refers to facts or to registered results, counts as
    not set. The role fails where it needs such a value and still cannot evaluate it. Nor is a value
    set that a fact overrides.
    """

    def __init__(self, raw: c.Mapping[str, t.Any], hostvars: t.Any, templar: t.Any, evaluated: dict[str, t.Any]) -> None:
        """``templar`` is that of an action plugin, ``hostvars`` the magic variable.

        ``evaluated`` holds defaults that were evaluated for other hosts.
        """
        self.overridden = overriding_facts(raw)
        raw = {name: value for name, value in raw.items() if name not in self.overridden}
        self._raw, self._evaluated = raw, evaluated
        self._values: dict[str, t.Any] = {}
        # The values that were asked for and cannot be evaluated, with the reasons.
        self.unknown: dict[str, str] = {}
        self._all = {**_role_defaults(), **raw, "hostvars": hostvars}
        self._templar = templar.copy_with_new_env(available_variables=self._all)

    @classmethod
    def of(cls, host: str, hostvars: t.Any, templar: t.Any, evaluated: dict[str, t.Any]) -> HostVariables:
        return cls(hostvars.raw_get(host), hostvars, templar, evaluated)

    def names(self) -> list[str]:
        """Return the names of the variables that the inventory and the command line set."""
        return list(self._raw)

    def get(self, name: str) -> t.Any:
        """Return a value as JSON knows it, or None if it is not set or cannot be evaluated."""
        if name not in self._values:
            self._values[name] = self._template(name) if name in self._raw else self._default(name)
        return self._values[name]

    def _default(self, name: str) -> t.Any:
        """Return the role's default. It depends on the values of the variables in its text."""
        others = re.findall(r"\bagent_\w+", str(_role_defaults().get(name)))
        key = json.dumps([name, *map(self.get, others)])
        if key not in self._evaluated:
            self._evaluated[key] = self._template(name)
        return self._evaluated[key]

    def _template(self, name: str) -> t.Any:
        if name not in self._all:
            return None
        try:
            value = self._templar.template(self._all[name])
        except AnsibleError as exc:
            self.unknown[name] = str(exc)
            return None
        return as_json(value)


def as_json(value: t.Any) -> t.Any:
    """Return a value as JSON knows it: the dates that YAML reads become text."""
    return json.loads(json.dumps(value, default=str))


@functools.cache
def _role_defaults() -> dict[str, t.Any]:
    defaults = yaml_load((_ROLES / "agent" / "defaults" / "main.yml").read_text(encoding="utf-8"))
    return {name: trust_as_template(value) if isinstance(value, str) else value for name, value in defaults.items()}
