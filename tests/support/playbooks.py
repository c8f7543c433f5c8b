# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the playbooks of this checkout and read the task results."""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import typing as t

from tests.support.paths import CHECKOUT

PLAYBOOK = pathlib.Path(sys.executable).with_name("ansible-playbook")
# Seconds. A run takes a few on an idle machine, and minutes on a busy one.
LIMIT = 900

Variables = dict[str, t.Any]

# Actions that contact no host.
CONTROLLER_ACTIONS = ("validate_argument_spec", "fleet_info", "adapter_selection_info", "include_role", "include_tasks")


@dataclasses.dataclass(frozen=True)
class Run:
    """How a playbook ended. ``results`` holds all task results in the order of their arrival."""

    rc: int
    output: str
    results: list[Variables]

    def of(self, host: str, action: str) -> Variables:
        """The only result of a module or action on a host."""
        found = [entry for entry in self.results if entry["host"] == host and entry["action"].endswith(action)]
        assert len(found) == 1, f"{len(found)} results of {action} on {host}\n{self.output}"
        return t.cast("Variables", found[0]["result"])

    def failures(self, host: str) -> list[str]:
        """The messages of the tasks that failed on a host or made it unreachable."""
        bad = [entry for entry in self.results if entry["host"] == host and entry["status"] != "ok"]
        return [str(entry["result"].get("msg", entry["result"])) for entry in bad]

    def unreachable(self, host: str) -> bool:
        """Whether Ansible lost the host, so that the end of its task is unknown."""
        return any(entry["host"] == host and entry["status"] == "unreachable" for entry in self.results)

    def worked_on(self) -> set[str]:
        """The hosts with any task other than those of the controller alone."""
        return {entry["host"] for entry in self.results if not entry["action"].endswith(CONTROLLER_ACTIONS)}

    def changed(self, host: str | None = None) -> list[str]:
        """The tasks that reported a change, sorted, since the order of the hosts is arbitrary."""
        return sorted(
            f"{entry['host']}: {entry['task']}"
            for entry in self.results
            if entry["result"].get("changed") and host in (None, entry["host"])
        )

    def adapters(self, host: str, action: str) -> dict[str, Variables]:
        """The entries of a module's list ``adapters``, by name."""
        return {adapter["name"]: adapter for adapter in self.of(host, action)["adapters"]}


class Background:
    """A running playbook. ``directory`` is its working directory and holds output and results.

    ``within`` is a command that starts another one, in a network namespace for instance.
    """

    def __init__(
        self,
        playbook: str,
        *arguments: str,
        directory: pathlib.Path,
        environment: c.Mapping[str, str] | None = None,
        name: str = "record",
        within: c.Sequence[str] = (),
    ) -> None:
        self._record, self._output = directory / f"{name}.jsonl", directory / f"{name}.log"
        self._record.unlink(missing_ok=True)
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                [*within, str(PLAYBOOK), *arguments, str(CHECKOUT / "playbooks" / f"{playbook}.yml")],
                env={**recording(self._record), **(environment or {})},
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def output(self) -> str:
        """Its output so far."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def wait(self, limit: float = LIMIT) -> Run:
        """Wait for its end; after ``limit`` seconds it is killed."""
        try:
            self._process.wait(limit)
        except BaseException:
            self.kill()
            raise
        # Ansible goes on when a callback raises an exception.
        assert "Callback dispatch" not in self.output, self.output
        lines = self._record.read_text(encoding="utf-8").splitlines() if self._record.exists() else []
        return Run(self._process.returncode, self.output, [json.loads(line) for line in lines])

    def kill(self) -> None:
        """Kill it and everything that it started, persistent connections included."""
        self._process.kill()
        self._process.wait()
        # Its workers are in other sessions, hence in other process groups, but all inherit its
        # environment.
        mark = f"FLEET_RECORD={self._record}".encode()
        for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    os.kill(int(path.parent.name), signal.SIGKILL)


def recording(record: pathlib.Path) -> dict[str, str]:
    """An environment with the checkout's Ansible settings only, and task results in a file."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    return {
        **inherited,
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_CALLBACK_PLUGINS": str(pathlib.Path(__file__).with_name("callback")),
        "ANSIBLE_CALLBACKS_ENABLED": "fleet_record,lorafleet.delivery.delivery_report",
        "FLEET_RECORD": str(record),
        "LORAFLEET_REPORT_DIR": str(record.with_suffix(".report")),
    }
