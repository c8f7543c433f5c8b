# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module adapter_golden in this process."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t

import pytest

from tests.support.tiny_adapters import BASE_NAME, PEFT_PYTHON

NAME = "adapter"
PROMPTS = ["import os\n", "def walk(top):\n", "class Path:\n", "return "]

Options = t.Dict[str, t.Any]
Run = t.Callable[..., Options]


@pytest.fixture
def run(tmp_path: pathlib.Path, tiny: pathlib.Path, run_module: Run) -> Run:
    """Return a function that runs the module on a training server with changed options."""
    shutil.copytree(tiny / NAME, tmp_path / "models" / NAME)

    def run(check: bool = False, **changes: t.Any) -> Options:
        options = {
            "adapters": [{"name": NAME, "base": BASE_NAME, "rank": 16, "alpha": 32}],
            "bases": {BASE_NAME: {"path": str(tiny / "base")}},
            "models_dir": str(tmp_path / "models"),
            "cache_dir": str(tmp_path / "cache"),
            "golden_dir": str(tmp_path / "goldens"),
            "prompts": {NAME: PROMPTS},
            "length": 4,
            "python": PEFT_PYTHON,
            "device": "cpu",
            **changes,
        }
        return run_module("adapter_golden", options, check_mode=check, diff=True)

    return run


def test_golden_check_mode_returns_whole_result(tmp_path: pathlib.Path, run: Run) -> None:
    result = run(check=True)
    release = result["adapters"][0]["release"]
    assert result == {
        "changed": True,
        "seconds": 0.0,
        "adapters": [
            {
                "name": NAME,
                "release": release,
                "action": "recorded",
                "path": str(tmp_path / "goldens" / NAME / f"{release}.json"),
                **dict.fromkeys(("positions", "recorded", "noise", "permitted")),
            }
        ],
        "diff": {
            "before_header": "goldens",
            "after_header": "goldens",
            "before": f"{NAME} {release}: no golden\n",
            "after": f"{NAME} {release}: a golden of 4 prompts\n",
        },
    }
    assert not (tmp_path / "goldens").exists()


@pytest.mark.slow
def test_golden_is_recorded_kept_and_forced(run: Run) -> None:
    done = run()
    (adapter,) = done["adapters"]
    assert (done["changed"], adapter["action"], done["seconds"] > 0) == (True, "recorded", True)
    golden = json.loads(pathlib.Path(adapter["path"]).read_text(encoding="utf-8"))
    assert adapter["positions"] == sum(len(question["tokens"]) for question in golden["questions"])
    assert {"python", "torch", "peft"} <= set(adapter["recorded"]["versions"])

    kept = run()
    assert (kept["changed"], kept["seconds"]) == (False, 0)
    assert kept["adapters"] == [{**adapter, "action": "kept"}]
    for changes in ({"force": True}, {"length": 3}, {"prompts": {NAME: [*PROMPTS, "more"]}}, {"dtype": "bfloat16"}):
        assert run(check=True, **changes)["adapters"][0]["action"] == "recorded"


@pytest.mark.slow
def test_golden_is_recorded_in_given_dtype_and_kept_without(run: Run) -> None:
    (adapter,) = run(dtype="bfloat16")["adapters"]
    assert (adapter["action"], adapter["recorded"]["dtype"]) == ("recorded", "bfloat16")
    for changes in ({"dtype": "bfloat16"}, {}):
        assert run(**changes)["adapters"] == [{**adapter, "action": "kept"}]
    (again,) = run(dtype="float32")["adapters"]
    assert (again["action"], again["recorded"]["dtype"]) == ("recorded", "float32")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"prompts": {}}, f"adapter {NAME}: has no prompts; 4 or more are needed. Add prompts"),
        ({"prompts": {NAME: [*PROMPTS, {"user": 7}]}}, f"adapter {NAME}: has a prompt of an unknown form: {{'user': 7}}."),
        ({"prompts": {NAME: [*PROMPTS, {"role": "x"}]}}, f"adapter {NAME}: has a prompt of an unknown form: {{'role': 'x'}}."),
        ({"bases": {}}, f"adapter {NAME}: cannot be recorded: base {BASE_NAME} has no path on this host."),
        ({"length": 0}, "length is 0: expected 1 or more."),
        ({"device": "tpu"}, "device is tpu: expected cpu, cuda, or cuda: and a number."),
    ],
)
def test_golden_invalid_options_are_errors(run: Run, options: Options, problem: str) -> None:
    result = run(**options)
    assert result["failed"]
    assert result["msg"].startswith(problem)
    (found,) = result["problems"]
    assert result["msg"] == f"{found['subject']}: {found['problem']} {found['remedy']}".rstrip()


def test_golden_without_interpreter_is_an_error(tmp_path: pathlib.Path, run: Run) -> None:
    result = run(python="/nonexistent/python")
    assert (result["failed"], result["changed"], result["adapters"]) == (True, False, [])
    assert "/nonexistent/python: does not exist." in result["msg"]
    assert f"adapter {NAME}: was not recorded, because the run was aborted." in result["msg"]
    assert not (tmp_path / "goldens").exists()


def test_golden_of_adapter_delivered_in_two_forms_is_recorded_once(run: Run) -> None:
    row = {"name": NAME, "base": BASE_NAME, "rank": 16, "alpha": 32}
    result = run(check=True, adapters=[row, {**row, "form": "folded"}])
    assert [adapter["name"] for adapter in result["adapters"]] == [NAME]
