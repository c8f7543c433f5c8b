# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node's directories for tests of planning and staging transfers."""

from __future__ import annotations

import json
import os
import pathlib
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry, Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.fetch import Fetch, plan_fetches
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.staging import prepare

from tests.support.releases import NAME, content, manifest_of, write_version

CONFIG, TOKENIZER = "adapter_config.json", "tokenizer.json"


class StagingNode:
    """The directories of a node."""

    def __init__(self, path: pathlib.Path) -> None:
        self.models = path / "models"
        self.store = path / "store"
        self.models.mkdir()

    def plan(self, *manifests: Manifest, transferred: bool = False) -> list[Fetch]:
        return plan_fetches(manifests, str(self.models), str(self.store), transferred)

    def one(self, manifest: t.Optional[Manifest] = None) -> Fetch:
        return self.plan(manifest or manifest_of(1))[0]

    def prepared(self, manifest: t.Optional[Manifest] = None) -> Fetch:
        fetch = self.one(manifest)
        prepare(fetch)
        return fetch

    def add_release(self, version: int, name: str = NAME) -> pathlib.Path:
        """Put a release with its manifest into the store."""
        manifest = manifest_of(version, name)
        paths = AdapterPaths(str(self.models), str(self.store), name)
        write_version(paths.release(manifest.release), version)
        os.makedirs(paths.manifests, exist_ok=True)
        pathlib.Path(paths.manifest(manifest.release)).write_text(json.dumps(manifest.to_json()))
        return pathlib.Path(paths.release(manifest.release))


def receive(fetch: Fetch, version: int = 1, *names: str) -> None:
    """Write what a transfer receives: the files to download, or those that are named."""
    for name in names or [entry.path for entry in fetch.to_download]:
        pathlib.Path(fetch.staging, name).write_bytes(content(version)[name])


def names(entries: t.Iterable[FileEntry]) -> list[str]:
    return [entry.path for entry in entries]


def staged(fetch: Fetch) -> dict[str, bytes]:
    top = pathlib.Path(fetch.staging)
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if not path.is_dir()}
