# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Make the folded form of an adapter on the training server, and compare it with the original."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import typing as t

from .._adapter.declaration import Declaration
from .._adapter.describe import Description, describe
from .._adapter.file_selection import changed
from .._adapter.files import CONFIG_FILE, SAFETENSORS_FILE
from .._adapter.hash_cache import cache_path
from .._adapter.manifest import MadeOf, Manifest
from .._errors import DeliveryError, Problem, collected
from .._files import copy_file, fsync_directory
from .._formats.safetensors import open_header
from .._hashing import sha256_of_all
from .._load_test.child import INSTALL_PEFT, private_directory, run_python
from .._load_test.launch import WorkerRun, run_worker
from .._load_test.loading_user import LOADED_AS_ROOT
from .._load_test.program import write_program
from .._load_test.worker import fold as worker
from .._load_test.worker.protocol import Comparison, Original, Target
from .fold_plan import FoldPlan, plan_fold
from .folded_directory import FoldedDirectory, Record

# The most that logits may differ in float32, and the same for large ones: sums in another order
# were measured to differ by 4e-6 of the largest logit.
_LOGITS, _OF_LARGEST = 1e-4, 1e-5
# The largest relative error of a value that is rounded to a dtype. Rounding all values changed
# logits by up to 1.2 times this part of what the adapter changes; layers may amplify it further.
_ROUNDING = {"F32": 0.0, "BF16": 2.0**-8, "F16": 2.0**-11}
_AMPLIFIED = 8
_TIMEOUT = 3600
_SET_BASE = "Set the path of the base in bases (variable training_bases), or deliver the adapter as trained."


@dataclasses.dataclass
class FoldedAdapter:
    """A folded adapter: where it is or, in check mode, will be, and what is known of it.

    ``made`` is whether this run has folded it.
    """

    original: Manifest
    original_directory: str
    declared: Declaration
    place: FoldedDirectory
    description: Description
    record: Record
    made: bool

    @property
    def manifest(self) -> Manifest:
        """Its manifest, with what belongs to the original: golden, base and versions."""
        of_original = {key: getattr(self.original, key) for key in ("golden", "base", "versions")}
        return dataclasses.replace(self.description.manifest, **of_original, made_of=self.record.made_of)

    @property
    def notes(self) -> list[str]:
        """What is unusual about it."""
        made_of, notes = self.record.made_of, []
        if self.record.not_compared:
            notes.append(f"The folded adapter was not compared with the original: {self.record.not_compared}")
        elif made_of.rounded and made_of.difference is not None and not self._is_float32:
            notes.append(
                f"Folding has rounded {made_of.rounded} values to the dtype of the file, which changes logits by up to"
                f" {made_of.difference:.1e}."
            )
        return notes

    @property
    def _is_float32(self) -> bool:
        return all(tensor.dtype == "F32" for tensor in self.description.manifest.tensors)

    def target(self) -> Target:
        """Return what the worker has to load and compare."""
        return Target(
            name=f"{self.declared.name} ({self.record.made_of.form})",
            directory=self.place.path,
            weights_file=SAFETENSORS_FILE,
            level="model",
            base_config=None,
            base_path=self.declared.base_path,
            allow_pickle=False,
            original=Original(self.original_directory, SAFETENSORS_FILE),
        )

    def permitted(self, found: Comparison) -> float:
        """Return the largest permitted difference of the logits."""
        noise = max(_LOGITS, _OF_LARGEST * found.largest)
        if not self.record.made_of.rounded:
            return noise
        rounding = max(_ROUNDING[tensor.dtype] for tensor in self.description.manifest.tensors)
        return noise + _AMPLIFIED * rounding * found.change


