# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""One adapter that is to be load tested: what is known of it, what was found, and what its receipt says."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._adapter.declaration import Declaration
from .._adapter.manifest import Manifest
from .._base.config import base_fingerprint, with_config
from .._errors import DeliveryError, Problem, collected
from .._golden.golden import Golden, golden_of
from .._hashing import digest_of
from .._levels import reaches
from .._store.paths import AdapterPaths, make_store
from .._store.receipt import read_receipt, write_receipt
from .._store.state import read_state
from .request import Target

# What a receipt keeps of a test, and what the result says of it.
FACTS = (
    "level",
    "device",
    "device_name",
    "capability",
    "dtype",
    "versions",
    "load_seconds",
    "peak_memory_bytes",
    "effect",
    "distances",
    "permitted",
    "notes",
    "limited_by",
    "checks",
)


@dataclasses.dataclass
class Case:
    """One adapter to test: what is known of it before, and C(facts), what the test found."""

    declared: Declaration
    base: dict[str, t.Any]
    paths: AdapterPaths
    manifest: Manifest
    required: str
    least: str
    golden: t.Optional[Golden]
    directory: t.Optional[str]
    base_digest: str
    receipt: t.Optional[dict[str, t.Any]]
    notes: list[str] = dataclasses.field(default_factory=list)
    facts: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    passed: bool = False
    from_receipt: bool = False
    # What was loaded spoke against it.
    refuted: bool = False

    @property
    def subject(self) -> str:
        return f"adapter {self.declared.name}"

    def result(self) -> dict[str, t.Any]:
        """What the module returns of it."""
        return {
            "name": self.declared.name,
            "release": self.manifest.release,
            "required_level": self.required,
            "from_receipt": self.from_receipt,
            **{fact: self.facts.get(fact) for fact in FACTS},
            "versions": self.facts.get("versions") or {},
            "notes": self.facts.get("notes") or self.notes,
            "checks": self.facts.get("checks") or [],
        }

    @property
    def golden_digest(self) -> t.Optional[str]:
        return None if self.golden is None else digest_of(self.manifest.golden)

    def stands(self, level: str, environment_digest: t.Optional[str]) -> bool:
        """Whether its receipt is of this level, this base and, where anything is loaded, this environment and golden."""
        receipt = self.receipt
        if receipt is None or receipt.get("base") != self.base_digest or not reaches(receipt["level"], level):
            return False
        if level == "golden" and receipt.get("golden") != self.golden_digest:
            return False
        return level == "structure" or receipt.get("environment") == environment_digest

    def tells_more(self, level: str, environment_digest: t.Optional[str]) -> bool:
        """Whether a test that reaches this level tells more than the receipt, which must stand for all that it says itself."""
        receipt = self.receipt
        return receipt is None or not (reaches(receipt["level"], level) and self.stands(receipt["level"], environment_digest))

    def target(self, directory: str) -> Target:
        """What is to be loaded of it."""
        return Target(
            name=self.declared.name,
            directory=directory,
            weights_file=self.manifest.weights_file,
            level=self.required,
            base_config=self.base.get("config"),
            base_path=self.base.get("path") or None,
            allow_pickle=self.declared.allow_pickle,
            questions=self.golden.questions if self.golden else None,
        )


def cases_of(params: dict[str, t.Any]) -> tuple[list[Case], list[Problem]]:
    """The cases of all rows of the inventory, and what is wrong with the rest. Raises DeliveryError for a bad manifest."""
    manifests = None
    if params["manifests"] is not None:
        manifests = {manifest.name: manifest for manifest in map(Manifest.from_text, params["manifests"])}
    cases: list[Case] = []
    problems: list[Problem] = []
    for row in params["adapters"]:
        with collected(problems, row["name"]):
            cases.append(_case_of(params, row, manifests))
    return cases, problems


