# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet in a temporary directory, and the playbooks run on it.

Training server and nodes are directories of this machine, as in inventories/demo, or reached
through a real sshd on loopback. The adapters are those of tests/support/tiny_adapters.py.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import json
import os
import pathlib
import shutil
import sys
import typing as t

from tests.support import tiny_adapters
from tests.support.load_test_node import OWN_USER
from tests.support.playbooks import LIMIT, Background, Run, Variables

# The interpreter of the modules.
NODE_PYTHON = os.environ.get("LORAFLEET_TEST_NODE_PYTHON") or sys.executable

CLEANER_3B = "llama32_3b_grammar_lora"
CLEANER_8B = "llama31_8b_grammar_lora"
DESCRIBER_3B = "llama32_3b_wikipedia_only_lora"
# The tiny adapter behind each name.
TINY = {CLEANER_3B: "adapter", CLEANER_8B: "adapter_b", DESCRIBER_3B: "bf16"}
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# The files that a delivery transfers; the model card is excluded.
TRAVELS = {CONFIG, WEIGHTS, "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"}


def row(name: str, variant: str, rank: int, **more: t.Any) -> Variables:
    """A row of ``agent_adapters``."""
    base = {"base": tiny_adapters.BASE_NAME, "alpha": 32, "target_modules": tiny_adapters.ALL_LINEAR}
    return {"name": name, "variant": variant, "default": variant == "3b", "rank": rank, **base, **more}