@dataclasses.dataclass(frozen=True)
class Folding:
    """How adapters are folded on this host.

    ``python`` is the interpreter of the training environment. ``scratch`` is a directory for
    temporary files. Without ``write``, as in check mode, an adapter is folded into it and described
    there.
    """

    python: str | None
    cache_dir: str
    scratch: str
    write: bool

    def fold(self, original: Manifest, described: Description, directory: str, declared: Declaration) -> FoldedAdapter:
        """Return the folded form of a described adapter; makes it if it is not there.

        Raises DeliveryError.
        """
        plan = plan_fold(original, declared.form)
        place = FoldedDirectory(self.cache_dir, declared.name, original.release, declared.form)
        make = _Making(self, plan, original, described, directory, declared)
        found = make.existing(place)
        if found is not None:
            return found
        if not self.python:
            raise DeliveryError.of(
                "",
                "cannot be folded without the interpreter of the training environment, whose numpy does it.",
                "Set python (variable training_python), or deliver the adapter as trained.",
            )
        try:
            if not self.write:
                with tempfile.TemporaryDirectory(dir=self.scratch) as temporary:
                    return make.in_directory(temporary, place)
            with place.making():
                # Another run may have made it while this one waited.
                return make.existing(place) or make.in_place(place)
        except OSError as exc:
            raise _not_written(place, exc) from exc

    def compare_new(self, folded: t.Sequence[FoldedAdapter], problems: list[Problem], warnings: list[str]) -> list[FoldedAdapter]:
        """Compare each adapter that was not compared yet with its original.

        One process of the interpreter loads them all. Returns the adapters without those that
        differ, or that are rounded and could not be compared, and adds the problems of these, and
        warnings.
        """
        new = [one for one in folded if one.record.made_of.difference is None]
        obstacles = {id(one): self._obstacle(one) for one in new}
        targets = [one.target() for one in new if not obstacles[id(one)]]
        outcome = None
        if targets:
            outcome = run_worker(str(self.python), "cpu", targets, _TIMEOUT, self.scratch, dtype="float32")
        accepted = []
        for one in folded:
            with collected(problems, one.declared.name):
                if one in new:
                    _complete(one, obstacles[id(one)] or t.cast(WorkerRun, outcome))
                accepted.append(one)
        if targets and os.geteuid() == 0:
            warnings.append(LOADED_AS_ROOT)
        return accepted

    def _obstacle(self, folded: FoldedAdapter) -> str | None:
        """Return why an adapter cannot be compared, if that is known before it is loaded."""
        if not folded.declared.base_path:
            return f"base {folded.declared.base} has no path on this host."
        if not self.python:
            return "python is not set."
        return folded.record.not_compared


@dataclasses.dataclass(frozen=True)
class _Making:
    """One adapter that is folded."""

    folding: Folding
    plan: FoldPlan
    original: Manifest
    described: Description
    directory: str
    declared: Declaration

    def existing(self, place: FoldedDirectory) -> FoldedAdapter | None:
        """Return the adapter that an earlier run has made, if it is intact."""
        record = place.read(self.original.digest, self.plan.form)
        if record is None:
            return None
        if record.made_of.rounded and record.made_of.difference is None:
            self._require_base()
        with contextlib.suppress(DeliveryError):
            found = self._describe(place.path)
            if found.manifest.digest == record.digest:
                return self._folded(place, found, record, made=False)
        return None

    def in_place(self, place: FoldedDirectory) -> FoldedAdapter:
        """Make the adapter. The caller holds the lock. Raises DeliveryError, OSError."""
        with place.replaced() as directory:
            made_of = self._make(directory)
        found = self._describe(place.path)
        record = Record(made_of, found.manifest.digest)
        place.write(record)
        place.remove_old()
        return self._folded(place, found, record, made=True)

    def in_directory(self, directory: str, place: FoldedDirectory) -> FoldedAdapter:
        """Make the adapter in another directory, which is then removed."""
        made_of = self._make(directory)
        found = self._describe(directory)
        return self._folded(place, found, Record(made_of, found.manifest.digest), made=False)

    def _folded(self, place: FoldedDirectory, found: Description, record: Record, made: bool) -> FoldedAdapter:
        return FoldedAdapter(self.original, self.directory, self.declared, place, found, record, made)

    def _describe(self, directory: str) -> Description:
        cache = cache_path(self.folding.cache_dir, directory)
        return describe(directory, self.declared.folded(), {}, cache, self.folding.write)

    def _path(self, name: str) -> str:
        """Return where a file of the original is read."""
        return self.described.links.get(name, os.path.join(self.directory, name))

    def _make(self, directory: str) -> MadeOf:
        """Write all files of the folded adapter. Raises DeliveryError, OSError."""
        plan = self.plan
        if not plan.exact:
            self._require_base()
        folded = self._fold_weights(plan, directory)
        if folded.inexact is not None:
            plan = plan.in_float32()
            self._require_base()
            os.unlink(os.path.join(directory, SAFETENSORS_FILE))
            folded = self._fold_weights(plan, directory)
        if folded.too_large is not None:
            problem = f"cannot be folded: a value of {folded.too_large} times its factor is too large for the dtype."
            remedy = "Deliver it as trained" + (", or folded in float32 (form folded)." if plan.keeps_dtype else ".")
            raise DeliveryError.of("", problem, remedy)
        weights = next(entry for entry in self.original.files if entry.path == SAFETENSORS_FILE)
        if folded.sha256 != weights.sha256:
            raise changed(self.directory, self.declared)
        with open(os.path.join(directory, CONFIG_FILE), "w", encoding="utf-8") as stream:
            stream.write(plan.config_text())
            stream.flush()
            os.fsync(stream.fileno())
        self._copy_others(directory)
        return MadeOf(self.original.digest, plan.form, plan.factors, folded.rounded)

    def _require_base(self) -> None:
        """Raise DeliveryError if nothing could show what the rounding of values changes."""
        if not self.declared.base_path:
            raise DeliveryError.of(
                "",
                "cannot be folded: its values would be rounded, and without the base on this host the result cannot be"
                " compared with the original.",
                _SET_BASE,
            )

    def _fold_weights(self, plan: FoldPlan, directory: str) -> worker.Folded:
        """Have the interpreter write the weights. Raises DeliveryError."""
        source = self._path(SAFETENSORS_FILE)
        with open_header(source) as (_prefix, header, _stream):
            if {(info.name, info.dtype, info.shape) for info in header.tensors} != {
                (tensor.name, tensor.dtype, tensor.shape) for tensor in plan.tensors
            }:
                raise changed(self.directory, self.declared)
            request = plan.request(source, os.path.join(directory, SAFETENSORS_FILE), header)
        python = str(self.folding.python)
        with private_directory(self.folding.scratch, None) as private:
            script = write_program(private, worker)
            paths = [os.path.join(private, name) for name in ("fold.json", "folded.json")]
            with open(paths[0], "w", encoding="utf-8") as stream:
                json.dump(dataclasses.asdict(request), stream)
            # The folded weights have the size of the adapter's.
            child = run_python(python, ["-I", "-B", script, *paths], private, _TIMEOUT, largest_file=None)
            try:
                with open(paths[1], encoding="utf-8") as stream:
                    folded = worker.Folded(**json.load(stream))
            except (OSError, ValueError, TypeError):
                raise DeliveryError.of(
                    python,
                    f"has not folded the adapter: {child.ending}.{child.stderr_tail}",
                    "Look into these lines for the cause.",
                ) from None
        if folded.missing:
            raise DeliveryError.of(python, f"has no {folded.missing}, which folding needs.", INSTALL_PEFT)
        return folded

    def _copy_others(self, directory: str) -> None:
        """Copy the files that stay as they are, and check that they are those of the manifest."""
        entries = [entry for entry in self.original.files if entry.path not in (CONFIG_FILE, SAFETENSORS_FILE)]
        for subdirectory in self.original.directories:
            os.mkdir(os.path.join(directory, subdirectory), 0o755)
        copies = [os.path.join(directory, entry.path) for entry in entries]
        for entry, copy in zip(entries, copies):
            copy_file(self._path(entry.path), copy)
        if sha256_of_all(copies, fsync=True) != [(entry.size, entry.sha256) for entry in entries]:
            raise changed(self.directory, self.declared)
        for path in (*copies, *(os.path.join(directory, name) for name in (CONFIG_FILE, SAFETENSORS_FILE))):
            os.chmod(path, 0o644)
        for subdirectory in (*self.original.directories, "."):
            fsync_directory(os.path.join(directory, subdirectory))


