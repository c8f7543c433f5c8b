# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Describe the declared adapters of a training server, each with its golden."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from .._adapter.declaration import Declaration
from .._adapter.describe import describe
from .._adapter.excluded import Excluded, unusual
from .._adapter.file_selection import source_directory, tokenizer_above
from .._adapter.hash_cache import cache_path
from .._adapter.manifest import Manifest
from .._base.identity import Identities
from .._errors import DeliveryError, Problem, collected
from .._store.source import identify_source
from .attach import STALE, attach_golden


@dataclasses.dataclass
class Descriptions:
    """The manifests of the accepted adapters, and the problems of the others.

    ``excluded``, ``notes``, ``goldens`` and ``cached`` are those that module adapter_info returns.
    """

    manifests: list[Manifest] = dataclasses.field(default_factory=list)
    # Where each adapter is, and what the links in that directory lead to.
    directories: dict[str, str] = dataclasses.field(default_factory=dict)
    links: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    excluded: dict[str, list[Excluded]] = dataclasses.field(default_factory=dict)
    notes: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    goldens: dict[str, str] = dataclasses.field(default_factory=dict)
    cached: list[str] = dataclasses.field(default_factory=list)
    problems: list[Problem] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)

    def identified_directories(self) -> dict[str, t.Any]:
        """Return the directories as module adapter_info returns them."""
        identified: dict[str, t.Any] = {}
        for name, directory in self.directories.items():
            # Without /proc, nodes cannot compare their directories with these.
            with contextlib.suppress(OSError):
                identified[name] = {**identify_source(directory), "links": self.links[name]}
        return identified


def describe_adapters(
    params: dict[str, t.Any],
    bases: dict[str, dict[str, t.Any]],
    versions: dict[str, str],
    identities: Identities,
    write_cache: bool,
) -> Descriptions:
    """Describe every adapter of ``params``, which has the options of adapter_info.

    ``bases`` are those of ``with_config``. ``versions`` are the library versions of the training
    environment, where they are known.
    """
    found = Descriptions()
    for row in params["adapters"]:
        with collected(found.problems, row["name"]):
            base = bases.get(row["base"], {})
            declared = Declaration.from_row(row, base)
            directory = source_directory(params["models_dir"], declared, params["link_dirs"])
            cache = cache_path(params["cache_dir"], directory)
            described = describe(directory, declared, versions, cache, write_cache, params["link_dirs"], row)
            identity = identities.at(base.get("path"))
            manifest, golden, problem = attach_golden(described.manifest, params["golden_dir"], identity)
            found.goldens[declared.name] = golden
            if problem and params["require_golden"]:
                raise DeliveryError(problem)
            if problem and golden == STALE:
                found.warnings.append(str(problem))
            found.manifests.append(manifest)
            found.directories[declared.name] = directory
            found.links[declared.name] = described.links
            found.excluded[declared.name] = described.excluded
            found.notes[declared.name] = described.notes
            found.warnings += unusual(declared.name, described.excluded)
            files = [entry.path for entry in manifest.files]
            found.warnings += filter(None, [tokenizer_above(params["models_dir"], declared, files)])
            if described.cached:
                found.cached.append(declared.name)
    return found
