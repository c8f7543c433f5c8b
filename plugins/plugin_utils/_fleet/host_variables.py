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
import typing as t

from ansible.errors import AnsibleError
from ansible.module_utils.common.yaml import yaml_load

try:
    from ansible.template import trust_as_template
except ImportError:
    # ansible-core 2.18, which templates every text.
    def trust_as_template(value: str) -> str:
        return value


_ROLES = pathlib.Path(__file__).parents[3] / "roles"


class HostVariables:
    """The variables of one host: those of the inventory and the defaults of role agent.

    A value that cannot be evaluated, because it refers to facts or to registered results, counts as
    not set. The role fails where it needs such a value and still cannot evaluate it.
    """

    def __init__(self, raw: c.Mapping[str, t.Any], templar: t.Any) -> None:
        self._raw, self._templar = raw, templar

    @classmethod
    def read(cls, host: str, hostvars: t.Any, templar: t.Any) -> HostVariables:
        """Read a host of the magic variable ``hostvars``, with the templar of an action plugin."""
        raw = {**_role_defaults(), **hostvars.raw_get(host)}
        return cls(raw, templar.copy_with_new_env(available_variables={**raw, "hostvars": hostvars}))

    def names(self) -> list[str]:
        return list(self._raw)

    def get(self, name: str) -> t.Any:
        """Return a value as JSON knows it, or None if it is not set or cannot be evaluated."""
        if name not in self._raw:
            return None
        try:
            value = self._templar.template(self._raw[name])
        except AnsibleError:
            return None
        return json.loads(json.dumps(value, default=str))


@functools.cache
def _role_defaults() -> dict[str, t.Any]:
    defaults = yaml_load((_ROLES / "agent" / "defaults" / "main.yml").read_text(encoding="utf-8"))
    return {name: trust_as_template(value) if isinstance(value, str) else value for name, value in defaults.items()}
