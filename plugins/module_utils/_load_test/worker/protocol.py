# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The messages to and from the load test's worker process.

The node and the worker both import this file, so it needs the standard library only. These classes
travel as JSON: the request in the file ``request.json``, the result as lines in a file without a
name, whose descriptor the worker inherits.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t


@dataclasses.dataclass(frozen=True)
class Recording:
    """How to record a golden: at most ``length`` tokens are recorded of the answer to each prompt.

    ``top`` is how many of the likeliest tokens are compared at each position, with the adapter and
    without it.
    """

    prompts: list[t.Any]
    length: int
    top: int


@dataclasses.dataclass(frozen=True)
class Original:
    """The adapter that a folded one was made of."""

    directory: str
    weights_file: str


@dataclasses.dataclass(frozen=True)
class Target:
    """One adapter to load.

    ``level`` is adapter, model or golden. ``base_path`` is the directory of the base with its
    weights; ``base_config`` suffices for level adapter. Level golden needs ``questions``, see
    ``golden_level``. With ``recording`` a golden is recorded once level model is reached, and with
    ``original`` the logits are compared with those of that adapter.
    """

    name: str
    directory: str
    weights_file: str
    level: str
    base_config: dict[str, t.Any] | None
    base_path: str | None
    allow_pickle: bool
    questions: list[dict[str, t.Any]] | None = None
    recording: Recording | None = None
    original: Original | None = None


@dataclasses.dataclass(frozen=True)
class Request:
    """The work requested from the worker, in the form of ``request.json``.

    ``memory_limit`` is the number of bytes of the device that may be used. ``dtype`` and
    ``attention`` are those of the bases, by default what suits the device.
    """

    device: str
    packages: tuple[str, ...]
    targets: tuple[Target, ...]
    memory_limit: int | None = None
    dtype: str | None = None
    attention: str | None = None

    @classmethod
    def from_json(cls, data: dict[str, t.Any]) -> Request:
        """Build a request from parsed JSON."""
        targets = []
        for target in data["targets"]:
            recording = target["recording"] and Recording(**target["recording"])
            original = target["original"] and Original(**target["original"])
            targets.append(Target(**{**target, "recording": recording, "original": original}))
        return cls(**{**data, "packages": tuple(data["packages"]), "targets": tuple(targets)})


@dataclasses.dataclass
class LoadTestResult:
    """The facts of a load test that module results, receipts and reports share."""

    level: str | None = None
    device: str | None = None
    device_name: str | None = None
    capability: str | None = None
    dtype: str | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    load_seconds: float | None = None
    peak_memory_bytes: int | None = None
    effect: float | None = None
    distances: dict[str, float] | None = None
    permitted: dict[str, float] | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    limited_by: str | None = None
    checks: list[str] = dataclasses.field(default_factory=list)
    # The node knows it; what the worker says does not count.
    isolation: list[str] | None = None

    def to_json(self) -> dict[str, t.Any]:
        """Return the facts as a dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_receipt(cls, receipt: dict[str, t.Any]) -> LoadTestResult:
        """Read the facts back from a receipt; what it lacks is unknown."""
        found = {field.name: receipt.get(field.name) for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in found.items() if value is not None})


@dataclasses.dataclass(frozen=True)
class Failure:
    """One failed check of an adapter or its base, and the remedy."""

    problem: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Logits of a folded adapter and of its original.

    ``difference`` is the largest difference between the two. ``largest`` is the largest logit of
    the original, of either sign, and ``change`` the most that it changes a logit of the base.
    """

    difference: float
    largest: float
    change: float


@dataclasses.dataclass
class Report:
    """The worker's findings about one adapter.

    ``passed`` means that the level of the target was reached. ``answer`` is the answer to the
    questions of level golden, ``recorded`` a recorded golden; ``golden_level`` describes both.
    ``compared`` is the comparison with the original. ``warnings`` are those of PEFT.
    """

    result: LoadTestResult = dataclasses.field(default_factory=LoadTestResult)
    passed: bool = False
    failures: list[Failure] = dataclasses.field(default_factory=list)
    answer: dict[str, t.Any] | None = None
    recorded: dict[str, t.Any] | None = None
    compared: Comparison | None = None
    warnings: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def from_json(cls, data: dict[str, t.Any]) -> Report:
        """Build a report from parsed JSON. Raises TypeError or KeyError for another form."""
        failures = [Failure(**failure) for failure in data["failures"]]
        compared = data["compared"] and Comparison(**data["compared"])
        return cls(**{**data, "result": LoadTestResult(**data["result"]), "failures": failures, "compared": compared})


@dataclasses.dataclass(frozen=True)
class OpenedDevice:
    """The device that a worker computes on. ``free_bytes`` is None if it is unknown."""

    device: str
    device_name: str | None
    free_bytes: int | None


@dataclasses.dataclass(frozen=True)
class RunError:
    """Why nothing could be tested: ``kind`` is package, import, cuda or memory."""

    kind: str
    detail: str


@dataclasses.dataclass
class RunResult:
    """The result of the worker.

    ``reports`` has the adapters that were tested, by name. ``current`` is the adapter under test,
    for the message about a crash. ``device`` is set once the device has computed something.
    """

    reports: dict[str, Report] = dataclasses.field(default_factory=dict)
    current: str | None = None
    error: RunError | None = None
    device: OpenedDevice | None = None
    seconds: float = 0.0

    @classmethod
    def from_json(cls, data: dict[str, t.Any]) -> RunResult:
        """Build a result from parsed JSON.

        Raises TypeError, KeyError or AttributeError for another form.
        """
        reports = {name: Report.from_json(report) for name, report in data["reports"].items()}
        device = data.get("device") and OpenedDevice(**data["device"])
        return cls(**{**data, "reports": reports, "error": data["error"] and RunError(**data["error"]), "device": device})

    @classmethod
    def from_lines(cls, text: bytes) -> RunResult:
        """Build a result from the lines of ``Lines``, of which the last one may be incomplete.

        Raises ValueError for what is not JSON, and see ``from_json``.
        """
        result = cls()
        for line in text.split(b"\n")[:-1]:
            newer = cls.from_json(json.loads(line))
            result = dataclasses.replace(newer, reports={**result.reports, **newer.reports})
        return result


class Lines:
    """Writes the result again and again, each time as a line without the reports written before."""

    def __init__(self, stream: t.TextIO) -> None:
        self._stream = stream
        self._written: dict[str, Report] = {}

    def write(self, result: RunResult) -> None:
        new = {name: report for name, report in result.reports.items() if self._written.get(name) is not report}
        json.dump(dataclasses.asdict(dataclasses.replace(result, reports=new)), self._stream)
        self._stream.write("\n")
        self._stream.flush()
        self._written.update(new)