def _complete(folded: FoldedAdapter, outcome: WorkerRun | str) -> None:
    """Complete the record of an adapter with the outcome, or the obstacle, of its comparison.

    Raises DeliveryError if it differs from its original, or if it is rounded and was not compared.
    """
    if isinstance(outcome, str):
        difference, reason, remedy = None, outcome, _SET_BASE
    else:
        difference, reason, remedy = _compared(folded, outcome)
    made_of = dataclasses.replace(folded.record.made_of, difference=difference)
    if reason and made_of.rounded:
        raise DeliveryError.of("", f"was rounded when it was folded, and not compared with the original: {reason}", remedy)
    folded.record = dataclasses.replace(folded.record, made_of=made_of, not_compared=reason or None)
    # A missing package, or a base, may be there the next time. Too little memory is tried once.
    if not isinstance(outcome, str) and not outcome.problems:
        try:
            folded.place.write(folded.record)
        except OSError as exc:
            raise _not_written(folded.place, exc) from exc


def _compared(folded: FoldedAdapter, outcome: WorkerRun) -> tuple[float | None, str, str]:
    """Return the difference of the logits or, if there is none, the reason and the remedy.

    Raises DeliveryError if they differ by more than is permitted.
    """
    report = outcome.reports.get(folded.target().name)
    if report is None:
        cause = outcome.problems[0]
        return None, f"{cause.full_subject} {cause.problem}", cause.remedy
    if report.failures:
        problems = [Problem("", f"was folded, and then: {one.problem}", one.remedy) for one in report.failures]
        raise DeliveryError(*problems)
    found = report.compared
    if found is None:
        return None, str(report.result.limited_by), "Free memory on this host, or deliver the adapter as trained."
    limit = folded.permitted(found)
    # Not "more than", which a difference that is no number never is.
    if not found.difference <= limit:
        problem = f"answers otherwise when it is folded: logits differ by {found.difference:.1e}, permitted is {limit:.1e}."
        raise DeliveryError.of("", problem, "Deliver it as trained, and report this with its adapter_config.json.")
    return found.difference, "", ""


def _not_written(place: FoldedDirectory, exc: OSError) -> DeliveryError:
    return DeliveryError.of(place.path, f"cannot be written: {exc}.", "Correct cache_dir, or free space there.")
