# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The golden: what an adapter answered on the training server, and whether it answers so elsewhere.

Generated text is never compared: another kernel changes single tokens of it, and everything after those. What is compared
are log-probabilities along the tokens that the training server's own answer visits, with the adapter and without it.
C(docs/golden.md) has the measured figures behind the thresholds.
"""

from __future__ import annotations

import dataclasses
import math
import os
import typing as t

from .._adapter.manifest import Manifest
from .._errors import DeliveryError, Problem
from .._files import read_json
from .._hashing import SHORT
from .._names import is_release_name

SCHEMA = 1

# About four times what another half-precision kernel, another GPU or float32 makes of the same model.
PERMITTED = {"on": 0.12, "off": 0.08, "direction": 0.98, "strength": 0.10}
# From here on a distance with the adapter is said to be unusual, though it is permitted.
_UNUSUAL = 0.08
# Four times the training server's own noise is permitted too, but where that is beyond this a wrong scaling could hide.
_MOST_NOISE = 0.05
# An effect in less than this direction is that of another adapter; one of less than this strength is none at all.
_SAME_DIRECTION = 0.75
_NO_STRENGTH = 0.05
# The most that a strength may be permitted to differ from 1: an adapter that is not there has none.
_MOST_STRETCHED = 0.5
# With so much more it is its scaling that is far off, which turns the direction as well: along the tokens that one adapter
# has chosen another one does less.
_MUCH_STRENGTH = 1.25

Rows = t.Sequence[t.Sequence[t.Sequence[float]]]
Answer = t.Mapping[str, Rows]


@dataclasses.dataclass(frozen=True)
class Distances:
    """How far two answers are from each other.

    C(on) and C(off) (with the adapter, and the base alone): mean difference of the log-probabilities, each weighted by the
    probability that it has in the golden. C(direction) and C(strength): the effect of the adapter, that is with less without
    it, as cosine and as quotient of lengths; 1 when equal. C(top1): the share of tokens whose likeliest successor is the same.
    """

    on: float
    off: float
    direction: float
    strength: float
    top1: float

    def to_json(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in dataclasses.asdict(self).items()}


def distances(golden: Answer, found: Answer) -> Distances:
    """Compare an answer with the golden one. Raises DeliveryError for an answer of another form or with NaN."""
    on, off, found_on, found_off = (
        [row for rows in answer[key] for row in rows] for answer in (golden, found) for key in ("on", "off")
    )
    shapes = [[len(row) for row in rows] for rows in (on, off, found_on, found_off)]
    if not on or any(shape != shapes[0] for shape in shapes):
        raise DeliveryError.of("golden", "was answered in another form than it was asked.", "Record it again.")
    if not all(math.isfinite(value) for rows in (found_on, found_off) for row in rows for value in row):
        raise DeliveryError.of("golden", "was answered with NaN or infinity.", "Look at the device and at the base.")
    dot = wanted = had = 0.0
    for here, there, found_here, found_there in zip(on, off, found_on, found_off):
        shares = [(a + b) / 2 for a, b in zip(_shares(here), _shares(there))]
        effect = [a - b for a, b in zip(here, there)]
        found_effect = [a - b for a, b in zip(found_here, found_there)]
        dot += sum(share * a * b for share, a, b in zip(shares, effect, found_effect))
        wanted += sum(share * a * a for share, a in zip(shares, effect))
        had += sum(share * a * a for share, a in zip(shares, found_effect))
    lengths = math.sqrt(wanted * had)
    return Distances(
        on=_mean(map(_distance, on, found_on)),
        off=_mean(map(_distance, off, found_off)),
        direction=dot / lengths if lengths else 0.0,
        strength=math.sqrt(had / wanted) if wanted else 0.0,
        top1=_mean(float(_likeliest(row) == _likeliest(found_row)) for row, found_row in zip(on, found_on)),
    )


def _shares(row: t.Sequence[float]) -> list[float]:
    weights = [math.exp(value) for value in row]
    total = sum(weights)
    return [weight / total for weight in weights]


def _distance(row: t.Sequence[float], found: t.Sequence[float]) -> float:
    return sum(share * abs(a - b) for share, a, b in zip(_shares(row), row, found))


def _likeliest(row: t.Sequence[float]) -> int:
    return max(range(len(row)), key=row.__getitem__)


def _mean(values: t.Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def permitted(noise: t.Sequence[Distances]) -> dict[str, float]:
    """What a node may differ by, given what the training server differs by from itself. Raises DeliveryError for too much."""
    on, off = (max((getattr(one, key) for one in noise), default=0.0) for key in ("on", "off"))
    if max(on, off) > _MOST_NOISE:
        raise DeliveryError.of(
            "golden",
            f"is of no use: the training server differs from itself by {max(on, off):.3f} from one attention kernel to the"
            f" next, {_MOST_NOISE} is the most at which a wrong adapter is told from noise.",
            "Look at its device and its build of torch, or record more and longer prompts.",
        )
    turned = max((1 - one.direction for one in noise), default=0.0)
    stretched = max((abs(1 - one.strength) for one in noise), default=0.0)
    if 4 * turned > 1 - _SAME_DIRECTION or 4 * stretched > _MOST_STRETCHED:
        raise DeliveryError.of(
            "golden",
            "is of no use: along these prompts the adapter's effect is hardly above the noise from one attention kernel to the"
            f" next, which turns its direction to {1 - turned:.3f} and changes its strength by {stretched:.3f}.",
            "Record more or longer prompts, of the kind that the adapter was trained for.",
        )
    return {
        "on": round(max(PERMITTED["on"], 4 * on), 4),
        "off": round(max(PERMITTED["off"], 4 * off), 4),
        "direction": round(min(PERMITTED["direction"], 1 - 4 * turned), 4),
        "strength": round(max(PERMITTED["strength"], 4 * stretched), 4),
    }


def problems(subject: str, found: Distances, limits: t.Mapping[str, float]) -> list[Problem]:
    """What the distances say is wrong, in words and figures; an empty list when they are noise."""
    wrong: list[Problem] = []
    if found.off > limits["off"]:
        wrong.append(
            Problem(
                subject,
                f"is on a base that answers otherwise than the training server's, also without the adapter (distance"
                f" {found.off:.3f}, permitted {limits['off']:.3f}): it is another base, or is read in another way here.",
                "Compare the files of the base and the version of transformers with those of the training server.",
            )
        )
    low, high = 1 - limits["strength"], 1 + limits["strength"]
    weak = not low <= found.strength <= high
    if not (found.on > limits["on"] or found.direction < limits["direction"] or weak) or wrong:
        # On another base the effect is another one too, whatever the adapter.
        return wrong
    figures = (
        f"with the adapter the distance is {found.on:.3f}, permitted {limits['on']:.3f}; its effect has {found.strength:.2f} of"
        f" the recorded strength, permitted {low:.2f} to {high:.2f}, and a direction of {found.direction:.3f}, permitted"
        f" {limits['direction']:.3f}; the base alone agrees ({found.off:.3f})"
    )
    if found.strength < _NO_STRENGTH:
        what = "answers as if the adapter were not there"
        remedy = "Look for what keeps PEFT from using it: target_modules, lora_alpha, the version of PEFT."
    elif found.direction < _SAME_DIRECTION and found.strength < _MUCH_STRENGTH:
        what = "answers like another adapter than the one that was recorded"
        remedy = "Deliver the adapter that was meant, or record its golden again (playbook golden.yml)."
    elif weak:
        what = "works in the recorded direction with another strength: its scaling is another, or a part of it is missing"
        remedy = "Compare lora_alpha, r, use_rslora and the weights with those of the training server."
    else:
        what = "answers otherwise than it was recorded, by more than another device explains"
        remedy = "Compare the weights and the versions of PEFT and transformers with those of the training server."
    return [Problem(subject, f"{what}: {figures}.", remedy)]


def unusual(found: Distances) -> list[str]:
    """What is no problem, and should be known all the same."""
    if found.on <= _UNUSUAL:
        return []
    return [f"With the adapter the distance from its golden is {found.on:.3f}, more than another device has been seen to make."]


@dataclasses.dataclass(frozen=True)
class Golden:
    """A recorded golden of the release with C(digest).

    C(questions) and C(answer) are as C(_golden_level) has them. C(recorded) says with what: at, device, device_name, dtype,
    attention, versions. C(noise) is what the training server differed by from itself, C(permitted) what a node may.
    C(prompts) is the digest of the prompts it was recorded of, C(base) the identity of the base (see C(_base_identity)).
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
        """How many tokens are compared."""
        return sum(len(question["tokens"]) for question in self.questions)

    def to_json(self) -> dict[str, t.Any]:
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, data: t.Any, subject: str) -> Golden:
        """Read a golden back. Raises DeliveryError about C(subject) for another schema or form."""
        try:
            if data["schema"] != SCHEMA:
                raise ValueError(f"schema {data['schema']}")
            golden = cls(**{field.name: data[field.name] for field in dataclasses.fields(cls)})
            if not set(PERMITTED) <= set(golden.permitted) or not golden.positions:
                raise ValueError("nothing to compare")
            # What cannot be compared with itself cannot be compared with anything.
            distances(golden.answer, golden.answer)
        except DeliveryError as exc:
            raise DeliveryError.of(subject, exc.problems[0].problem, _RECORD_AGAIN) from exc
        except (ArithmeticError, KeyError, TypeError, ValueError) as exc:
            raise DeliveryError.of(
                subject, f"is not in the form of schema {SCHEMA}: {type(exc).__name__} {exc}.", _RECORD_AGAIN
            ) from exc
        return golden


