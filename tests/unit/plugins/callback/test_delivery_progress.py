# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The style that the callback chooses. tests/integration/test_progress.py has what it shows."""

from __future__ import annotations

import contextlib
import os
import pathlib
import types
import typing as t

import pytest
import yaml
from ansible import constants as C
from ansible_collections.lorafleet.delivery.plugins.callback.delivery_progress import DOCUMENTATION, CallbackModule, _option
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._progress import events

from tests.support.terminal import Terminal

NAME = CallbackModule.CALLBACK_NAME


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[t.TextIO]:
    """Return the standard output of a program on a terminal."""
    made = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    with open(made.program, "w", buffering=1) as stdout:
        yield stdout
    made.close()


@pytest.fixture(autouse=True)
def _documented_options() -> None:
    """Define the options of the plugin, as the plugin loader does."""
    C.config.initialize_plugin_configuration_definitions("callback", NAME, yaml.safe_load(DOCUMENTATION)["options"])


def style(stdout: t.TextIO) -> str:
    with contextlib.redirect_stdout(stdout):
        callback = CallbackModule()
        callback._load_name = NAME
        callback.set_options()
        callback.v2_playbook_on_play_start(None)
        listens, live = events._sender is not None, callback._area is not None
        # A second play of the same run.
        callback.v2_playbook_on_play_start(None)
        callback.v2_playbook_on_stats(None)
    assert events._sender is None
    return "live" if live else "plain" if listens else "none"


def test_style_on_terminal_is_live_by_default(terminal: t.TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    assert style(terminal) == "live"
    for asked in ("auto", "live", "plain", "none"):
        monkeypatch.setenv("LORAFLEET_PROGRESS", asked)
        assert style(terminal) == (asked if asked != "auto" else "live")


@pytest.mark.parametrize(
    "variables",
    [{"TERM": "dumb"}, {"TERM": ""}, {"AWX_ISOLATED_DATA_DIR": "/runner/artifacts"}],
)
def test_style_on_unsuitable_terminal_is_plain_by_default(
    variables: dict[str, str], terminal: t.TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert style(terminal) == "plain"
    monkeypatch.setenv("LORAFLEET_PROGRESS", "live")
    assert style(terminal) == "live"


def test_style_with_task_debugger_is_plain_by_default(terminal: t.TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(C, "ENABLE_TASK_DEBUGGER", True)
    assert style(terminal) == "plain"


def test_style_without_terminal_is_plain(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with (tmp_path / "log").open("w") as stdout:
        assert style(stdout) == "plain"
        monkeypatch.setenv("LORAFLEET_PROGRESS", "live")
        assert style(stdout) == "plain"


ACTION = "lorafleet.delivery.adapter_load_test"


@pytest.mark.parametrize(
    ("args", "module_defaults", "device"),
    [
        ({}, [], "cuda"),
        ({"device": "cpu"}, [{ACTION: {"device": "cuda:1"}}], "cpu"),
        ({}, [{"group/lorafleet.delivery.device": {"device": "cpu"}}], "cpu"),
        ({}, [{ACTION: {"device": "cpu"}, "group/lorafleet.delivery.device": {"device": "cuda:1"}}], "cpu"),
        # The last entry is that of the innermost block.
        ({}, [{ACTION: {"device": "cuda:1"}}, {ACTION: {"device": "cpu"}}], "cpu"),
        ({}, [{ACTION: {"level": "model"}, "group/other.collection.device": {"device": "cpu"}}], "cuda"),
    ],
)
def test_option_of_task_includes_module_defaults(args: dict[str, str], module_defaults: list[t.Any], device: str) -> None:
    task = types.SimpleNamespace(action=ACTION, args=args, module_defaults=module_defaults)
    assert _option(task, "device", default="cuda") == device


def test_results_of_tasks_are_counted_in_a_large_fleet() -> None:
    callback = CallbackModule()

    def end(host: str, module: str, how: str = "ok", **data: t.Any) -> None:
        task = types.SimpleNamespace(action=f"lorafleet.delivery.{module}", args={}, delegate_to=None)
        ended = types.SimpleNamespace(host=types.SimpleNamespace(get_name=lambda: host), task=task, result=data)
        getattr(callback, f"v2_runner_on_{how}")(ended)

    names = [f"jw2-{number}" for number in range(1, 41)]
    end("localhost", "fleet_info", nodes=[{"name": name, "rows": [{"selected": name != "jw2-40"}]} for name in names])
    end("jw2-1", "adapter_up_to_date_info", up_to_date=True)
    end("jw2-2", "adapter_up_to_date_info", up_to_date=False)
    end("jw2-3", "adapter_release")
    end("jw2-4", "adapter_sync")
    end("jw2-5", "adapter_sync", "failed")
    end("jw2-6", "adapter_sync", "unreachable")
    callback._progress.add(events.Event("jw2-7", "activating"))
    assert callback._progress.lines(79, 1) == ["2 done, 2 failed, 34 to come, 1 busy: 1 activating"]
    # With no_log, Ansible hides what a task returned.
    end("localhost", "fleet_info", censored="hidden")


@pytest.mark.parametrize(("rows", "drawn"), [(1, 1), (2, 2), (3, 2), (24, 12)])
def test_draw_never_needs_more_lines_than_the_terminal(rows: int, drawn: int) -> None:
    callback = CallbackModule()
    for number in range(50):
        callback._progress.add(events.Event(f"jw2-{number}", "activating"))
    lines: list[list[str]] = []
    area = types.SimpleNamespace(size=os.terminal_size((80, rows)), draw=lines.append)
    assert callback._draw(t.cast(t.Any, area))
    assert [len(one) for one in lines] == [drawn]
