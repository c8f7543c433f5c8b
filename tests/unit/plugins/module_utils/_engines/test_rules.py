# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The form of the rules: each can apply, and each message can be written."""

from __future__ import annotations

import ast
import inspect
import re
import typing as t
from string import Formatter

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.bounds import bound
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.rules import table
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.rules.form import (
    FOLD,
    KINDS,
    REFUSED,
    RIGHT,
    UNKNOWN,
    WRONG,
    Adapter,
    EngineRules,
    Rule,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.rules.table import ALIASES, all_rules, rules_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.verdicts import Engine
from ansible_collections.lorafleet.delivery.plugins.module_utils._versions import numbers

from tests.support.loaded_modules import loaded_by
from tests.support.paths import PLUGINS
from tests.tools.engines_page import ORDER, PAGE, page

RULES = [
    pytest.param(rules, rule, id=f"{rules.name}-{rule.kind}-{i}") for rules in all_rules() for i, rule in enumerate(rules.rules)
]
ENGINE = pytest.mark.parametrize("rules", all_rules(), ids=ALIASES)
# What every adapter has, however odd.
ALWAYS = set(Adapter(()).values)


def fields(text: str) -> set[str]:
    return {field for _text, field, _spec, _conversion in Formatter().parse(text) if field}


@pytest.mark.parametrize("rules, rule", RULES)
def test_rule_is_complete(rules: EngineRules, rule: Rule) -> None:
    assert rule.kind in KINDS.keys() - {"rank"}
    assert rule.state in (RIGHT, REFUSED, WRONG, UNKNOWN)
    assert fields(rule.does) <= ALWAYS
    assert not rule.does.endswith(".")
    assert rule.figure is None or rule.state == WRONG
    assert all(fields(remedy) <= ALWAYS | {"factor", "alpha"} and not remedy.endswith(".") for remedy in rule.remedies)
    assert not rule.remedies or rule.state in (REFUSED, WRONG)


@pytest.mark.parametrize("rules, rule", RULES)
def test_rule_is_not_hidden_by_an_earlier_one(rules: EngineRules, rule: Rule) -> None:
    earlier = rules.rules[: rules.rules.index(rule)]
    assert [one for one in earlier if (one.kind, one.versions, one.when) == (rule.kind, rule.versions, None)] == []


@ENGINE
def test_kind_with_conditions_has_a_rule_without(rules: EngineRules) -> None:
    conditional = {rule.kind for rule in rules.rules if rule.when}
    assert conditional <= {rule.kind for rule in rules.rules if not rule.when and not rule.versions}


@ENGINE
def test_wrong_factor_is_remedied_by_folded_form(rules: EngineRules) -> None:
    for rule in rules.rules:
        if rule.kind in ("factor", "rslora", "alpha_pattern", "rank_pattern") and rule.state == WRONG:
            assert FOLD in rule.remedies, rule


@ENGINE
def test_engine_has_versions_source_and_names(rules: EngineRules) -> None:
    ranges = [one for owner in (rules, *rules.rules) for one in owner.versions or ()]
    assert all(numbers(one.since) < numbers(one.before) for one in ranges)
    sources = [rules.source, *(rule.source for rule in rules.rules if rule.source)]
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d", one.date) and one.what for one in sources)
    assert all(rules_of(name) is rules for name in (rules.name, *ALIASES[rules.name]))
    # The version of the run is one that the rules apply to.
    found = re.search(r" v?(\d+(?:\.\d+)+)", rules.source.what)
    assert found is None or any(one.has(found[1]) for one in rules.versions)


def test_engines_are_the_files_of_the_room() -> None:
    files = {path.stem for path in (PLUGINS / "module_utils" / "_engines" / "rules").glob("*.py")}
    assert files == {*ALIASES, "form", "table"}
    assert [rules.name for rules in all_rules()] == [*ALIASES]
    # No name stands for two engines.
    assert len(table._NAMES) == sum(1 + len(aliases) for aliases in ALIASES.values())


def test_table_imports_the_rules_of_every_engine() -> None:
    """Ansible would not send the others to a node."""
    [imported] = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(table)))
        if isinstance(node, ast.ImportFrom) and (node.level, node.module) == (1, None)
    ]
    assert {alias.name for alias in imported.names} == {*ALIASES}


def test_rules_of_engine_load_no_other_rules() -> None:
    """It would cost time on every node, although most have one engine."""
    loaded = loaded_by(f"from {table.__name__} import rules_of; rules_of('vllm')")
    assert {name.rpartition(".")[2] for name in loaded if "._engines.rules." in name} == {"form", "table", "vllm"}


@pytest.mark.parametrize("value, fits", [(8, True), (0.5, True), ("factor", True), (True, False), ("8", False), ([8], False)])
def test_alpha_is_a_number_or_the_word_factor(value: t.Any, fits: bool) -> None:
    assert rules_of("openvino").settings["alpha"].fits(value) is fits


@ENGINE
def test_last_bound_of_engine_is_without_condition(rules: EngineRules) -> None:
    assert rules.bounds[-1].when is None
    assert all(one.when for one in rules.bounds[:-1])
    assert bound(Engine(rules.name)).value == rules.bounds[-1].value


@pytest.mark.parametrize(
    "engine, value",
    [
        (Engine("vllm"), 0.3),
        (Engine("vllm", None, {"dtype": "bfloat16"}), 0.3),
        (Engine("vllm", None, {"dtype": "float32"}), 1e-3),
        (Engine("mistral.rs"), 1e-2),
        (Engine("mistral.rs", None, {"kv_cache": "float32"}), 1e-3),
        (Engine("llama.cpp"), 2e-2),
        (Engine("llama.cpp", None, {"flash_attention": False}), 1e-3),
        (Engine("openvino"), 0.03),
        (Engine("openvino", None, {"kv_cache_precision": "f32"}), 1e-3),
        (Engine("onnxruntime"), 1e-3),
        (Engine("sglang", None, {"dtype": "float32"}), 0.3),
    ],
)
def test_bound_depends_on_dtype_and_settings(engine: Engine, value: float) -> None:
    assert bound(engine).value == value
    assert bound(engine).reason


def test_page_has_every_kind_once() -> None:
    assert sorted(ORDER) == sorted(KINDS)


def test_page_is_that_of_the_rules() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "Run make engines-page."
