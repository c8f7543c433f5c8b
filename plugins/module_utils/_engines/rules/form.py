# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The form of an engine's rules: the kinds of adapters, and what an engine makes of each."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import typing as t

from ..._formats.strict_json import is_integer
from ..._versions import numbers

# What an engine makes of an adapter: PEFT's answers, an error, other answers without an error, or
# something that nobody has found out.
RIGHT, REFUSED, WRONG, UNKNOWN = "right", "refused", "wrong", "unknown"


class Kind(t.NamedTuple):
    """What distinguishes adapters of a kind, and the key of adapter_config.json that says so."""

    title: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.title} ({self.key})" if self.key else self.title


# The kinds, of which an adapter can have several. Those that the fewest remedies help come first.
# ``_engines/kinds`` derives them.
KINDS: dict[str, Kind] = {
    "unpaired": Kind("a LoRA layer that lacks one of its two matrices"),
    "rank_mismatch": Kind("tensors of another rank than the configuration says", "r"),
    "prefix_missing": Kind("tensor names without base_model.model"),
    "prefix_headless": Kind("tensor names of the base without its head"),
    "prefix_multimodal": Kind("tensor names of the multimodal class of a text model"),
    "dora": Kind("DoRA", "use_dora"),
    "lora_bias": Kind("LoRA layers with a bias", "lora_bias"),
    "bias": Kind("trained biases of the base", "bias"),
    "saved_head": Kind("a whole head", "modules_to_save"),
    "saved_embeddings": Kind("whole embeddings", "modules_to_save"),
    "saved_other": Kind("other whole modules", "modules_to_save"),
    "tokens": Kind("trained tokens", "trainable_token_indices"),
    "embeddings": Kind("LoRA on the embeddings"),
    "head": Kind("LoRA on the head"),
    "parameters": Kind("LoRA on parameters", "target_parameters"),
    "experts": Kind("LoRA on experts"),
    "convolutions": Kind("LoRA on convolutions"),
    "alora": Kind("Activated LoRA", "alora_invocation_tokens"),
    "bdlora": Kind("BD-LoRA", "use_bdlora"),
    "replicated": Kind("replicated layers", "layer_replication"),
    "qalora": Kind("QALoRA", "use_qalora"),
    "extension": Kind("an extension of LoRA: VeLoRA, MonteCLoRA, KaSA"),
    "alpha_pattern": Kind("several alphas", "alpha_pattern"),
    "rank_pattern": Kind("several ranks", "rank_pattern"),
    "rslora": Kind("rsLoRA", "use_rslora"),
    "factor": Kind("a factor alpha / r other than 1"),
    "rank": Kind("a rank above the engine's limit"),
    "regex": Kind("a regular expression for its modules", "target_modules"),
    "some_layers": Kind("LoRA on some of the layers", "layers_to_transform, exclude_modules"),
    "fan_in_fan_out": Kind("fan_in_fan_out true"),
    "bf16": Kind("a file in bfloat16"),
    "fp16": Kind("a file in float16"),
    "other_dtype": Kind("a file in float64 or float8"),
    "pickle": Kind("weights in a pickle"),
    "plain": Kind("plain LoRA with alpha equal to r"),
    "rope_parameters": Kind("a base that transformers 5 has saved", "rope_parameters"),
}
Settings = t.Mapping[str, t.Any]


class Adapter(t.NamedTuple):
    """The kinds of an adapter on its base, and the numbers that conditions and messages use.

    ``factor`` is that of all LoRA layers, None if they have several. ``alpha`` is the number that
    gives the factor of each layer when it is divided by the rank of its tensors, None if there is
    no such number.
    """

    kinds: tuple[str, ...]
    factors: tuple[float, ...] = ()
    factor: float | None = None
    alpha: float | None = None
    # The factor that r and lora_alpha of the configuration alone give, and the ranks of the layers.
    config_factor: float | None = None
    ranks: tuple[int, ...] = ()
    config_rank: int = 0
    # Whether the base's head is its embeddings, None if that is not known.
    tied: bool | None = None
    # What the base's config.json lacks for readers older than transformers 5.
    rope: t.Mapping[str, t.Any] = {}

    @property
    def rank(self) -> int:
        """The largest rank."""
        return max(self.ranks, default=0)

    @property
    def values(self) -> dict[str, t.Any]:
        """The numbers, by the names that messages have for them."""
        found = {
            "factors": " and ".join(f"{factor:.6g}" for factor in self.factors),
            "factor": self.factor,
            "alpha": self.alpha,
            "rank": self.rank,
            "config_rank": self.config_rank,
            "lines": ", ".join(f'"{key}": {json.dumps(value)}' for key, value in self.rope.items()),
        }
        return {name: value for name, value in found.items() if value is not None}