class Fleet:
    """The training server sbs29 and the nodes jw2-1 (two adapters) and jw3-1 (one) below ``root``.

    ``groups`` and ``hosts`` are the inventory's variables: tests change them before they call
    ``run``.
    """

    def __init__(self, root: pathlib.Path, tiny: pathlib.Path) -> None:
        self.root, self.tiny = root, tiny
        self.source = root / "sbs29" / "home" / "models"
        # The report directory that Background sets.
        self.reports = root / "record.report"
        config = json.loads((tiny / "base" / "config.json").read_text(encoding="utf-8"))
        self.base: Variables = {"config": config}
        self.hosts: dict[str, Variables] = {"sbs29": {}}
        self.members = {"training": ["sbs29"], "jw2": [], "jw3": []}
        bases = {tiny_adapters.BASE_NAME: self.base}
        self.groups: dict[str, Variables] = {
            "all": {"ansible_connection": "local", "ansible_python_interpreter": NODE_PYTHON},
            "training": {
                "training_models_dir": str(self.source),
                "training_cache_dir": str(root / "sbs29" / "cache"),
                "training_bases": bases,
            },
            "agents": {
                "agent_python": tiny_adapters.PEFT_PYTHON,
                "agent_device": "cpu",
                "agent_level": "structure",
                "agent_load_test_user": OWN_USER,
                "agent_bases": bases,
            },
            "jw2": {"agent_name": "cleaner", "agent_adapters": [row(CLEANER_3B, "3b", 16), row(CLEANER_8B, "8b", 32)]},
            "jw3": {"agent_name": "describer", "agent_adapters": [row(DESCRIBER_3B, "3b", 16)]},
        }
        for name in TINY:
            self.offer(name)
        self.add_node("jw2", "jw2-1")
        self.add_node("jw3", "jw3-1")

    def add_node(self, group: str, node: str, **variables: t.Any) -> None:
        """Add an empty node to a group."""
        self.home(node).joinpath("models").mkdir(parents=True, exist_ok=True)
        models, store = str(self.home(node) / "models"), str(self.home(node) / ".lorafleet")
        self.hosts[node] = {"agent_models_dir": models, "agent_store": store, **variables}
        self.members[group].append(node)

    def add_copies(self, group: str, node: str, copies: t.Iterable[str]) -> None:
        """Add nodes that are equal to one of the group, with all that it serves and stores."""
        for copy in copies:
            self.add_node(group, copy)
            shutil.rmtree(self.home(copy))
            shutil.copytree(self.home(node), self.home(copy), symlinks=True)

    def offer(self, name: str, kind: str = "", into: pathlib.Path | None = None) -> pathlib.Path:
        """Offer an adapter on the training server; ``kind`` names the tiny adapter to copy."""
        directory = (into or self.source) / name
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(self.tiny / (kind or TINY[name]), directory)
        return directory

    def home(self, node: str) -> pathlib.Path:
        return self.root / node / "home"

    def served(self, node: str, name: str) -> pathlib.Path:
        return self.home(node) / "models" / name

    def stored(self, node: str, name: str) -> pathlib.Path:
        return self.home(node) / ".lorafleet" / name

    def before_module(self, host: str, module: str, command: str) -> None:
        """Run a shell command on a host before each call of a module."""
        python = self.root / f"{host}-python"
        asked = f"case $1 in *AnsiballZ_{module}.py) {command} ;; esac"
        python.write_text(f'#!/bin/sh\n{asked}\nexec {sys.executable} "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        self.hosts[host]["ansible_python_interpreter"] = str(python)

    def run(self, playbook: str, *arguments: str, environment: c.Mapping[str, str] | None = None, limit: float = LIMIT) -> Run:
        """Run a playbook of the checkout on the fleet."""
        inventory = str(self.write_inventory())
        return Background(playbook, "-i", inventory, *arguments, directory=self.root, environment=environment).wait(limit)

    def deploy(self, *arguments: str) -> Run:
        """Run the deploy playbook, which must succeed."""
        done = self.run("deploy", *arguments)
        assert done.rc == 0, done.output
        return done

    def write_inventory(self) -> pathlib.Path:
        def group(name: str) -> Variables:
            hosts = {host: self.hosts[host] for host in self.members[name]}
            return {"hosts": hosts, "vars": self.groups.get(name, {})}

        agents = [name for name in self.members if name != "training"]
        inventory = {
            "all": {
                "vars": self.groups["all"],
                "children": {
                    "training": group("training"),
                    "agents": {"vars": self.groups["agents"], "children": {name: group(name) for name in agents}},
                },
            }
        }
        path = self.root / "inventory.yml"
        # JSON is YAML.
        path.write_text(json.dumps(inventory, indent=1), encoding="utf-8")
        return path

    def report(self) -> Variables:
        """The last report."""
        found: Variables = json.loads((self.reports / "report.json").read_text(encoding="utf-8"))
        return found

    def reported(self, node: str, name: str) -> Variables:
        """The entry of an adapter in the last report."""
        [found] = [entry for entry in self.report()["nodes"] if entry["node"] == node]
        return next(adapter for adapter in found["adapters"] if adapter["name"] == name)

    def boxes(self) -> dict[str, bool]:
        """The check boxes of MANIFEST.md: text, and whether it is ticked."""
        lines = (self.reports / "MANIFEST.md").read_text(encoding="utf-8").splitlines()
        return {line[len("- [x] ") :]: line.startswith("- [x]") for line in lines if line.startswith(("- [x] ", "- [ ] "))}


class Barrier:
    """Blocks the first run of a module on a host until it is opened."""

    def __init__(self, fleet: Fleet, host: str, module: str) -> None:
        self._path = fleet.root / f"barrier-{host}"
        self._held: int | None = None
        os.mkfifo(self._path)
        fleet.before_module(host, module, f"test ! -e {self._path} || cat {self._path}")

    @property
    def closed(self) -> bool:
        return self._path.exists()

    def reached(self) -> bool:
        """Return whether the module waits."""
        if self._held is None:
            # Possible only while somebody reads, who then waits until it is closed.
            with contextlib.suppress(OSError):
                self._held = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        return self._held is not None

    def open(self) -> None:
        with self._path.open("w"):
            self._path.unlink()


def contents(directory: pathlib.Path) -> dict[str, bytes]:
    """The files below a directory with their bytes, and the directories with no bytes."""
    return {
        str(path.relative_to(directory)): b"" if path.is_dir() else path.read_bytes() for path in sorted(directory.rglob("*"))
    }


def identity(directory: pathlib.Path) -> dict[str, tuple[int, int, int]]:
    """Inode, mtime and ctime of everything in a directory: equal only if nothing was written."""
    found = {}
    for path in [directory, *sorted(directory.rglob("*"))]:
        status = path.lstat()
        found[str(path.relative_to(directory))] = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    return found


def travelling(directory: pathlib.Path) -> dict[str, bytes]:
    """The files of an offered adapter that a delivery transfers."""
    return {name: content for name, content in contents(directory).items() if name in TRAVELS}
