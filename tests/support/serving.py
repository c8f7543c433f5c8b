# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node with releases that have goldens, for engines that serve them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.declared import declared_engines
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.desired import Desired, read_desired
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.engines.table import client_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.node import Node as ServedNode
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.node_engine import NodeEngine, node_engines

from tests.support import releases
from tests.support.fake_engine import goldens
from tests.support.transactions import Node


def make_base(directory: pathlib.Path) -> pathlib.Path:
    base = directory / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "llama"}')
    return base


class ServingNode:
    """A node whose engine is at ``url``; ``keys`` are those of its entry in engines."""

    def __init__(self, directory: pathlib.Path, base: pathlib.Path, url: str, engine: str = "vllm", **keys: t.Any) -> None:
        self.base = base
        self.directory = directory
        self.nodes: dict[str, Node] = {}
        # The engine has the bound of float32 if it is told so.
        dtype = {"dtype": "float32"} if engine in ("vllm", "mistralrs") else {}
        self.engines = [{"name": engine, "url": url, "start_timeout": 0, "drain_timeout": 0, **dtype, **keys}]

    def node(self, name: str = releases.NAME) -> Node:
        if name not in self.nodes:
            self.nodes[name] = Node(self.directory, name)
        return self.nodes[name]

    @property
    def options(self) -> dict[str, t.Any]:
        """The options of the modules."""
        directories = {"models_dir": str(self.directory / "models"), "store": str(self.directory / "store")}
        return {**directories, "names": sorted(self.nodes), "engines": self.engines}

    def deploy(self, version: int, name: str = releases.NAME, golden_of: t.Optional[int] = 0) -> str:
        """Activate a version, with a golden as in ``record``, and return its release."""
        self.node(name).deploy(version)
        return self.record(version, name, golden_of)

    def record(self, version: int, name: str = releases.NAME, golden_of: t.Optional[int] = 0) -> str:
        """Record the golden of a version and return its release.

        ``golden_of`` is the version whose answers the golden has, by default its own. None is no
        golden.
        """
        manifest = releases.manifest_of(version, name)
        if golden_of is not None:
            answering = self.directory / f"version-{golden_of or version}"
            if not answering.exists():
                releases.write_version(answering, golden_of or version)
            golden = goldens.golden_of(manifest, answering, self.base)
            manifest = dataclasses.replace(manifest, golden=golden.to_json())
        pathlib.Path(self.node(name).paths.manifest(manifest.release)).write_text(json.dumps(manifest.to_json()))
        return manifest.release

    def node_engines(self) -> list[NodeEngine]:
        """Return the engines, for which no run waits: a fake one is up when it was restarted."""
        engines = node_engines(declared_engines(self.engines, "engines"), self.options["store"], client_of)
        return [one._replace(options=one.options._replace(start=0)) for one in engines]

    def serve(self, go_back: t.Optional[t.Callable[[str, str], None]] = None, check_mode: bool = False) -> dict[str, t.Any]:
        """Serve the active releases in this process."""
        served = ServedNode(self.options["models_dir"], self.options["store"], {})
        return served.serve(self.node_engines(), sorted(self.nodes), go_back, "test", 0, check_mode)

    def desired(self) -> Desired:
        return read_desired(self.node_engines()[0].paths)

    def listed(self) -> dict[str, t.Optional[str]]:
        """Return the names that the engine has, with their roots."""
        return {row.name: row.root for row in self.node_engines()[0].client.listed()}

    def root(self, version: int, name: str = releases.NAME) -> str:
        return self.node(name).paths.release(releases.release_of(version))