_RECORD_AGAIN = "Record it again on the training server (playbook golden.yml)."


def golden_of(manifest: Manifest) -> Golden:
    """The golden that a manifest carries. Raises DeliveryError when it has none, or that of another release."""
    subject = f"adapter {manifest.name}"
    if manifest.golden is None:
        raise DeliveryError.of(
            subject,
            f"cannot reach level golden: the manifest of release {manifest.release} has no golden.",
            "Record one on the training server (playbook golden.yml) and deploy again, or ask for level model.",
        )
    golden = Golden.from_json(manifest.golden, f"golden of {subject}")
    if golden.digest != manifest.digest:
        raise DeliveryError.of(
            subject,
            f"has a stale golden: it was recorded of release {golden.digest[:SHORT]}, this is {manifest.release}.",
            _RECORD_AGAIN,
        )
    return golden


def golden_path(directory: str, name: str, release: str) -> str:
    """Where the training server keeps the golden of a release."""
    return os.path.join(directory, name, f"{release}.json")


def read_golden(directory: str, manifest: Manifest) -> t.Optional[Golden]:
    """The golden that was recorded of this very release, or None. Raises DeliveryError when it is damaged."""
    path = golden_path(directory, manifest.name, manifest.release)
    data = read_json(path, _RECORD_AGAIN)
    if data is None:
        return None
    golden = Golden.from_json(data, path)
    if golden.digest != manifest.digest:
        raise DeliveryError.of(path, f"is the golden of release {golden.digest[:SHORT]}.", _RECORD_AGAIN)
    return golden


def other_releases(directory: str, manifest: Manifest) -> list[str]:
    """The releases of this adapter, other than this one, of which there are goldens."""
    try:
        names = sorted(os.listdir(os.path.join(directory, manifest.name)))
    except OSError:
        return []
    releases = [name[: -len(".json")] for name in names if name.endswith(".json")]
    return [release for release in releases if is_release_name(release) and release != manifest.release]
