# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What passes the gate for answers. Hostile hosts in whole runs are in tests/adversary."""

from __future__ import annotations

import ast
import copy
import dataclasses
import importlib
import typing as t

import pytest
import yaml
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.verdicts import REFUSED, RIGHT, UNKNOWN, WRONG
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact import forms
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.action import GatedAction
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.answers import answer_of, results_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.states import ACTIONS

from tests.support.answers import described
from tests.support.paths import PLUGINS

# Modules whose action plugin never contacts a host.
ON_CONTROLLER = {"adapter_selection_info", "adapter_sign", "fleet_info", "fleet_snapshot"}
MODULES = sorted({path.stem for path in (PLUGINS / "modules").glob("*.py")} - ON_CONTROLLER)
# Imported before a test installs Ansible's importer, which would need the collection's metadata.
ACTIONS_OF = {name: importlib.import_module(f"ansible_collections.lorafleet.delivery.plugins.action.{name}") for name in MODULES}
# What only the action plugin gets of a module, and what it adds to the result.
INTERNAL = {
    "adapter_sync": {"zstd", "python", "adapters.staging", "adapters.staged_bytes"},
    "preflight_info": {"user", "time", "python"},
}
ADDED = {"adapter_sync": {"wire_bytes", "seconds", "source_rsync", "commands", "adapters.way", "adapters.not_taken"}}
# The forms that a type of RETURN may have.
FORMS = {
    "str": (forms.Text, forms.Exact, forms.Choice, forms.Time),
    "bool": (forms.Flag,),
    "int": (forms.Integer,),
    "float": (forms.Number,),
    "list": (forms.ListOf,),
    "dict": (forms.Record, forms.DictOf, forms.Data),
}
RECEIPT = {"level": "model", "device": "cuda:0", "at": "2026-01-31T12:00:00+00:00", "versions": {"peft": "0.21.2"}, "checks": []}
ACTIVE = {
    "name": "adapter",
    "release": "5f1c0f1f0f0b",
    "digest": "5f1c" * 16,
    "size": 5,
    "files": [{"path": "adapter_config.json", "size": 5, "sha256": "0" * 64}],
    "made_of": None,
    "previous": None,
    "history": [{"release": "5f1c0f1f0f0b", "at": "2026-01-31T12:00:00+00:00"}],
    "activation": "exchange",
    "path": "/home/.lorafleet/adapter/releases/5f1c0f1f0f0b",
    "receipt": RECEIPT,
    "required_level": "model",
    "signed": {"signers": ["alice"], "serial": 7, "expires": "2026-08-29T12:00:00+00:00"},
    "engines": [],
}
ANSWER = {"changed": False, "up_to_date": True, "reasons": [], "adapters": [ACTIVE]}


def documented(module: str) -> dict[str, t.Any]:
    """The RETURN of a module."""
    tree = ast.parse((PLUGINS / "modules" / f"{module}.py").read_text(encoding="utf-8"))
    [text] = [
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "RETURN" and isinstance(node.value, ast.Constant)
    ]
    found: dict[str, t.Any] = yaml.safe_load(str(text))
    return found


def inner(form: t.Any) -> t.Any:
    """The form without what makes it optional."""
    return form.form if isinstance(form, forms.Nullable) else form


def differences(returned: dict[str, t.Any], known: dict[str, t.Any], apart: set[str], path: str = "") -> list[str]:
    """What RETURN and the gate do not agree on, one line each."""
    found = []
    for key in sorted(returned.keys() | known.keys()):
        name = path + key
        if name in apart:
            continue
        if key not in known:
            found.append(f"{name} is in RETURN, but the gate drops it: add it to _contact/answers.py")
        elif key not in returned:
            found.append(f"{name} passes the gate, but RETURN lacks it")
        else:
            entry, form = returned[key], inner(known[key])
            if not isinstance(form, FORMS[entry["type"]]):
                found.append(f"{name} is a {entry['type']} in RETURN and a {type(form).__name__} for the gate")
            elements = inner(form.form) if isinstance(form, forms.ListOf) else form
            if "contains" in entry and isinstance(elements, forms.Record):
                found += differences(entry["contains"], {**elements.required, **elements.optional}, apart, f"{name}.")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_gate_knows_exactly_what_module_documents(module: str) -> None:
    apart = {"problems", *INTERNAL.get(module, ()), *ADDED.get(module, ())}
    assert differences(documented(module), dict(results_of(module)), apart) == []