def _case_of(params: dict[str, t.Any], row: dict[str, t.Any], manifests: t.Optional[dict[str, Manifest]]) -> Case:
    """What is to be tested for one row of the inventory. Raises DeliveryError."""
    known = with_config({row["base"]: params["bases"].get(row["base"]) or {}})[row["base"]]
    declared = Declaration.from_row(row, known)
    subject = f"adapter {declared.name}"
    paths = AdapterPaths(params["models_dir"], params["store"], declared.name)
    manifest = _manifest_of(paths, manifests)
    required = params["level"]
    if required == "available":
        required = "adapter" if not known.get("path") else "model" if manifest.golden is None else "golden"
    least = params["minimum_level"] or required
    if not reaches(required, least):
        required = least
    if reaches(required, "model") and not known.get("path"):
        raise DeliveryError.of(
            subject,
            f"cannot reach level {required}: base {declared.base} has no path on this host.",
            "Set the base's path in the inventory, or ask for level adapter.",
        )
    if required == "adapter" and not known.get("path") and not known.get("config"):
        raise DeliveryError.of(
            subject,
            f"cannot reach level adapter: of base {declared.base} neither path nor config is known.",
            "Put one of them into the inventory, or ask for level structure.",
        )
    places = (paths.release(manifest.release), paths.staged(manifest.release))
    return Case(
        declared=declared,
        base=known,
        paths=paths,
        manifest=manifest,
        required=required,
        least=least,
        golden=golden_of(manifest) if required == "golden" else None,
        directory=next((place for place in places if os.path.isdir(place)), None),
        # What was only reported is not to stand where it would be refused.
        base_digest=digest_of([base_fingerprint(known), manifest.base, params["base_binding"]]),
        receipt=read_receipt(paths, manifest.release),
    )


def _manifest_of(paths: AdapterPaths, manifests: t.Optional[dict[str, Manifest]]) -> Manifest:
    """The manifest that was given for an adapter, or else the recorded one of its active release. Raises DeliveryError."""
    if manifests is not None:
        if paths.name not in manifests:
            raise DeliveryError.of(
                f"adapter {paths.name}", "has no manifest among those given.", "Describe it with adapter_info first."
            )
        return manifests[paths.name]
    active = read_state(paths).active
    if active is None:
        raise DeliveryError.of(f"adapter {paths.name}", "has no active release on this host.", "Deploy it first.")
    manifest = paths.read_manifest(active)
    if manifest is None:
        raise DeliveryError.of(f"adapter {paths.name}", f"has no manifest of its active release {active}.", "Deploy it again.")
    return manifest


def keep_receipt(case: Case, environment_digest: t.Optional[str]) -> None:
    """Write down what was found. Raises DeliveryError."""
    bound = {"environment": environment_digest, "base": case.base_digest, "golden": case.golden_digest}
    receipt = {**{fact: case.result()[fact] for fact in FACTS}, **bound}
    try:
        make_store(case.paths)
        write_receipt(case.paths, case.manifest.release, receipt)
    except OSError as exc:
        problem = f"passed, but its receipt cannot be written: {exc}."
        raise DeliveryError.of(case.subject, problem, "Run with become, and look for space in the store.") from exc


def withdraw_receipt(case: Case) -> None:
    """Take an earlier receipt away, which must not let it pass the next time. Raises DeliveryError."""
    try:
        os.unlink(case.paths.receipt(case.manifest.release))
    except OSError as exc:
        problem = f"failed, but its earlier receipt cannot be removed: {exc}."
        raise DeliveryError.of(case.subject, problem, "Run with become, and mount the store writable.") from exc


def diff_of(cases: list[Case], after: t.Callable[[Case], str]) -> dict[str, str]:
    """The receipts of cases before, and C(after) in words."""

    def text(words: t.Callable[[Case], str]) -> str:
        return "".join(f"{case.declared.name} {case.manifest.release}: {words(case)}\n" for case in cases)

    return {
        "before_header": "receipts",
        "after_header": "receipts",
        "before": text(lambda case: said(case.receipt)),
        "after": text(after),
    }


def said(receipt: t.Optional[dict[str, t.Any]]) -> str:
    """A receipt in a few words, for the diff."""
    if receipt is None:
        return "not tested"
    packages = " ".join(f"{name} {version}" for name, version in sorted(receipt["versions"].items()))
    return " ".join(filter(None, (f"level {receipt['level']}", receipt.get("device"), receipt.get("device_name"), packages)))
