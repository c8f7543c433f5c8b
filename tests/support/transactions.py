# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A models directory and a store for running the node's transaction with small releases."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.permissions import Permissions
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import ActivationOptions, Plan, Request
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.prediction import AdapterResult
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.transaction import carry_out, diff_of

from tests.support.releases import NAME, manifest_of, release_of, stage

Method = t.Literal["exchange", "symlink", "auto"]
# The entries of the adapter's part of the store when no run is in progress.
_OURS = {"accepted.json", "lock", "manifests", "receipts", "releases", "staging", "state.json"}


class Acceptance(t.Protocol):
    """What a node that trusts signers does about a release: ``_Acceptance`` of adapter_release."""

    def check(self, plan: Plan) -> None: ...

    def record(self, plan: Plan) -> None: ...


class Node:
    """One adapter on one node. ``changed`` and ``diff`` are those of the last call.

    ``accepting`` is set for a node that requires signatures.
    """

    def __init__(self, base: pathlib.Path, name: str = NAME, store: t.Optional[pathlib.Path] = None) -> None:
        self.base = base
        self.models = base / "models"
        self.models.mkdir(exist_ok=True)
        self.store = store or base / "store"
        self.paths = AdapterPaths(str(self.models), str(self.store), name)
        self.served = self.models / name
        self.root = self.store / name
        self.accepting: t.Optional[t.Callable[[t.Sequence[Request]], t.ContextManager[Acceptance]]] = None
        self.changed = False
        self.diff: dict[str, t.Any] = {}

    def release(self, version: int) -> pathlib.Path:
        return pathlib.Path(self.paths.release(release_of(version)))

    def request(self, version: int) -> Request:
        return Request(self.paths, manifest=manifest_of(version, self.paths.name))

    def deploy(self, version: int, method: Method = "exchange", **options: t.Any) -> dict[str, t.Any]:
        """Stage a version and activate it."""
        stage(self.paths, version)
        return self.carry_out(version, method, **options)

    def carry_out(self, version: int, method: Method = "exchange", **options: t.Any) -> dict[str, t.Any]:
        return self.carry_out_all([self.request(version)], method, **options)[0]

    def roll_back(self, method: Method = "exchange", release: t.Optional[str] = None, **options: t.Any) -> dict[str, t.Any]:
        return self.carry_out_all([Request(self.paths, release=release)], method, **options)[0]

    def carry_out_all(
        self,
        requests: list[Request],
        method: Method = "exchange",
        level: str = "model",
        keep: int = 3,
        uid: t.Optional[int] = None,
        gid: t.Optional[int] = None,
        check_mode: bool = False,
        lock_timeout: float = 0,
    ) -> list[dict[str, t.Any]]:
        options = ActivationOptions(
            required_level=level,
            activation=method,
            keep=keep,
            permissions=Permissions(0o644, 0o755, uid, gid),
            run="test",
            lock_timeout=lock_timeout,
        )
        done: list[AdapterResult] = []
        if self.accepting is None:
            carry_out(requests, options, check_mode, done)
        else:
            with self.accepting(requests) as acceptance:
                options = dataclasses.replace(options, before_swap=acceptance.record)
                carry_out(requests, options, check_mode, done, acceptance.check)
        self.changed = any(outcome.changed for outcome in done)
        self.diff = diff_of(done[0])
        return [outcome.to_json() for outcome in done]

    def junk(self) -> list[str]:
        """Return the paths that a finished run should not leave."""
        found = [name for name in os.listdir(self.root) if name not in _OURS and not name.startswith("adopted-")]
        found += os.listdir(self.root / "staging")
        found += [name for name in os.listdir(self.models) if name != self.served.name]
        found += [name for kind in ("manifests", "receipts") for name in os.listdir(self.root / kind) if name.endswith(".new")]
        return sorted(found)

    def snapshot(self) -> dict[str, tuple[t.Any, ...]]:
        """Return the metadata of all files, which any write would change.

        The lock is left out: its holder writes it.
        """
        found: dict[str, tuple[t.Any, ...]] = {}
        for top, directories, files in os.walk(self.base):
            for name in (*directories, *files):
                path = os.path.join(top, name)
                status = os.lstat(path)
                if path != self.paths.lock:
                    found[path] = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return found
