# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The golden of a release: the recorded answers of an adapter, and where they are kept."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._adapter.manifest import Manifest
from .._errors import DeliveryError
from .._files import read_json
from .._hashing import SHORT
from .._names import is_release_name
from .._text import first, shown
from .comparison import PERMITTED, Distances, distances, permitted

SCHEMA = 1

# A golden of the default prompts has a few hundred.
MAX_POSITIONS = 20_000
# Recordings keep the 20 likeliest tokens of the base, and as many of the adapter.
MAX_CANDIDATES = 256
# Distances are recorded with four digits, of which the limits are a multiple.
_ROUNDED = 0.001

_RECORD_AGAIN = "Record it again on the training server with adapter_golden."


@dataclasses.dataclass(frozen=True)
class Golden:
    """The golden of the release with ``digest``.

    ``questions`` and ``answer`` are those of level golden (``worker/golden_level``). ``recorded``
    has at, device, device_name, dtype, attention and versions. ``noise`` are the distances between
    two attention kernels of the training server, ``permitted`` those of a node. ``prompts`` is the
    digest of the prompts, ``base`` the identity of the base (``_base/identity``).
    """

    name: str
    digest: str
    prompts: str
    base: dict[str, t.Any]
    recorded: dict[str, t.Any]
    questions: list[dict[str, t.Any]]
    answer: dict[str, t.Any]
    noise: dict[str, dict[str, float]]
    permitted: dict[str, float]

    @property
    def positions(self) -> int:
        """The number of compared tokens."""
        return sum(len(question["tokens"]) for question in self.questions)

    def to_json(self) -> dict[str, t.Any]:
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    def _check_size(self) -> None:
        """Raise DeliveryError if comparing it would take long."""
        tokens = [rows for question in self.questions for rows in question["tokens"]]
        answers = [row for key in ("on", "off") for rows in self.answer[key] for row in rows]
        found = max(len(tokens), len(answers) // 2)
        if found > MAX_POSITIONS:
            raise DeliveryError.of("golden", f"has {found} positions; at most {MAX_POSITIONS} are accepted.", _RECORD_AGAIN)
        most = max(map(len, [*tokens, *answers]))
        if most > MAX_CANDIDATES:
            problem = f"has {most} tokens at one position; at most {MAX_CANDIDATES} are accepted."
            raise DeliveryError.of("golden", problem, _RECORD_AGAIN)

    def _check_permitted(self) -> None:
        """Raise DeliveryError if it permits more than its noise explains, or has too much noise."""
        limits = permitted([Distances.from_json(noise) for noise in self.noise.values()])
        # The direction is permitted down to its limit, the others up to theirs. NaN is neither.
        wider = [
            f"{key} {shown(self.permitted[key])}, expected {limit}"
            for key, limit in limits.items()
            if not (self.permitted[key] >= limit - _ROUNDED if key == "direction" else self.permitted[key] <= limit + _ROUNDED)
        ]
        if wider:
            problem = f"permits more than the noise of the training server explains: {first(wider)}."
            raise DeliveryError.of("golden", problem, _RECORD_AGAIN)

    @classmethod
    def from_json(cls, data: t.Any, subject: str) -> Golden:
        """Read a golden back. Raises DeliveryError about ``subject`` for another schema or form."""
        try:
            if data["schema"] != SCHEMA:
                raise ValueError(f"schema {data['schema']}")
            golden = cls(**{field.name: data[field.name] for field in dataclasses.fields(cls)})
            if not set(PERMITTED) <= set(golden.permitted) or not golden.positions:
                raise ValueError("nothing to compare")
            golden._check_size()
            golden._check_permitted()
            # An answer that cannot be compared with itself cannot be compared at all.
            distances(golden.answer, golden.answer)
        except DeliveryError as exc:
            raise DeliveryError.of(subject, exc.problems[0].problem, _RECORD_AGAIN) from exc
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as exc:
            raise DeliveryError.of(
                subject, f"does not have the form of schema {SCHEMA}: {type(exc).__name__} {exc}.", _RECORD_AGAIN
            ) from exc
        return golden


def golden_of(manifest: Manifest) -> Golden:
    """Return the golden in a manifest.

    Raises DeliveryError if it has none, or that of another release.
    """
    subject = f"adapter {manifest.name}"
    if manifest.golden is None:
        raise DeliveryError.of(
            subject,
            f"cannot reach level golden: the manifest of release {manifest.release} has no golden.",
            "Record one on the training server with adapter_golden and deploy again, or set level to model.",
        )
    golden = Golden.from_json(manifest.golden, f"golden of {subject}")
    if golden.digest != manifest.trained_digest:
        trained = manifest.trained_digest[:SHORT]
        raise DeliveryError.of(
            subject,
            f"has a stale golden: it belongs to release {golden.digest[:SHORT]}, not to {trained}.",
            _RECORD_AGAIN,
        )
    return golden


def golden_path(directory: str, name: str, release: str) -> str:
    """Return the path of a release's golden on the training server."""
    return os.path.join(directory, name, f"{release}.json")


def read_golden(directory: str, manifest: Manifest) -> Golden | None:
    """Return the golden of this release, or None. Raises DeliveryError if it is damaged."""
    path = golden_path(directory, manifest.name, manifest.release)
    data = read_json(path, _RECORD_AGAIN)
    if data is None:
        return None
    golden = Golden.from_json(data, path)
    if golden.digest != manifest.digest:
        raise DeliveryError.of(path, f"is the golden of release {golden.digest[:SHORT]}.", _RECORD_AGAIN)
    return golden


def other_releases(directory: str, manifest: Manifest) -> list[str]:
    """Return the other releases of this adapter that have goldens."""
    try:
        names = sorted(os.listdir(os.path.join(directory, manifest.name)))
    except OSError:
        return []
    releases = [name[: -len(".json")] for name in names if name.endswith(".json")]
    return [release for release in releases if is_release_name(release) and release != manifest.release]