@pytest.mark.parametrize("module", MODULES)
def test_action_plugin_of_every_module_passes_the_gate(module: str) -> None:
    plugin = ACTIONS_OF[module]
    assert issubclass(plugin.ActionModule, GatedAction)
    # Ansible would fetch the answer of such a task with an action plugin of its own.
    assert not plugin.ActionModule._supports_async


def test_gate_knows_the_actions_and_verdicts_that_modules_give() -> None:
    actions: t.Any = results_of("adapter_release")["adapters"]
    assert actions.form.required["action"].values == ACTIONS
    judged: t.Any = results_of("adapter_up_to_date_info")["adapters"]
    assert set(judged.form.required["engines"].form.required["state"].values) == {RIGHT, REFUSED, WRONG, UNKNOWN}


def gated(found: dict[str, t.Any], module: str = "adapter_up_to_date_info", delegated: bool = False) -> dict[str, t.Any]:
    return answer_of(module, "jw2-1", found, delegated)


def changed(path: str, value: t.Any) -> dict[str, t.Any]:
    """The answer with another value at a path such as ``adapters.0.size``."""
    answer: t.Any = copy.deepcopy(ANSWER)
    *parents, last = path.split(".")
    place = answer
    for part in parents:
        place = place[int(part) if isinstance(place, list) else part]
    place[last] = value
    return t.cast("dict[str, t.Any]", answer)


def test_answer_in_its_form_passes_unchanged() -> None:
    assert gated(ANSWER) == ANSWER


@pytest.mark.parametrize(
    "key",
    [
        *("ansible_facts", "ansible_stats", "add_host", "add_group", "include", "include_args", "results", "skipped"),
        *("unreachable", "rc", "invocation", "exception", "deprecations", "ansible_job_id", "finished", "started"),
        *("_ansible_no_log", "_ansible_notify", "_ansible_facts_cacheable", "_ansible_delegated_vars", "censored", "attempts"),
        *("ansible_module_results", "failed_when_result", "stdout", "agent_models_dir"),
    ],
)
def test_key_that_is_not_the_modules_is_dropped(key: str) -> None:
    assert gated({**ANSWER, key: {"agent_models_dir": "/etc", "data": {"x": 1}}}) == ANSWER


def test_unknown_key_within_a_value_is_dropped() -> None:
    assert gated(changed("adapters.0.receipt.ansible_facts", {})) == ANSWER
    assert gated(changed("adapters.0.agent", "cleaner")) == ANSWER