class Condition(t.NamedTuple):
    """Something about an adapter and an engine's settings; ``text`` says what."""

    text: str
    holds: t.Callable[[Adapter, Settings], bool]


class Source(t.NamedTuple):
    """Where a rule comes from: a run of an engine, or a reading of its code, and the date."""

    what: str
    date: str
    # The files that were read. Without any, the engine was run.
    files: str = ""


class Range(t.NamedTuple):
    """The versions from ``since`` on and before ``before``."""

    since: str
    before: str

    def has(self, version: str) -> bool:
        return numbers(self.since) <= numbers(version) < numbers(self.before)


class Rule(t.NamedTuple):
    """What an engine makes of adapters of one kind, under the condition ``when``, if it has one.

    ``does`` completes a sentence that begins with the engine's name, and may contain names of
    ``Adapter.values``. ``figure`` is the largest difference of log-probabilities that was measured.
    ``remedies`` are clauses in the imperative; those with a number that the adapter does not have
    are left out.
    """

    kind: str
    state: str
    does: str
    figure: float | None = None
    remedies: tuple[str, ...] = ()
    when: Condition | None = None
    versions: tuple[Range, ...] | None = None
    source: Source | None = None

    @property
    def clauses(self) -> tuple[str, ...]:
        """The remedies for an adapter of this kind only."""
        return remedies_of(self.remedies, [self.kind])


class RankLimit(t.NamedTuple):
    """The largest rank of an engine: the value of ``setting``, which is ``default`` if not stated.

    Without ``default``, the engine derives it from the adapters. ``does`` and ``remedy`` are like
    those of rules.
    """

    setting: str
    default: int | None
    does: str
    remedy: str


class Places(t.NamedTuple):
    """A limit on the adapters that an engine has at once: the value of ``setting``, 0 for no limit.

    During a switch, two releases of one adapter are loaded side by side. So there must be one place
    more than adapters, or two for each with ``twice``; with ``base``, the base takes one, too.
    ``does`` completes a sentence about an engine with fewer places. ``fails`` is whether it then
    does not serve all adapters rightly. With ``in_memory``, an adapter at such a place takes memory
    of the host.
    """

    setting: str
    does: str
    fails: bool
    twice: bool = False
    base: bool = False
    in_memory: bool = False
    when: Condition | None = None
    versions: tuple[Range, ...] | None = None

    def needed(self, adapters: int) -> int:
        """Return how many places a number of adapters needs."""
        return (2 * adapters if self.twice else adapters + 1) + self.base


class Setting(t.NamedTuple):
    """A setting of an engine that the inventory may state; ``form`` says what its values are."""

    form: str
    fits: t.Callable[[t.Any], bool]


class Answer(t.NamedTuple):
    """Whether an answer is right, refused, wrong or unknown, and when or why."""

    state: str = UNKNOWN
    why: str = ""


class Switching(t.NamedTuple):
    """What users get who ask the same prompt again when an engine changes adapters.

    ``switch``: from another adapter that is loaded. ``reuse``: from another adapter that was loaded
    under the same name. ``unload``: from the base, after the adapter was unloaded. ``remedy`` is
    what prevents wrong answers.
    """

    switch: Answer = Answer()
    reuse: Answer = Answer()
    unload: Answer = Answer()
    remedy: str = ""


class BoundRule(t.NamedTuple):
    """How far a right answer may be from PEFT's in float32, and why, if a condition holds."""

    value: float
    reason: str
    when: Condition | None = None


