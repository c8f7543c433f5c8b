# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's fleet for fault tests: offered adapters, runs, events during a run, invariants."""

from __future__ import annotations

import collections.abc as c
import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import time
import typing as t

import yaml
from ansible_collections.lorafleet.delivery.plugins.module_utils._hashing import SHORT, release_digest

from tests.lab.host import Host, command
from tests.support import invariants
from tests.support.fleet import TRAVELS
from tests.support.playbooks import CHECKOUT, Background, Run, Variables

INVENTORY = CHECKOUT / "inventories" / "lab"
# The lab's hosts keep their files there; ssh_config is there too.
ROOT = (CHECKOUT / ".cache" / "lab").resolve()
SOURCE = "sbs29"
NODES = {"jw2-1": "jw2", "jw3-1": "jw3", "kcloud-1": "kcloud"}
# Larger than all buffers between the hosts, so that a transfer over a slow link can be caught.
EXTRA, EXTRA_SIZE = "merges.txt", 24 << 20
_TRAININGS = (("", "_2"), ("_2", "_3"), ("_3", ""))
MODES = {"file": "0644", "directory": "0755"}
# Adapters of tests/support/tiny_adapters.py that differ only in their training.
RETRAINED = {f"adapter{variant}{old}": f"adapter{variant}{new}" for variant in ("", "_b") for old, new in _TRAININGS}
# Seconds to wait for something that takes moments on an idle machine.
_PATIENCE = 300

Content = dict[str, str]
# A description, a condition, and the action that gets the condition's result.
Event = tuple[str, c.Callable[[], t.Any], c.Callable[[t.Any], object]]


def rows(node: str) -> list[Variables]:
    """The adapters that the inventory declares for a node, in the order of their transfer."""
    variables = yaml.safe_load((INVENTORY / "group_vars" / f"{NODES[node]}.yml").read_text(encoding="utf-8"))
    return t.cast("list[Variables]", variables["agent_adapters"])


def first_of(node: str) -> str:
    """A node's adapter that is transferred first. Its lock is taken last, in order of names."""
    return str(rows(node)[0]["name"])


def second_of(node: str) -> str:
    return str(rows(node)[1]["name"])