@pytest.mark.parametrize(
    ("path", "value", "key", "wrong"),
    [
        ("up_to_date", "{{ true }}", "up_to_date", "is not true or false"),
        ("up_to_date", 1, "up_to_date", "is not true or false"),
        ("changed", "yes", "changed", "is not true or false"),
        ("failed", "no", "failed", "is not true or false"),
        ("reasons", "none", "reasons", "is not a list"),
        ("reasons", ["x"] * 10_001, "reasons", "is not a list of at most 10000 values"),
        ("reasons", ["x" * 20_000], "reasons[0]", "is longer than 16384 characters"),
        ("reasons", ["x" * 16_000] * 1_050, "the answer", "has more than 16777216 characters"),
        ("adapters", {"name": "a"}, "adapters", "is not a list"),
        ("adapters", ["adapter"], "adapters[0]", "is not a dictionary"),
        ("adapters", [{}], "adapters[0].name", "is missing"),
        ("adapters.0.name", ["adapter"], "adapters[0].name", "is not text"),
        ("adapters.0.release", "latest", "adapters[0].release", "is not the 12 digits of a release"),
        ("adapters.0.release", 5, "adapters[0].release", "is not the 12 digits of a release"),
        ("adapters.0.digest", ["0"], "adapters[0].digest", "is not a sha256"),
        ("adapters.0.size", "5", "adapters[0].size", "is not an integer"),
        ("adapters.0.size", True, "adapters[0].size", "is not an integer"),
        ("adapters.0.size", 10**400, "adapters[0].size", "is not an integer"),
        ("adapters.0.files", "abc", "adapters[0].files", "is not a list"),
        ("adapters.0.files", [{}], "adapters[0].files[0].path", "is missing"),
        ("adapters.0.history", "x", "adapters[0].history", "is not a list"),
        ("adapters.0.history.0.at", "yesterday", "adapters[0].history[0].at", "is not a time"),
        ("adapters.0.receipt", [1], "adapters[0].receipt", "is not a dictionary"),
        ("adapters.0.receipt.level", "perfect", "adapters[0].receipt.level", "is not one of structure"),
        ("adapters.0.receipt.at", "x", "adapters[0].receipt.at", "is not a time"),
        ("adapters.0.receipt.effect", float("nan"), "adapters[0].receipt.effect", "is not a finite number"),
        ("adapters.0.receipt.effect", float("inf"), "adapters[0].receipt.effect", "is not a finite number"),
        ("adapters.0.receipt.distances", {"off": 1}, "adapters[0].receipt.distances.on", "is missing"),
        ("adapters.0.receipt.distances", {"on": 1}, "adapters[0].receipt.distances.off", "is missing"),
        ("adapters.0.receipt.versions", [1], "adapters[0].receipt.versions", "is not a dictionary"),
        ("adapters.0.receipt.versions", {"peft\x1b[2J": 1}, "adapters[0].receipt.versions.peft\\x1b[2J", "is not text"),
        ("warnings", "none", "warnings", "is not a list"),
        ("warnings", [{"msg": "x"}], "warnings[0]", "is not text"),
        ("problems", ["x"], "problems[0]", "is not a dictionary"),
        ("problems", [{"subject": "a"}], "problems[0].adapter", "is missing"),
        ("problems", [{"adapter": None, "subject": 1, "problem": 2, "remedy": 3}], "problems[0].subject", "is not text"),
        ("msg", {"a": 1}, "msg", "is not text"),
    ],
)
def test_answer_in_another_form_is_refused(path: str, value: t.Any, key: str, wrong: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        gated(changed(path, value))
    [problem] = caught.value.problems
    assert problem.subject == "jw2-1"
    start = f"gave an answer that module adapter_up_to_date_info does not give: {key} {wrong}"
    assert problem.problem.startswith(start)


def test_problem_with_keys_of_the_report_loses_them() -> None:
    problem = {"adapter": "adapter", "subject": "a", "problem": "b", "remedy": "c"}
    answer = gated({"failed": True, "msg": "a: b", "problems": [{**problem, "node": "jw3-1", "step": "load"}]})
    assert answer == {"failed": True, "msg": "a: b", "problems": [problem]}


def test_failed_module_may_lack_results() -> None:
    assert gated({"failed": True, "msg": "x", "adapters": []}) == {"failed": True, "msg": "x", "adapters": []}
    with pytest.raises(DeliveryError, match="up_to_date is missing"):
        gated({"changed": False})


def test_output_of_a_module_that_did_not_end_is_cut_and_escaped() -> None:
    answer = gated({"failed": True, "msg": "MODULE FAILURE", "module_stderr": "\x1b[2J" + "x" * 99_999 + "end", "rc": 1})
    assert answer["module_stderr"].startswith("\\x1b[2Jxxx")
    assert answer["module_stderr"].endswith("xxxend")
    assert len(answer["module_stderr"]) < 21_000


def test_text_of_a_host_cannot_control_a_terminal_or_begin_a_line() -> None:
    text = "\x1b]0;owned\x07\x1b[2J\rall verified\u202e\n- [x] jw3-1"
    answer = gated(changed("adapters.0.receipt.device_name", text))
    shown = answer["adapters"][0]["receipt"]["device_name"]
    assert shown == "\\x1b]0;owned\\x07\\x1b[2J\\rall verified\\u202e\\n- [x] jw3-1"
    assert gated({**ANSWER, "msg": "one\ntwo\x1b"})["msg"] == "one\ntwo\\x1b"


@pytest.mark.parametrize("path", ["etc", "/a\nb", "/a\x1b[2J", "", "../x", "/\x7f", "/\x9b2J", "/\u202e", "/\ud800"])
def test_place_at_source_that_is_no_plain_absolute_path_is_refused(path: str) -> None:
    directory = {"path": path, "machine": "m", "inodes": [[1, 2]], "mark": None, "shareable": False, "links": {}}
    results = {key: [] if isinstance(form, forms.ListOf) else {} for key, form in results_of("adapter_info").items()}
    with pytest.raises(DeliveryError, match=r"give: directories\.a\.path is not"):
        gated({**results, "directories": {"a": directory}}, "adapter_info")
    for links in ({"tokenizer.json": path}, path, None, [path]):
        with pytest.raises(DeliveryError, match=r"give: directories\.a\.links"):
            gated({**results, "directories": {"a": {**directory, "path": "/a", "links": links}}}, "adapter_info")


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ("- name: \"{{ lookup('ansible.builtin.pipe', 'id') }}\"", "has a template"),
        ('- name: "\\x7b\\u007b 1 }}"', "has a template"),
        ('- name: "{\\\n  {% 1 %}"', "has a template"),
        ('- a: &a ["{%"]\n  b: *a', "has a template"),
        ("- {'{#': 1}", "has a template"),
        ("- name: !unsafe '{{ 1 }}'", "is not YAML"),
        ("- name: [", "is not YAML"),
        ("- &a [*a]", "has more than"),
        ("- at: 2026-01-31", "is not an integer"),
    ],
)
def test_row_to_paste_that_ansible_would_evaluate_is_refused(row: str, wrong: str) -> None:
    with pytest.raises(DeliveryError, match=r"give: suggested_rows\.a.*" + wrong):
        gated(described(suggested_rows={"a": row}), "adapter_info")


