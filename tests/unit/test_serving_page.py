# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page on serving: its tables and set-ups agree with the code."""

from __future__ import annotations

import pathlib
import re
import shlex

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.declared import declared_engines
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.endpoint import KEYS, Endpoint
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.desired import write_options
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.engines.table import client_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.evidence import STATES
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.journal import EnginePaths
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.names import release_directory

from tests.support.paths import CHECKOUT

TEXT = (CHECKOUT / "docs" / "serving.md").read_text(encoding="utf-8")
URL = "http://127.0.0.1:8000"
PATHS = EnginePaths("/home/.lorafleet", "vllm", URL)


def table(section: str) -> dict[str, str]:
    """The last cells of a section's rows whose first cell is code, by that cell."""
    text = TEXT.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return {name: cells.split("|")[-1].strip() for name, cells in re.findall(r"^\| `([^`]+)` \|(.*) \|$", text, re.MULTILINE)}


def unit(name: str) -> str:
    [found] = re.findall(rf"^```ini\n# {name}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def test_serving_page_has_each_state() -> None:
    assert sorted(table("States")) == sorted(STATES)


def test_serving_page_has_each_key_with_its_default() -> None:
    endpoint = Endpoint(URL)
    values = {"true": True, "false": False, "": None}
    stated = {key: values.get(text.strip("`"), text.strip("`")) for key, text in table("Keys").items()}
    expected = {key: None if key == "url" else getattr(endpoint, key) for key in KEYS}
    assert {key: str(value) for key, value in stated.items()} == {key: str(value) for key, value in expected.items()}


def test_serving_page_shows_options_as_they_are_written(tmp_path: pathlib.Path) -> None:
    [line] = re.findall(r"^LORAFLEET_OPTIONS=.*$", TEXT, re.MULTILINE)
    name = "llama32_3b_grammar_lora"
    [declared] = declared_engines({"name": "vllm", "url": URL}, "engines")
    directory = release_directory(PATHS.store, name, "0a1b2c3d4e5f")
    paths = EnginePaths(str(tmp_path), "vllm", URL)
    paths.make()
    write_options(paths, client_of(declared).start_options([(name, directory)]))
    assert pathlib.Path(paths.options).read_text(encoding="utf-8") == f"{line}\n"
    assert f"\n{PATHS.options} " in TEXT and f"\n{PATHS.desired} " in TEXT


@pytest.mark.parametrize("name", ["vllm.service", "vllm-container.service"])
def test_serving_page_units_read_the_options(name: str) -> None:
    text = unit(name)
    assert f"\nEnvironmentFile=-{PATHS.options}\n" in text
    [command] = re.findall(r"^ExecStart=((?:.*\\\n)*.*)$", text, re.MULTILINE)
    words = shlex.split(command.replace("\\\n", " "))
    # systemd splits an unquoted variable that is a word of its own.
    assert words[-1] == "$LORAFLEET_OPTIONS"
    assert words[words.index("--host") + 1] == "127.0.0.1" and "--enable-lora" in words
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1" in text