@dataclasses.dataclass(frozen=True)
class EngineRules:
    """The rules of one engine, of which the first that applies to a kind counts.

    Of ``places``, the first that applies to a setting counts.

    ``versions`` and ``source`` are those of rules without their own. ``packages`` are the Python
    packages that it comes in, whose version is that of the engine. ``settings`` are those that the
    inventory may state. The first of ``bounds`` whose condition holds counts. ``notes`` are
    sentences for the documentation.
    """

    name: str
    title: str
    versions: tuple[Range, ...]
    source: Source
    rules: tuple[Rule, ...]
    switching: Switching
    bounds: tuple[BoundRule, ...]
    limit: RankLimit | None = None
    places: tuple[Places, ...] = ()
    packages: tuple[str, ...] = ()
    settings: t.Mapping[str, Setting] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def right(*kinds: str, does: str = "answers as PEFT does", when: Condition | None = None) -> tuple[Rule, ...]:
    """Return rules for kinds that an engine reads as PEFT does."""
    return tuple(Rule(kind, RIGHT, does, when=when) for kind in kinds)


def refused(kinds: t.Iterable[str], does: str, *remedies: str, source: Source | None = None) -> tuple[Rule, ...]:
    """Return rules for kinds that an engine refuses."""
    return tuple(Rule(kind, REFUSED, does, remedies=remedies, source=source) for kind in kinds)


def wrong(kinds: t.Iterable[str], does: str, *remedies: str) -> tuple[Rule, ...]:
    """Return rules without a figure for kinds that an engine answers wrongly for."""
    return tuple(Rule(kind, WRONG, does, remedies=remedies) for kind in kinds)


def untried(kinds: t.Iterable[str], when: Condition) -> tuple[Rule, ...]:
    """Return rules for kinds that nobody has tried under a condition, but without it."""
    return tuple(Rule(kind, UNKNOWN, f"was not tried where {when.text}", when=when) for kind in kinds)


# What several engines do.
OTHERS_WAIT = "lets requests of some adapters wait for those of others"
AS_BASE = "ignores the tensors and answers as the base does, like PEFT"
APPLIED = "applies the tensors, which PEFT ignores"
AT_ONCE = "applies it from the first token on, not from the invocation on"
ONE_ALPHA = "ignores alpha_pattern and takes lora_alpha for all layers"
NO_MAGNITUDES = "drops the magnitudes and answers as plain LoRA does"

# Remedies that several engines share.
FOLD = "deliver the folded form (agent_form: folded)"
MERGE = "merge it into its base in float32 and serve the merged model"
# What PEFT cannot merge, or not without changing the head that is tied to the embeddings.
NOT_MERGED = {
    "lora_bias": "train it without lora_bias",
    "replicated": "train it without layer_replication",
    "embeddings": "merge it into its base in float32, if the base has a head of its own, and serve the merged model",
    "head": "merge it into its base in float32, if the base has a head of its own, and serve the merged model",
}
CORRECT = "save the adapter again with PEFT"
ADD_LINES = "add to the base's config.json: {lines}"


def remedies_of(remedies: t.Iterable[str], kinds: t.Iterable[str]) -> tuple[str, ...]:
    """Return the remedies, with what adapters of these kinds need in the place of a merge."""
    merge = next((NOT_MERGED[kind] for kind in kinds if kind in NOT_MERGED), MERGE)
    return tuple(merge if one == MERGE else one for one in remedies)


def _is_number(value: t.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


TEXT = Setting("text", lambda value: isinstance(value, str))
ABSOLUTE_PATH = Setting("an absolute path", lambda value: isinstance(value, str) and os.path.isabs(value))
INTEGER = Setting("an integer", is_integer)
BOOLEAN = Setting("true or false", lambda value: isinstance(value, bool))
# The word stands for the right number of each adapter.
ALPHA = Setting("a number or the word factor", lambda value: value == "factor" or _is_number(value))


def is_stated(value: t.Any, number: float | None) -> bool:
    """Return whether a setting of the form ``ALPHA`` states this number, which may not exist."""
    if number is None:
        return False
    return value == "factor" or (_is_number(value) and math.isclose(value, number, rel_tol=1e-6))


def states(setting: str, *values: t.Any) -> Condition:
    """Return the condition that a setting has one of these values."""
    listed = " or ".join(json.dumps(value).strip('"') for value in values)
    return Condition(f"`{setting}` is {listed}", lambda _adapter, settings: settings.get(setting) in values)


FLOAT32 = states("dtype", "float32")

# Of engines that nobody has run here.
NOT_RUN = (
    BoundRule(
        0.3, "nobody has run it here; in bfloat16, the usual dtype of a base, vLLM was up to 0.24 away with the right adapter"
    ),
)

UNTIED = Condition("the base has a head of its own", lambda adapter, _settings: adapter.tied is False)