class Lab:
    """The hosts of inventories/lab. ``reset`` restores each node's /home as ``begin`` saved it."""

    def __init__(self, directory: pathlib.Path, tiny: pathlib.Path) -> None:
        self.tiny, self._directory = tiny, directory
        inventory = yaml.safe_load((INVENTORY / "hosts.yml").read_text(encoding="utf-8"))["all"]["children"]
        addresses = {SOURCE: inventory["training"]["hosts"][SOURCE]["lab_address"]}
        for node, group in NODES.items():
            addresses[node] = inventory["agents"]["children"][group]["hosts"][node]["lab_address"]
        self.hosts = {name: Host(name, address) for name, address in addresses.items()}
        scenario = yaml.safe_load((CHECKOUT / "extensions/molecule/default/vars/lab.yml").read_text(encoding="utf-8"))
        self._kinds: dict[str, str] = scenario["lab_offered"]
        # The files that a node may have, by adapter and release; and the offered release by
        # adapter.
        self._releases: dict[str, dict[str, Content]] = {name: {} for name in self._kinds}
        self.wanted: dict[str, str] = {}
        # The files of each node before the test, and the active releases.
        self._listing: dict[str, dict[str, str]] = {}
        self._content: dict[str, dict[str, Content | None]] = {}
        self.active: dict[str, str] = {}
        self._first: dict[str, str] = {}
        self._survives: dict[str, list[Content]] = {}
        self.variables: dict[str, Variables] = {}

    # Paths

    @property
    def source(self) -> pathlib.Path:
        return self.hosts[SOURCE].home / "models"

    def served(self, node: str, name: str) -> pathlib.Path:
        return self.hosts[node].home / "models" / name

    def stored(self, node: str, name: str) -> pathlib.Path:
        return self.hosts[node].home / ".lorafleet" / name

    # Before a test

    def begin(self) -> None:
        """Deliver a first release of everything to empty nodes, and save their state."""
        for name in self._kinds:
            self.offer(name, training=0)
        for node in NODES:
            home = self.hosts[node].home
            for path in home.iterdir():
                shutil.rmtree(path)
            (home / "models").mkdir()
        done = self.deploy()
        assert done.rc == 0, done.output
        self._first = dict(self.wanted)
        for node in NODES:
            command("cp", "-a", self.hosts[node].home, self._directory / node)

    def reset(self) -> None:
        """Let every node serve the first release, and offer another one."""
        self.variables = {node: {} for node in NODES}
        for name in self._kinds:
            self.offer(name)
        for node in NODES:
            host = self.hosts[node]
            assert host.pid, f"{node} is down"
            for path in host.home.iterdir():
                shutil.rmtree(path)
            command("cp", "-a", f"{self._directory / node}/.", host.home)
        self._survives = {}
        self.active = dict(self._first)
        self.record_state()

    def record_state(self) -> None:
        """Take the present state of the nodes as the one before the test."""
        for node in NODES:
            self._listing[node] = invariants.listing(str(self.hosts[node].home))
            names = [row["name"] for row in rows(node)]
            self._content[node] = {name: invariants.content_of(str(self.served(node, name))) for name in names}

    def delivered(self) -> None:
        """Take the offered releases as the active ones."""
        self.active = dict(self.wanted)
        self.record_state()

    def offer(self, name: str, training: int = 1) -> None:
        """Offer an adapter on the training server; training 0 is the one of the first delivery."""
        kind = self._kinds[name]
        for _retraining in range(training):
            kind = RETRAINED[kind]
        shutil.rmtree(self.source / name, ignore_errors=True)
        shutil.copytree(self.tiny / kind, self.source / name)
        self._give_to_trainer(name)

    def enlarge(self, node: str) -> pathlib.Path:
        """Slow down a node's link and add a large file to its first adapter; return its path."""
        path = self.source / first_of(node) / EXTRA
        path.write_bytes(os.urandom(EXTRA_SIZE))
        self._give_to_trainer(first_of(node))
        first, second = rows(node)
        self.variables[node]["agent_adapters"] = [{**first, "extra_files": [EXTRA]}, second]
        self.hosts[node].limit_bandwidth()
        return path

    def _give_to_trainer(self, name: str) -> None:
        owner = self.source.stat()
        for path in (self.source / name, *(self.source / name).iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)

    def must_survive(self, node: str, name: str) -> None:
        """Expect the present content at NAME, which was made by hand, to be kept somewhere."""
        content = invariants.content_of(str(self.served(node, name)))
        assert content is not None
        self._survives[name] = [content]

    def releases(self, node: str, name: str) -> set[str]:
        """The releases in a node's store."""
        return set(os.listdir(self.stored(node, name) / "releases"))

    def is_delivered(self, node: str) -> bool:
        """Whether the node serves all that was offered when the last playbook was started."""
        wanted = {row["name"]: self._releases[row["name"]][self.wanted[row["name"]]] for row in rows(node)}
        return all(invariants.content_of(str(self.served(node, name))) == content for name, content in wanted.items())

    # Runs

    def start(
        self, playbook: str, *arguments: str, environment: c.Mapping[str, str] | None = None, name: str = "record"
    ) -> Background:
        """Start a playbook on the lab; ``name`` separates the records of concurrent runs."""
        for adapter in self._kinds:
            content = self._described(adapter)
            release = release_digest((file, size, sha256) for file, (size, sha256) in content.items())[:SHORT]
            self._releases[adapter][release] = {file: sha256 for file, (_size, sha256) in content.items()}
            self.wanted[adapter] = release
        overrides = self._directory / "overrides.yml"
        overrides.write_text(json.dumps({"all": {"hosts": self.variables}}), encoding="utf-8")
        inventories = ("-i", str(INVENTORY), "-i", str(overrides))
        extra = ("-e", json.dumps({"agent_level": "structure"}))
        return Background(
            playbook, *inventories, *extra, *arguments, directory=self._directory, environment=environment, name=name
        )

    def deploy(self, *arguments: str) -> Run:
        return self.start("deploy", *arguments).wait()

    def _described(self, name: str) -> dict[str, tuple[int, str]]:
        """Sizes and sha256s of the files of an offered adapter that a delivery transfers."""
        directory = self.source / name
        found = invariants.content_of(str(directory)) or {}
        travels = TRAVELS | {EXTRA}
        return {file: ((directory / file).lstat().st_size, sha256) for file, sha256 in found.items() if file in travels}

    # During a run

    def when(self, run: Background | None, *events: Event) -> None:
        """Wait for each event, in any order, while a playbook runs, and call its action at once."""
        deadline = time.monotonic() + _PATIENCE
        waiting = list(events)
        while waiting:
            for event in list(waiting):
                _what, condition, action = event
                if found := condition():
                    waiting.remove(event)
                    action(found)
            missing = "; ".join(what for what, _condition, _action in waiting)
            output = run.output if run else ""
            assert not waiting or run is None or not run.ended, f"the run ended before: {missing}\n{output}"
            assert time.monotonic() < deadline, f"not within {_PATIENCE} s: {missing}\n{output}"
            time.sleep(0.005)

    def wait_until_idle(self) -> None:
        """Wait until no module and no transfer runs on any node."""

        def idle(host: Host) -> Event:
            return f"{host.name} is idle", lambda: not host.processes("rsync", "python3"), lambda _found: None

        self.when(None, *(idle(self.hosts[node]) for node in NODES))

    def receiving(self, node: str, action: c.Callable[[pathlib.Path], object]) -> Event:
        """A node received a part of its large file; the action gets the staging directory."""

        def staged() -> pathlib.Path | None:
            for directory in (self.stored(node, first_of(node)) / "staging").glob("*"):
                with contextlib.suppress(FileNotFoundError):
                    if (directory / EXTRA).stat().st_size >= EXTRA_SIZE // 256:
                        return directory
            return None

        return f"{node} receives", staged, action

    def barrier(self, node: str) -> t.IO[str]:
        """Stop activations on a node at their second lock until the returned file is closed."""
        lock = (self.stored(node, first_of(node)) / "lock").open(encoding="utf-8")
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock

    def at_barrier(self, node: str, action: c.Callable[[int], object]) -> Event:
        """An activation holds its first lock and waits at the barrier; the action gets its PID."""

        def module() -> int:
            with contextlib.suppress(ValueError, ProcessLookupError):
                text = (self.stored(node, second_of(node)) / "lock").read_text(encoding="utf-8")
                return self.hosts[node].process(json.loads(text)["pid"])
            return 0

        return f"{node} activates", module, action

    # After a run

    def violations(self, node: str, code: int | None, message: str = "", again: Variables | None = None) -> list[str]:
        """The invariants that a node violates. ``code`` is None if the run's end is unknown."""
        home = self.hosts[node].home
        adapters = {}
        for row in rows(node):
            name = row["name"]
            content = self._content[node][name]
            adapters[name] = {
                "releases": self._releases[name],
                "wanted": self.wanted[name],
                "active": self.active[name],
                "survives": self._survives.get(name, []),
                "method": "exchange",
                "modes": MODES,
                **({"before": content} if content is not None else {}),
            }
        expectations = {
            "models_dir": str(home / "models"),
            "store": str(home / ".lorafleet"),
            "code": code,
            "message": message,
            # Root in a container sees only the processes of its own user namespace.
            "unseen_readers": True,
            "untouched": {str(home): self._listing[node]},
            "adapters": adapters,
            **({"again": again} if again is not None else {}),
        }
        return invariants.violations(expectations)

    def check(self, done: Run, expected: c.Mapping[str, c.Sequence[str] | None]) -> None:
        """Assert each node's outcome: delivered (None), or failed with these parts in its message.

        No node may violate an invariant.
        """
        for node, parts in expected.items():
            message = "\n".join(done.failures(node))
            if parts is None:
                assert not message, f"{node}: {message}"
            for part in parts or ():
                assert part in message, f"{node}: {message}\n{done.output}"
            code = None if done.unreachable(node) else int(parts is not None)
            found = self.violations(node, code, message)
            assert not found, "\n".join([node, *found, done.output])
        assert (done.rc == 0) == (not any(expected.values())), done.output

    def check_convergence(self) -> None:
        """Assert that a plain run delivers every node, and that a second one changes nothing."""
        done = self.deploy()
        assert done.rc == 0, done.output
        again = self.deploy()
        assert again.changed() == [], again.output
        for node in NODES:
            ended = {"code": again.rc, "changed": bool(again.changed(node))}
            found = self.violations(node, done.rc, again=ended)
            assert not found, "\n".join([node, *found, again.output])
