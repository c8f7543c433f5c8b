# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Compare an answer with a golden: distances, limits and the verdict.

Generated text is never compared: a different kernel changes single tokens, and with them everything
that follows. Instead, log-probabilities along the tokens of the training server's own answer are
compared, with the adapter and without it. ``docs/golden.md`` has the measurements behind the
thresholds.
"""

from __future__ import annotations

import dataclasses
import math
import typing as t

from .._errors import DeliveryError

# About four times the distance of another half-precision kernel, another GPU or float32.
PERMITTED = {"on": 0.12, "off": 0.08, "direction": 0.98, "strength": 0.10}
# A greater distance with the adapter is reported as unusual, though it is permitted.
_UNUSUAL = 0.08
# Four times the training server's own noise is permitted, too. Beyond this noise, a wrong scaling
# would stay undetected.
_MOST_NOISE = 0.05
# Below this direction the effect is another adapter's; below this strength there is no effect.
_SAME_DIRECTION = 0.75
_NO_STRENGTH = 0.05
# However large the noise is, the strength may not differ more than this from 1: the strength of a
# missing adapter is 0.
_MOST_STRETCHED = 0.5
# Above this strength the scaling is wrong, which changes the direction, too. Another adapter would
# have less effect along the recorded tokens.
_MUCH_STRENGTH = 1.25

Rows = t.Sequence[t.Sequence[t.Sequence[float]]]
Answer = t.Mapping[str, Rows]


@dataclasses.dataclass(frozen=True)
class Distances:
    """The distances between two answers.

    ``on`` and ``off`` (with the adapter, and the base alone) are mean differences of the
    log-probabilities, weighted by the probabilities of the golden. ``direction`` and ``strength``
    compare the adapter's effect (the log-probabilities with it minus those without it) as cosine
    and as quotient of lengths; both are 1 if equal. ``top1`` is the share of tokens with the same
    likeliest successor.
    """

    on: float
    off: float
    direction: float
    strength: float
    top1: float

    def to_json(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, data: t.Any) -> Distances:
        """Read them back. Raises KeyError, TypeError or ValueError for another form."""
        values = {field.name: float(data[field.name]) for field in dataclasses.fields(cls)}
        if not all(map(math.isfinite, values.values())):
            raise ValueError("a distance is not finite")
        return cls(**values)


def distances(golden: Answer, found: Answer) -> Distances:
    """Return the distances of an answer from the golden.

    Raises DeliveryError if it is malformed or not finite.
    """
    on, off, found_on, found_off = (
        [row for rows in answer[key] for row in rows] for answer in (golden, found) for key in ("on", "off")
    )
    shapes = [[len(row) for row in rows] for rows in (on, off, found_on, found_off)]
    if not on or any(shape != shapes[0] for shape in shapes):
        raise DeliveryError.of("golden", "has an answer whose form does not match its questions.", "Record it again.")
    if not all(math.isfinite(value) for rows in (found_on, found_off) for row in rows for value in row):
        raise DeliveryError.of("golden", "has an answer with NaN or infinity.", "Check the device and the base.")
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
    """Return the limits for nodes, given the training server's own noise.

    Raises DeliveryError for too much noise.
    """
    on, off = (max((getattr(one, key) for one in noise), default=0.0) for key in ("on", "off"))
    if max(on, off) > _MOST_NOISE:
        raise DeliveryError.of(
            "golden",
            f"is unusable: two attention kernels of the training server differ by {max(on, off):.3f}; a wrong adapter can"
            f" be distinguished from noise only up to {_MOST_NOISE}.",
            "Check its device and its build of torch, or record more and longer prompts.",
        )
    turned = max((1 - one.direction for one in noise), default=0.0)
    stretched = max((abs(1 - one.strength) for one in noise), default=0.0)
    if 4 * turned > 1 - _SAME_DIRECTION or 4 * stretched > _MOST_STRETCHED:
        raise DeliveryError.of(
            "golden",
            "is unusable: along these prompts the adapter's effect is hardly above the noise between two attention kernels,"
            f" which turns its direction to {1 - turned:.3f} and changes its strength by {stretched:.3f}.",
            "Record more or longer prompts, of the kind that the adapter was trained for.",
        )
    return {
        "on": round(max(PERMITTED["on"], 4 * on), 4),
        "off": round(max(PERMITTED["off"], 4 * off), 4),
        "direction": round(min(PERMITTED["direction"], 1 - 4 * turned), 4),
        "strength": round(max(PERMITTED["strength"], 4 * stretched), 4),
    }


def problems(found: Distances, limits: t.Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the problems that the distances show, with remedies; none if they are just noise."""
    wrong: list[tuple[str, str]] = []
    if found.off > limits["off"]:
        wrong.append(
            (
                f"is on a base whose answers differ from the training server's even without the adapter (distance"
                f" {found.off:.3f}, permitted {limits['off']:.3f}): it is another base, or is read in another way here.",
                "Compare the files of the base and the version of transformers with those of the training server.",
            )
        )
    low, high = 1 - limits["strength"], 1 + limits["strength"]
    weak = not low <= found.strength <= high
    if not (found.on > limits["on"] or found.direction < limits["direction"] or weak) or wrong:
        # On another base, any adapter has another effect.
        return wrong
    figures = (
        f"with the adapter the distance is {found.on:.3f}, permitted {limits['on']:.3f}; its effect has {found.strength:.2f} of"
        f" the recorded strength, permitted {low:.2f} to {high:.2f}, and a direction of {found.direction:.3f}, permitted"
        f" {limits['direction']:.3f}; the base alone agrees ({found.off:.3f})"
    )
    if found.strength < _NO_STRENGTH:
        what = "answers as if the adapter were not there"
        remedy = "Find out why PEFT does not use it: target_modules, lora_alpha, the version of PEFT."
    elif found.direction < _SAME_DIRECTION and found.strength < _MUCH_STRENGTH:
        what = "answers like another adapter than the recorded one"
        remedy = "Deliver the right adapter, or record its golden again with adapter_golden."
    elif weak:
        what = "has an effect of the recorded direction but another strength: its scaling differs, or a part of it is missing"
        remedy = "Compare lora_alpha, r, use_rslora and the weights with those of the training server."
    else:
        what = "differs from its golden by more than another device explains"
        remedy = "Compare the weights and the versions of PEFT and transformers with those of the training server."
    return [(f"{what}: {figures}.", remedy)]


def unusual(found: Distances) -> list[str]:
    """Return notes on permitted but unusual distances."""
    if found.on <= _UNUSUAL:
        return []
    return [f"With the adapter the distance from its golden is {found.on:.3f}, more than was measured between any two devices."]
