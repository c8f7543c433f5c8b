# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Record goldens on the training server: the work of module adapter_golden."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._adapter.declaration import Declaration
from .._adapter.describe import describe
from .._adapter.file_selection import source_directory
from .._adapter.hash_cache import cache_path
from .._adapter.manifest import Manifest
from .._base.config import with_config
from .._base.identity import Identities, differences
from .._errors import DeliveryError, Problem, about, collected
from .._files import write_json
from .._forms import AS_TRAINED
from .._golden.comparison import distances, permitted
from .._golden.golden import Golden, golden_path, read_golden
from .._hashing import digest_of
from .._time import now
from .launch import WorkerRun, run_worker
from .options import check_device
from .worker.protocol import Recording, Report, Target

# How many tokens are compared at each position, with the adapter and without it.
_TOP = 20
# With fewer answers, noise cannot be distinguished from faults.
_MINIMUM_PROMPTS = 4


@dataclasses.dataclass(frozen=True)
class RecordingOptions:
    """The options of module adapter_golden, by their names."""

    adapters: list[dict[str, t.Any]]
    bases: dict[str, t.Any]
    models_dir: str
    cache_dir: str
    golden_dir: str
    link_dirs: list[str]
    prompts: dict[str, t.Any]
    length: int
    python: str
    device: str
    dtype: str | None
    timeout: int
    memory_limit: int | None
    force: bool

    @classmethod
    def from_params(cls, params: dict[str, t.Any]) -> RecordingOptions:
        """Build the options from the module's parameters.

        Raises DeliveryError if they cannot work.
        """
        check_device(params["device"])
        if params["length"] < 1:
            raise DeliveryError.of(f"length is {params['length']}", "expected 1 or more.")
        return cls(**{field.name: params[field.name] for field in dataclasses.fields(cls)})


@dataclasses.dataclass
class GoldenRecording:
    """The golden of one adapter: the existing one, whether it is outdated, and the new one."""

    declared: Declaration
    directory: str
    manifest: Manifest
    base_path: str
    base: dict[str, t.Any]
    prompts: list[t.Any]
    prompts_digest: str
    before: Golden | None
    outdated: bool
    recorded: Golden | None = None

    def target(self, length: int) -> Target:
        """Return what the worker has to load and record."""
        return Target(
            name=self.declared.name,
            directory=self.directory,
            weights_file=self.manifest.weights_file,
            level="model",
            base_config=None,
            base_path=self.base_path,
            allow_pickle=self.declared.allow_pickle,
            recording=Recording(self.prompts, length, _TOP),
        )

    def to_json(self, golden_dir: str) -> dict[str, t.Any]:
        """Return the entry of the module's result."""
        golden = self.recorded if self.outdated else self.before
        return {
            "name": self.declared.name,
            "release": self.manifest.release,
            "action": "recorded" if self.outdated else "kept",
            "path": golden_path(golden_dir, self.declared.name, self.manifest.release),
            "positions": golden and golden.positions,
            **{key: golden and getattr(golden, key) for key in ("recorded", "noise", "permitted")},
        }

    def describe(self, after: bool) -> str:
        """Return one line of the diff."""
        text = "no golden"
        if after:
            text = f"a golden of {len(self.prompts)} prompts"
        elif self.before is not None:
            text = f"a golden recorded at {self.before.recorded['at']} on {self.before.recorded['device_name']}"
        return f"{self.declared.name} {self.manifest.release}: {text}\n"


def record_goldens(options: RecordingOptions, scratch: str, check_mode: bool) -> tuple[dict[str, t.Any], list[Problem]]:
    """Record all outdated goldens; returns the module's results and the problems.

    ``scratch`` is a directory for temporary files.
    """
    recordings: list[GoldenRecording] = []
    problems: list[Problem] = []
    identities = Identities()
    for row in _distinct(options.adapters):
        with collected(problems, row["name"]):
            recordings.append(find_recording(options, row, identities, write_cache=not check_mode))

    outdated = [recording for recording in recordings if recording.outdated]
    diff = {
        "before_header": "goldens",
        "after_header": "goldens",
        "before": "".join(recording.describe(after=False) for recording in outdated),
        "after": "".join(recording.describe(after=True) for recording in outdated),
    }
    seconds = 0.0
    if outdated and not check_mode:
        targets = [recording.target(options.length) for recording in outdated]
        outcome = run_worker(
            options.python,
            options.device,
            targets,
            options.timeout,
            scratch,
            memory_limit=options.memory_limit,
            dtype=options.dtype,
        )
        problems.extend(outcome.problems)
        seconds = outcome.seconds
        for recording in outdated:
            try:
                with about(recording.declared.name):
                    save_golden(options, recording, outcome)
            except DeliveryError as exc:
                problems.extend(exc.problems)
                recordings.remove(recording)
    results = {
        "changed": any(recording.outdated for recording in recordings),
        "adapters": [recording.to_json(options.golden_dir) for recording in recordings],
        "seconds": seconds,
        "diff": diff,
    }
    return results, problems


