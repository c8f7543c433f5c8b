# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet with adapters of real size: directories on this machine, reached through sshd."""

from __future__ import annotations

import json
import pathlib
import random
import shutil
import sys
import typing as t

from tests.benchmarks import true_size
from tests.support import sshd
from tests.support.load_test_node import OWN_USER
from tests.support.playbooks import Background, Run
from tests.support.tiny_adapters import PEFT_PYTHON

SOURCE = "sbs29"
AGENTS = {"jw2-1": "cleaner", "jw3-1": "describer", "kcloud-1": "paraphraser"}
WEIGHTS, TOKENIZER = "adapter_model.safetensors", "tokenizer.json"
_LIMIT = 1200


def tokenizer(path: pathlib.Path) -> None:
    """Write a tokenizer of the size of Llama 3's, 17 MB. Every call writes the same."""
    draw = random.Random(0)  # noqa: S311
    words = [f"{draw.getrandbits(48):012x}" for _number in range(128256)]
    merges = [f"{draw.choice(words)} {draw.choice(words)}" for _number in range(480000)]
    model = {"type": "BPE", "vocab": {word: number for number, word in enumerate(words)}, "merges": merges}
    path.write_text(json.dumps({"version": "1.0", "model": model}), encoding="utf-8")


class Loopback:
    """Nodes in ``root``, each with the adapters of its agent, behind the servers of their names.

    The training server is the controller itself. ``adapters`` maps names to node and size.
    """

    def __init__(self, root: pathlib.Path, servers: t.Mapping[str, sshd.Server]) -> None:
        self.root, self.servers = root, servers
        self.source = root / SOURCE
        self.adapters = {f"{agent}_{label}_lora": (node, label) for node, agent in AGENTS.items() for label in true_size.SIZES}
        self.source.mkdir()
        tokenizer(root / TOKENIZER)
        for name in self.adapters:
            self.train(name)

    def train(self, name: str, seed: int = 0) -> None:
        """Save an adapter on the training server. Each seed gives other weights."""
        _node, label = self.adapters[name]
        shutil.rmtree(self.source / name, ignore_errors=True)
        true_size.make(self.source / name, true_size.SIZES[label], [*self.adapters].index(name) + 100 * seed)
        shutil.copy(self.root / TOKENIZER, self.source / name)

    def home(self, node: str) -> pathlib.Path:
        return self.root / node

    def empty(self) -> None:
        """Empty all nodes."""
        for node in AGENTS:
            shutil.rmtree(self.home(node), ignore_errors=True)
            (self.home(node) / "models").mkdir(parents=True)

    def play(self, playbook: str, *arguments: str) -> Run:
        """Run a playbook, which must succeed."""
        done = self.start(playbook, *arguments).wait(_LIMIT)
        if done.rc:
            sys.exit(done.output)
        return done

    def start(self, playbook: str, *arguments: str) -> Background:
        return Background(playbook, "-i", str(self._inventory()), *arguments, directory=self.root)

    def ssh(self, node: str) -> list[str]:
        """Return the ssh command line for a node."""
        server = self.servers[node]
        key = ["-i", str(server.private_key), "-p", str(server.port)]
        return ["ssh", *server.ssh_common_args.split(), *key, f"{server.user}@{server.address}"]

    def _inventory(self) -> pathlib.Path:
        def rows(node: str) -> list[dict[str, t.Any]]:
            labels = {label: name for name, (of, label) in self.adapters.items() if of == node}
            return [
                {
                    "name": name,
                    "variant": label,
                    "default": label == "3b",
                    "base": true_size.SIZES[label].name,
                    "rank": true_size.SIZES[label].rank,
                    "alpha": 32,
                    "target_modules": true_size.TARGETS,
                }
                for label, name in labels.items()
            ]

        def node(name: str) -> dict[str, t.Any]:
            return {
                **self.servers[name].variables(),
                # All nodes have the same address and would share a connection otherwise.
                "ansible_control_path": f"%(directory)s/{name}-%%p",
                "agent_name": AGENTS[name],
                "agent_adapters": rows(name),
                "agent_models_dir": str(self.home(name) / "models"),
                "agent_store": str(self.home(name) / ".lorafleet"),
            }

        bases = {size.name: {"config": size.config} for size in true_size.SIZES.values()}
        training = {
            "ansible_connection": "local",
            "training_models_dir": str(self.source),
            "training_cache_dir": str(self.root / "cache"),
            "training_bases": bases,
        }
        agents = {
            "agent_python": PEFT_PYTHON,
            "agent_device": "cpu",
            # No other user may enter the temporary directory.
            "agent_load_test_user": OWN_USER,
            "agent_bases": bases,
        }
        inventory = {
            "all": {
                "vars": {"ansible_python_interpreter": sys.executable},
                "children": {
                    "training": {"hosts": {SOURCE: training}},
                    "agents": {"hosts": {name: node(name) for name in AGENTS}, "vars": agents},
                },
            }
        }
        path = self.root / "inventory.yml"
        path.write_text(json.dumps(inventory, indent=1), encoding="utf-8")
        return path