def test_row_to_paste_is_kept() -> None:
    row = '- name: a\n  rank: 16\n  alpha: 24.5\n  target_modules: ["q_proj"]\n  peft_config: {"use_dora": true}\n'
    assert gated(described(suggested_rows={"a": row}), "adapter_info")["suggested_rows"] == {"a": row}


def test_place_at_source_of_any_other_bytes_is_kept() -> None:
    directory = {"path": "/a b/\udcff/日本", "machine": "m", "inodes": [[1, 2]], "mark": None, "shareable": False, "links": {}}
    assert gated(described(directories={"a": directory}), "adapter_info")["directories"] == {"a": directory}


def test_interpreter_that_ansible_found_on_the_host_is_kept() -> None:
    facts = {"discovered_interpreter_python": "/usr/bin/python3.11", "agent_store": "/etc", "ansible_host": "192.0.2.66"}
    kept = {"ansible_facts": {"discovered_interpreter_python": "/usr/bin/python3.11"}}
    assert gated({**ANSWER, "ansible_facts": facts}) == {**ANSWER, **kept}
    assert gated({**ANSWER, "ansible_facts": facts}, delegated=True) == ANSWER
    for other in ("python3", "/usr/bin/python3; id", "{{ x }}", ["/usr/bin/python3"], None):
        assert gated({**ANSWER, "ansible_facts": {"discovered_interpreter_python": other}}) == ANSWER


class TaggedText(str):
    """Text with something attached, as ansible-core's own types."""

    def __str__(self) -> str:
        return "something else"


@dataclasses.dataclass
class Event:
    msg: str


@dataclasses.dataclass
class Summary:
    """A warning as ansible-core 2.19 and newer have it."""

    event: Event


def test_answer_consists_of_plain_types() -> None:
    answer = gated(changed("adapters.0.receipt.device", TaggedText("cuda:0")))
    assert answer == ANSWER
    assert answer["adapters"][0]["receipt"]["device"].__class__ is str


def test_warnings_are_texts_for_every_ansible_core() -> None:
    answer = gated({**ANSWER, "warnings": ["one", Summary(Event("two\x1b[2J"))]})
    assert answer["warnings"] == ["one", "two\\x1b[2J"]


class Vaulted:
    """Text that Ansible would decrypt when it is displayed."""


@pytest.mark.parametrize("value", [Vaulted(), b"x", ("a",), {1}])
def test_value_of_a_type_that_json_lacks_is_refused(value: t.Any) -> None:
    for path in ("adapters.0.receipt.device", "adapters.0.receipt", "reasons", "msg"):
        with pytest.raises(DeliveryError):
            gated(changed(path, value))


def test_diff_of_any_values_is_bounded() -> None:
    def diff(before: t.Any) -> t.Any:
        entry = {"before_header": "a", "after_header": "a", "before": before, "after": {}}
        return gated({"changed": False, "adapters": [], "diff": [entry]}, "adapter_release")["diff"][0]["before"]

    assert diff({"release": None, "rank": 16, "config": {"r": [1, 2.5, True, "x\x1b"]}}) == {
        "release": None,
        "rank": 16,
        "config": {"r": [1, 2.5, True, "x\\x1b"]},
    }
    deep: t.Any = 1
    for _level in range(9):
        deep = [deep]
    for odd in (deep, list(range(10_001)), {"x": Vaulted()}):
        with pytest.raises(DeliveryError, match=r"give: diff\[0\]\.before"):
            diff(odd)
