# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""One adapter to test: what is known about it before the test, and whether its receipt is valid."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._adapter.declaration import Declaration
from .._adapter.manifest import Manifest
from .._adapter.permitted_files import file_problems
from .._base.config import base_fingerprint, with_config
from .._errors import DeliveryError, Problem, collected
from .._forms import AS_TRAINED
from .._hashing import digest_of
from .._levels import reaches
from .._store.owners import check_way_to_store
from .._store.paths import AdapterPaths, check_owners
from .._store.receipt import read_receipt
from .._store.state import read_state
from .options import LoadTestOptions

if t.TYPE_CHECKING:
    from .._golden.golden import Golden
    from .worker.protocol import Target


@dataclasses.dataclass(frozen=True)
class Case:
    """One adapter to test.

    The test has to reach level ``required``; if memory does not suffice for it, level ``minimum``
    is enough. ``directory`` is where the release is on this node, if it is there. ``base_digest``
    identifies the base and its binding, ``receipt`` is from an earlier test.
    """

    declared: Declaration
    base: dict[str, t.Any]
    paths: AdapterPaths
    manifest: Manifest
    required: str
    minimum: str
    golden: Golden | None
    directory: str | None
    base_digest: str
    receipt: dict[str, t.Any] | None

    @property
    def name(self) -> str:
        return self.declared.name

    @property
    def golden_digest(self) -> str | None:
        return None if self.golden is None else digest_of(self.manifest.golden)

    def has_valid_receipt(self, level: str, environment_digest: str | None) -> bool:
        """Return whether the receipt reaches a level with this base, environment and golden.

        Level structure loads nothing, so it is valid in any environment.
        """
        receipt = self.receipt
        if receipt is None or receipt.get("base") != self.base_digest or not reaches(receipt["level"], level):
            return False
        if level == "golden" and receipt.get("golden") != self.golden_digest:
            return False
        return level == "structure" or receipt.get("environment") == environment_digest

    def improves_receipt(self, level: str, environment_digest: str | None) -> bool:
        """Return whether a test that reaches this level proves more than a valid receipt."""
        receipt = self.receipt
        if receipt is None or not reaches(receipt["level"], level):
            return True
        return not self.has_valid_receipt(receipt["level"], environment_digest)

    def problem(self, problem: str, remedy: str) -> Problem:
        """Return a problem of this adapter."""
        return Problem("", problem, remedy, self.name)

    def error(self, problem: str, remedy: str = "") -> DeliveryError:
        """Return an error about this adapter."""
        return DeliveryError(self.problem(problem, remedy))

    def target(self, directory: str) -> Target:
        """Return what the worker has to load."""
        # A node that is up to date needs none.
        from .worker.protocol import Target

        return Target(
            name=self.name,
            directory=directory,
            weights_file=self.manifest.weights_file,
            level=self.required,
            base_config=self.base.get("config"),
            base_path=self.base.get("path") or None,
            allow_pickle=self.declared.allow_pickle,
            questions=self.golden.questions if self.golden else None,
        )


def find_cases(options: LoadTestOptions) -> tuple[list[Case], list[Problem]]:
    """Return the cases of all adapters, and the problems of those that cannot be tested.

    Raises DeliveryError for a bad manifest, and for a store that another user could change.
    """
    check_way_to_store(options.store)
    manifests = None
    if options.manifests is not None:
        manifests = {manifest.name: manifest for manifest in map(Manifest.from_argument, options.manifests)}
    cases: list[Case] = []
    problems: list[Problem] = []
    for row in options.adapters:
        with collected(problems, row["name"]):
            cases.append(_case_of(options, row, manifests))
    return cases, problems


def _case_of(options: LoadTestOptions, row: dict[str, t.Any], manifests: dict[str, Manifest] | None) -> Case:
    """Return the case of one adapter. Raises a DeliveryError that does not name the adapter."""
    base = with_config({row["base"]: options.bases.get(row["base"]) or {}})[row["base"]]
    declared = Declaration.from_row(row, base)
    paths = AdapterPaths(options.models_dir, options.store, declared.name)
    check_owners(paths)
    manifest = _manifest_of(paths, manifests)
    if manifests is not None:
        wrong = file_problems(manifest, declared)
        if wrong:
            raise DeliveryError(*wrong)
        # Otherwise the training server could choose another alpha than the declared one.
        form = manifest.made_of.form if manifest.made_of else AS_TRAINED
        if form != declared.form:
            problem = f"is described in form {form}; the inventory declares form {declared.form}."
            raise DeliveryError.of("", problem, "Describe it with the row that the node has.")
    if manifest.made_of is not None:
        # The training server has compared the original with what the inventory declares.
        declared = declared.folded()
    required = options.level
    if required == "available":
        required = "adapter" if not base.get("path") else "model" if manifest.golden is None else "golden"
    minimum = options.minimum_level or required
    if not reaches(required, minimum):
        required = minimum
    if reaches(required, "model") and not base.get("path"):
        raise DeliveryError.of(
            "",
            f"cannot reach level {required}: base {declared.base} has no path on this host.",
            "Set the path of the base in bases, or set level to adapter.",
        )
    if required == "adapter" and not base.get("path") and not base.get("config"):
        raise DeliveryError.of(
            "",
            f"cannot reach level adapter: base {declared.base} has neither path nor config.",
            "Set one of them in bases, or set level to structure.",
        )
    directories = (paths.release(manifest.release), paths.staged(manifest.release))
    return Case(
        declared=declared,
        base=base,
        paths=paths,
        manifest=manifest,
        required=required,
        minimum=minimum,
        golden=_golden_of(manifest) if required == "golden" else None,
        directory=next((directory for directory in directories if os.path.isdir(directory)), None),
        # With the binding, so that a base that was only reported does not pass where it is
        # enforced.
        base_digest=digest_of([base_fingerprint(base), manifest.base, options.base_binding]),
        receipt=read_receipt(paths, manifest.release),
    )


def _golden_of(manifest: Manifest) -> Golden:
    # The other levels need none.
    from .._golden.golden import golden_of

    return golden_of(manifest)


def _manifest_of(paths: AdapterPaths, manifests: dict[str, Manifest] | None) -> Manifest:
    """Return an adapter's manifest from the option, or else that of its active release.

    Raises DeliveryError.
    """
    if manifests is not None:
        if paths.name not in manifests:
            raise DeliveryError.of("", "has no manifest in manifests.", "Describe the adapter with adapter_info first.")
        return manifests[paths.name]
    active = read_state(paths).active
    if active is None:
        raise DeliveryError.of("", "has no active release on this host.", "Deploy it first.")
    manifest = paths.read_manifest(active)
    if manifest is None:
        raise DeliveryError.of("", f"has no manifest of its active release {active}.", "Deploy it again.")
    return manifest
