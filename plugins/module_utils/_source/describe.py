# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Describe the declared adapters of a training server, each in its form and with its golden."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from .._adapter.declaration import Declaration
from .._adapter.describe import describe
from .._adapter.excluded import Excluded, unusual
from .._adapter.file_selection import source_directory, tokenizer_above
from .._adapter.hash_cache import cache_path
from .._adapter.manifest import Manifest
from .._base.identity import Identities
from .._errors import DeliveryError, Problem, collected
from .._forms import AS_TRAINED
from .._golden.attach import STALE, attach_golden
from .._store.source import identify_source

if t.TYPE_CHECKING:
    from .fold import FoldedAdapter, Folding


@dataclasses.dataclass
class Descriptions:
    """The manifests of the accepted adapters, and the problems of the others.

    ``excluded``, ``notes``, ``goldens`` and ``cached`` are those that module adapter_info returns.
    ``folded`` are the adapters that are delivered folded.
    """

    manifests: list[Manifest] = dataclasses.field(default_factory=list)
    # Where each adapter is, and what the links in that directory lead to.
    directories: dict[str, str] = dataclasses.field(default_factory=dict)
    links: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    excluded: dict[str, list[Excluded]] = dataclasses.field(default_factory=dict)
    notes: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    goldens: dict[str, str] = dataclasses.field(default_factory=dict)
    cached: list[str] = dataclasses.field(default_factory=list)
    folded: list[FoldedAdapter] = dataclasses.field(default_factory=list)
    problems: list[Problem] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)

    def identified_directories(self) -> dict[str, t.Any]:
        """Return the directories as module adapter_info returns them."""
        identified: dict[str, t.Any] = {}
        folded = {one.declared.name: one.place.path for one in self.folded}
        for name, directory in self.directories.items():
            # Without /proc, nodes cannot compare their directories with these.
            with contextlib.suppress(OSError):
                identified[name] = {**identify_source(directory), "links": self.links[name]}
                if name in folded:
                    # In check mode, it is not there yet.
                    path = folded[name]
                    place = identify_source(path) if os.path.isdir(path) else {**identified[name], "path": path}
                    identified[name] = {**place, "links": {}, "original": identified[name]}
        return identified


def describe_adapters(
    params: dict[str, t.Any],
    bases: dict[str, dict[str, t.Any]],
    versions: dict[str, str],
    identities: Identities,
    scratch: str,
    write_cache: bool,
) -> Descriptions:
    """Describe every adapter of ``params``, which has the options of adapter_info.

    ``bases`` are those of ``with_config``. ``versions`` are the library versions of the training
    environment, where they are known. ``scratch`` is a directory for temporary files. Without
    ``write_cache``, neither hashes nor folded adapters are kept.
    """
    found = Descriptions()
    folding = _folding(params, scratch, write_cache)
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
            if folding is None or declared.form == AS_TRAINED:
                found.manifests.append(manifest)
            else:
                found.folded.append(folding.fold(manifest, described, directory, declared))
            found.directories[declared.name] = directory
            found.links[declared.name] = described.links
            found.excluded[declared.name] = described.excluded
            found.notes[declared.name] = described.notes
            found.warnings += unusual(declared.name, described.excluded)
            files = [entry.path for entry in manifest.files]
            found.warnings += filter(None, [tokenizer_above(params["models_dir"], declared, files)])
            if described.cached:
                found.cached.append(declared.name)
    if folding is not None and write_cache:
        found.folded = folding.compare_new(found.folded, found.problems, found.warnings)
    for folded in found.folded:
        found.manifests.append(folded.manifest)
        found.notes[folded.declared.name] = [*found.notes[folded.declared.name], *folded.notes]
    # In the order of the rows.
    names = [row["name"] for row in params["adapters"]]
    found.manifests.sort(key=lambda manifest: names.index(manifest.name))
    return found


def _folding(params: dict[str, t.Any], scratch: str, write_cache: bool) -> Folding | None:
    """Return what folds adapters, or None if all are delivered as trained."""
    if all((row.get("form") or AS_TRAINED) == AS_TRAINED for row in params["adapters"]):
        return None
    # It needs the load test, whose import takes milliseconds.
    from .fold import Folding

    return Folding(params["python"], params["cache_dir"], scratch, write_cache)
