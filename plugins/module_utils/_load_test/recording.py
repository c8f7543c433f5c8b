# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""One adapter whose golden is recorded: what it is to answer, the golden that is there, and the one that comes of it."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._adapter.declaration import Declaration
from .._adapter.describe import describe
from .._adapter.hash_cache import cache_path
from .._adapter.manifest import Manifest
from .._base.config import with_config
from .._base.identity import Identities, differences
from .._errors import DeliveryError, Problem
from .._files import write_json
from .._golden.golden import (
    Golden,
    distances,
    golden_path,
    permitted,
    read_golden,
)
from .._hashing import digest_of
from .._time import now
from .launch import LoadTest
from .request import Target

# How many tokens are compared at each position, with the adapter and without it.
_TOP = 20
# Along the tokens of fewer answers noise is not told from what is wrong.
_LEAST_PROMPTS = 4


@dataclasses.dataclass
class Recording:
    """One adapter: what it is, what it is to answer, the golden that is there and the one that was recorded now."""

    declared: Declaration
    directory: str
    manifest: Manifest
    base_path: str
    base: dict[str, t.Any]
    prompts: list[t.Any]
    prompts_digest: str
    before: t.Optional[Golden]
    due: bool
    recorded: t.Optional[Golden] = None

    @property
    def subject(self) -> str:
        return f"adapter {self.declared.name}"

    def target(self, length: int) -> Target:
        """What is to be loaded of it, and asked."""
        return Target(
            name=self.declared.name,
            directory=self.directory,
            weights_file=self.manifest.weights_file,
            level="model",
            base_config=None,
            base_path=self.base_path,
            allow_pickle=self.declared.allow_pickle,
            recording={"prompts": self.prompts, "length": length, "top": _TOP},
        )

    def result(self, golden_dir: str) -> dict[str, t.Any]:
        """What the module returns of it."""
        golden = self.recorded if self.due else self.before
        return {
            "name": self.declared.name,
            "release": self.manifest.release,
            "action": "recorded" if self.due else "kept",
            "path": golden_path(golden_dir, self.declared.name, self.manifest.release),
            "positions": golden and golden.positions,
            **{key: golden and getattr(golden, key) for key in ("recorded", "noise", "permitted")},
        }


def recording_of(params: dict[str, t.Any], row: dict[str, t.Any], identities: Identities, remember: bool) -> Recording:
    """What is to be recorded for one row of the inventory. Raises DeliveryError."""
    base = with_config({row["base"]: params["bases"].get(row["base"]) or {}})[row["base"]]
    declared = Declaration.from_row(row, base)
    subject = f"adapter {declared.name}"
    prompts = _prompts_of(subject, params["prompts"].get(declared.name))
    identity = identities.at(base.get("path"))
    if identity is None:
        raise DeliveryError.of(
            subject,
            f"cannot be recorded: base {declared.base} has no path on this host.",
            "Set the base's path for the training server (training_bases).",
        )
    directory = os.path.join(params["models_dir"], declared.name)
    manifest = describe(directory, declared, {}, cache_path(params["cache_dir"], directory), remember).manifest
    prompts_digest = digest_of([prompts, params["length"]])
    try:
        before = read_golden(params["golden_dir"], manifest)
    except DeliveryError:
        # Of another form, or damaged: it is recorded anew.
        before = None
    stands = before is not None and before.prompts == prompts_digest and not differences(before.base, identity)[0]
    return Recording(
        declared=declared,
        directory=directory,
        manifest=manifest,
        base_path=base["path"],
        base=identity,
        prompts=prompts,
        prompts_digest=prompts_digest,
        before=before,
        due=params["force"] or not stands,
    )


def keep(params: dict[str, t.Any], recording: Recording, outcome: LoadTest) -> None:
    """Write down what was recorded of one adapter. Raises DeliveryError."""
    name = recording.declared.name
    if name not in outcome.reports:
        raise DeliveryError.of(recording.subject, "was not recorded, because the run broke off.", "The cause stands above.")
    golden = _golden_from(recording, outcome.reports[name], outcome.versions)
    # What answered must be what the digest was made of.
    cache = cache_path(params["cache_dir"], recording.directory)
    if describe(recording.directory, recording.declared, {}, cache).manifest.digest != golden.digest:
        remedy = "Wait until the training has ended, record again."
        raise DeliveryError.of(recording.subject, "changed while it was recorded.", remedy)
    path = golden_path(params["golden_dir"], name, recording.manifest.release)
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        write_json(path, golden.to_json())
    except OSError as exc:
        raise DeliveryError.of(path, f"cannot be written: {exc.strerror}.", "Correct training_golden_dir.") from exc
    recording.recorded = golden


def said(recording: Recording, after: bool) -> str:
    """One line of the diff."""
    words = "no golden"
    if after:
        words = f"a golden of {len(recording.prompts)} prompts"
    elif recording.before is not None:
        words = f"a golden recorded at {recording.before.recorded['at']} on {recording.before.recorded['device_name']}"
    return f"{recording.declared.name} {recording.manifest.release}: {words}\n"


def _prompts_of(subject: str, prompts: t.Any) -> list[t.Any]:
    """The prompts as they were given, known to be of a form that can be asked. Raises DeliveryError."""
    given = prompts if isinstance(prompts, list) else []
    if len(given) < _LEAST_PROMPTS:
        raise DeliveryError.of(
            subject,
            f"has {len(given) or 'no'} prompt(s), {_LEAST_PROMPTS} or more are needed.",
            "Give it more in the inventory (agent_prompts), of the kind that it was trained for.",
        )
    for prompt in given:
        words = list(prompt.values()) if isinstance(prompt, dict) else [prompt]
        keys = set(prompt) if isinstance(prompt, dict) else {"user"}
        if not {"user"} <= keys <= {"user", "system"} or not all(isinstance(word, str) and word for word in words):
            remedy = "Give a text, or a dictionary with user and perhaps system."
            raise DeliveryError.of(subject, f"has a prompt of an unknown form: {prompt!r}.", remedy)
    return given


def _golden_from(recording: Recording, report: dict[str, t.Any], versions: dict[str, str]) -> Golden:
    """The golden that a report of the child holds. Raises DeliveryError when there is none, or it is of no use."""
    subject, where = recording.subject, f"on {report['device']}"
    if report["problems"]:
        raise DeliveryError(
            *(Problem(subject, f"was not recorded {where}: {one['problem']}", one["remedy"]) for one in report["problems"])
        )
    if report["recorded"] is None:
        remedy = f"Make room on {report['device']}, or name another device."
        raise DeliveryError.of(subject, f"was not recorded {where}: {report['limited_by']}", remedy)
    found = report["recorded"]
    # The same kernel once more gives the same bits; a model that has no other kernel tells nothing of its noise.
    noise = {found["other_attention"]: distances(found["answer"], found["other"])} if found["other"] else {}
    try:
        limits = permitted(list(noise.values()))
    except DeliveryError as exc:
        raise DeliveryError(*(dataclasses.replace(one, subject=f"golden of {subject}") for one in exc.problems)) from None
    return Golden(
        name=recording.declared.name,
        digest=recording.manifest.digest,
        prompts=recording.prompts_digest,
        base=recording.base,
        recorded={
            "at": now(),
            "device": report["device"],
            "device_name": report["device_name"],
            "dtype": report["dtype"],
            "attention": found["attention"],
            "versions": {**versions, **({"driver": report["driver"]} if report.get("driver") else {})},
        },
        questions=found["questions"],
        answer=found["answer"],
        noise={name: one.to_json() for name, one in noise.items()},
        permitted=limits,
    )
