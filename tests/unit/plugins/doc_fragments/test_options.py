# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fragments document the constants of _argspec.py under the same names."""

from __future__ import annotations

import typing as t

import pytest
import yaml
from ansible_collections.lorafleet.delivery.plugins.doc_fragments._options import ModuleDocFragment
from ansible_collections.lorafleet.delivery.plugins.module_utils import _argspec

FRAGMENTS = {name: value for name, value in vars(ModuleDocFragment).items() if name.isupper()}
CONSTANTS = {name: value for name, value in vars(_argspec).items() if name.isupper() and isinstance(value, dict)}


def specification(documented: dict[str, t.Any]) -> dict[str, t.Any]:
    """The argument specification of documented options."""
    spec = {}
    for name, option in documented.items():
        spec[name] = {key: value for key, value in option.items() if key not in ("description", "suboptions")}
        if "suboptions" in option:
            spec[name]["options"] = specification(option["suboptions"])
    return spec


def test_fragments_and_constants_have_the_same_names() -> None:
    assert set(FRAGMENTS) == set(CONSTANTS)


def without_logging(spec: dict[str, t.Any]) -> dict[str, t.Any]:
    """The same without what documentation does not have: whether logs show the value."""
    return {name: {key: value for key, value in option.items() if key != "no_log"} for name, option in spec.items()}


@pytest.mark.parametrize("name", sorted(FRAGMENTS))
def test_fragment_documents_the_options_of_its_constant(name: str) -> None:
    assert specification(yaml.safe_load(FRAGMENTS[name])["options"]) == without_logging(CONSTANTS[name])