def _distinct(rows: t.Sequence[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Return the rows, each once whatever the forms in which its adapter is delivered.

    A golden is recorded of the adapter as trained.
    """
    found: list[dict[str, t.Any]] = []
    for row in rows:
        as_trained = {**row, "form": AS_TRAINED}
        if as_trained not in found:
            found.append(as_trained)
    return found


def find_recording(
    options: RecordingOptions, row: dict[str, t.Any], identities: Identities, write_cache: bool
) -> GoldenRecording:
    """Return the golden to record for one adapter. Raises DeliveryError."""
    base = with_config({row["base"]: options.bases.get(row["base"]) or {}})[row["base"]]
    declared = Declaration.from_row(row, base)
    prompts = _check_prompts(options.prompts.get(declared.name))
    identity = identities.at(base.get("path"))
    if identity is None:
        raise DeliveryError.of(
            "",
            f"cannot be recorded: base {declared.base} has no path on this host.",
            "Set the path of the base in bases.",
        )
    directory = source_directory(options.models_dir, declared, options.link_dirs)
    cache = cache_path(options.cache_dir, directory)
    manifest = describe(directory, declared, {}, cache, write_cache, options.link_dirs).manifest
    prompts_digest = digest_of([prompts, options.length])
    try:
        before = read_golden(options.golden_dir, manifest)
    except DeliveryError:
        # A damaged golden, or one of another form, is recorded again.
        before = None
    current = (
        before is not None
        and before.prompts == prompts_digest
        and options.dtype in (None, before.recorded.get("dtype"))
        and not differences(before.base, identity)[0]
    )
    return GoldenRecording(
        declared=declared,
        directory=directory,
        manifest=manifest,
        base_path=base["path"],
        base=identity,
        prompts=prompts,
        prompts_digest=prompts_digest,
        before=before,
        outdated=options.force or not current,
    )


def save_golden(options: RecordingOptions, recording: GoldenRecording, outcome: WorkerRun) -> None:
    """Write the golden of one adapter. Raises DeliveryError."""
    name = recording.declared.name
    if name not in outcome.reports:
        problem = "was not recorded, because the run was aborted."
        raise DeliveryError.of("", problem, "See the other messages for the cause.")
    golden = _golden_from(recording, outcome.reports[name])
    # The files that were loaded must still match the digest.
    cache = cache_path(options.cache_dir, recording.directory)
    now_there = describe(recording.directory, recording.declared, {}, cache, link_dirs=options.link_dirs)
    if now_there.manifest.digest != golden.digest:
        remedy = "Wait until the training has ended, then record again."
        raise DeliveryError.of("", "changed while it was recorded.", remedy)
    path = golden_path(options.golden_dir, name, recording.manifest.release)
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        write_json(path, golden.to_json())
    except OSError as exc:
        raise DeliveryError.of(path, f"cannot be written: {exc.strerror}.", "Correct golden_dir.") from exc
    recording.recorded = golden


def _check_prompts(prompts: t.Any) -> list[t.Any]:
    """Return the prompts of an adapter, which have a valid form. Raises DeliveryError."""
    given = prompts if isinstance(prompts, list) else []
    if len(given) < _MINIMUM_PROMPTS:
        raise DeliveryError.of(
            "",
            f"has {len(given) or 'no'} prompt{'s' * (len(given) != 1)}; {_MINIMUM_PROMPTS} or more are needed.",
            "Add prompts of the kind that it was trained for to prompts.",
        )
    for prompt in given:
        texts = list(prompt.values()) if isinstance(prompt, dict) else [prompt]
        keys = set(prompt) if isinstance(prompt, dict) else {"user"}
        if not {"user"} <= keys <= {"user", "system"} or not all(isinstance(text, str) and text for text in texts):
            remedy = "Set it to a text, or to a dictionary with user and optionally system."
            raise DeliveryError.of("", f"has a prompt of an unknown form: {prompt!r}.", remedy)
    return given


def _golden_from(recording: GoldenRecording, report: Report) -> Golden:
    """Return the golden from a worker's report.

    Raises DeliveryError if there is none, or it is unusable.
    """
    result = report.result
    where = f"on {result.device}"
    if report.failures:
        raise DeliveryError(*(Problem("", f"was not recorded {where}: {one.problem}", one.remedy) for one in report.failures))
    found = report.recorded
    if found is None:
        remedy = f"Free memory on {result.device}, or set another device."
        raise DeliveryError.of("", f"was not recorded {where}: {result.limited_by}", remedy)
    # The same kernel would compute the same bits. Without a second kernel, the noise is unknown.
    noise = {found["other_attention"]: distances(found["answer"], found["other"])} if found["other"] else {}
    limits = permitted(list(noise.values()))
    return Golden(
        name=recording.declared.name,
        digest=recording.manifest.digest,
        prompts=recording.prompts_digest,
        base=recording.base,
        recorded={
            "at": now(),
            "device": result.device,
            "device_name": result.device_name,
            "dtype": result.dtype,
            "attention": found["attention"],
            "versions": result.versions,
        },
        questions=found["questions"],
        answer=found["answer"],
        noise={name: one.to_json() for name, one in noise.items()},
        permitted=limits,
    )
