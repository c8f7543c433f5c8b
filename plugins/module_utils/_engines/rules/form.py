# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The form of an engine's rules: the kinds of adapters, and what an engine makes of each."""

from __future__ import annotations

import dataclasses
import json
import typing as t

from ..._formats.strict_json import is_integer
from ..._versions import Version, numbers

# What an engine makes of an adapter: PEFT's answers, an error, other answers without an error, or
# something that nobody has found out.
RIGHT, REFUSED, WRONG, UNKNOWN = "right", "refused", "wrong", "unknown"

# The kinds of adapters and what each is, from those that the fewest remedies help to those that
# most help. An adapter can be of several kinds. ``_engines/kinds`` derives them.
KINDS: dict[str, str] = {
    "unpaired": "a LoRA layer with only one of its two matrices",
    "rank_mismatch": "another rank in the configuration than in the tensors",
    "prefix_missing": "tensor names without `base_model.model.`",
    "prefix_short": "tensor names with `base_model.model.` before a wrong path",
    "prefix_multimodal": "tensor names of the multimodal class of a text model",
    "dora": "DoRA (`use_dora`)",
    "lora_bias": "biases of its own (`lora_bias`)",
    "bias": "trained biases of the base (`bias`)",
    "saved_head": "a whole head (`modules_to_save`)",
    "saved_embedding": "whole embeddings (`modules_to_save`)",
    "saved_other": "other whole modules (`modules_to_save`)",
    "tokens": "trained tokens (`trainable_token_indices`)",
    "embedding_lora": "LoRA on the embeddings",
    "head_lora": "LoRA on the head",
    "parameters": "LoRA on parameters (`target_parameters`)",
    "experts": "LoRA on layers of experts",
    "alora": "Activated LoRA (`alora_invocation_tokens`)",
    "bdlora": "BD-LoRA (`use_bdlora`)",
    "replicated": "replicated layers (`layer_replication`)",
    "variant": "another variant of LoRA (VeLoRA, MonteCLoRA, QALoRA)",
    "alpha_pattern": "several alphas (`alpha_pattern`)",
    "rank_pattern": "several ranks (`rank_pattern`)",
    "rslora": "rsLoRA (`use_rslora`)",
    "factor": "a factor (`lora_alpha / r`) other than 1",
    "selection": "some layers or modules only, or a pattern of modules",
    "fan_in_fan_out": "`fan_in_fan_out` true",
    "bf16": "a file in bfloat16",
    "fp16": "a file in float16",
    "plain": "plain LoRA with the factor 1",
    "rank": "a rank above the limit of the engine",
    "rope_parameters": "a base whose `config.json` has its rotary settings in `rope_parameters` alone",
}

Settings = t.Mapping[str, t.Any]


class Adapter(t.NamedTuple):
    """The kinds of an adapter on its base, and the numbers that conditions and messages use.

    ``factor`` is that of all LoRA layers, None if they have several; ``alpha`` that which divided
    by the rank of each layer gives its factor, None if no number does.
    """

    kinds: t.Sequence[str]
    factors: t.Sequence[float] = ()
    factor: float | None = None
    alpha: float | None = None
    # The largest rank of the tensors and that of the configuration.
    rank: int = 0
    config_rank: int = 0
    # The keys that older readers of the base's config.json look for, and it lacks.
    rope: t.Mapping[str, t.Any] = {}

    @property
    def values(self) -> dict[str, t.Any]:
        """The numbers by the names that messages have for them."""
        factors = ", ".join(f"{factor:.6g}" for factor in self.factors)
        lines = ", ".join(f'"{key}": {json.dumps(value)}' for key, value in self.rope.items())
        found = {**self._asdict(), "factors": factors, "lines": lines}
        return {name: value for name, value in found.items() if value is not None}


class Condition(t.NamedTuple):
    """Settings of an engine that change its answer; ``text`` says which."""

    text: str
    holds: t.Callable[[Adapter, Settings], bool]


class Source(t.NamedTuple):
    """Where a rule comes from: a run of ``what`` here, or its source code, and when."""

    what: str
    date: str
    run: bool = True

    def __str__(self) -> str:
        return f"{'run with' if self.run else 'read in'} {self.what}, {self.date}"


class Range(t.NamedTuple):
    """The versions from ``since`` on and before ``before``."""

    since: str
    before: str

    def has(self, version: str) -> bool:
        found: Version = numbers(version)
        return numbers(self.since) <= found < numbers(self.before)


class Rule(t.NamedTuple):
    """What an engine makes of adapters of one kind.

    ``does`` completes a sentence that begins with the engine's name. ``figure`` is the largest
    difference of log-probabilities that was measured. Each of ``remedies`` is a clause in the
    imperative, the first being the easiest; one with a number that the adapter does not have is
    left out. ``unless`` are settings with which the engine is right.
    """

    kind: str
    state: str
    does: str = ""
    figure: float | None = None
    remedies: tuple[str, ...] = ()
    unless: Condition | None = None
    versions: tuple[Range, ...] | None = None
    source: Source | None = None


class RankLimit(t.NamedTuple):
    """The largest rank of an engine: the value of ``setting``, which is ``default`` unless set.

    ``does`` and ``remedy`` are like those of rules.
    """

    setting: str
    default: int
    does: str
    remedy: str


class Setting(t.NamedTuple):
    """A setting of an engine that the inventory may state; ``form`` says what its values are."""

    form: str
    fits: t.Callable[[t.Any], bool]


def _is_number(value: t.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


TEXT = Setting("text", lambda value: isinstance(value, str))
INTEGER = Setting("an integer", is_integer)
# The factor, or the alpha that gives it. With the word, each adapter has its own.
ALPHA = Setting("a number or the word factor", lambda value: value == "factor" or _is_number(value))


@dataclasses.dataclass(frozen=True)
class EngineRules:
    """The rules of one engine. ``versions`` and ``source`` are those of rules without their own.

    ``packages`` are the Python packages that it comes in, whose version is that of the engine.
    ``settings`` are those that the inventory may state, by name.
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    versions: tuple[Range, ...]
    source: Source
    rules: tuple[Rule, ...]
    limit: RankLimit | None = None
    packages: tuple[str, ...] = ()
    settings: t.Mapping[str, Setting] = dataclasses.field(default_factory=dict)


def right(*kinds: str) -> tuple[Rule, ...]:
    """Return rules for kinds that an engine reads as PEFT does."""
    return tuple(Rule(kind, RIGHT, "answers as PEFT does") for kind in kinds)


# Remedies that several engines share.
FOLD = "deliver the folded form (agent_form: folded)"
MERGE = "merge it into its base in float32 and serve that model"
CORRECT = "save the adapter again with PEFT"
