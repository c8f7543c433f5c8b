# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What the engines of a node make of an adapter, before it is delivered."""

from __future__ import annotations

import dataclasses
import typing as t
from string import Formatter

from .._adapter.manifest import Manifest
from .kinds import kinds_of
from .rules.form import KINDS, REFUSED, RIGHT, UNKNOWN, WRONG, Adapter, Condition, EngineRules, Range, RankLimit, remedies_of
from .rules.table import all_rules, rules_of

__all__ = ["REFUSED", "RIGHT", "UNKNOWN", "WRONG", "Engine", "Verdict", "common_notes", "verdicts"]

# What happens first comes first: an engine that refuses an adapter gives no wrong answers.
_ORDER = (REFUSED, WRONG, UNKNOWN, RIGHT)


@dataclasses.dataclass(frozen=True)
class Engine:
    """An engine of a node: its name or an alias, its version if it is known, and its settings."""

    name: str
    version: str | None = None
    settings: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What ``engine`` makes of an adapter: ``state`` is RIGHT, REFUSED, WRONG or UNKNOWN.

    ``kinds`` are those that the state is due to, all of the adapter's if it is RIGHT. ``message``
    is a sentence on what the engine does. ``figure`` is the largest difference from PEFT's
    log-probabilities that was measured with an adapter of that kind.
    """

    engine: str
    version: str | None
    state: str
    kinds: tuple[str, ...]
    message: str
    figure: float | None
    remedy: str


class _Judged(t.NamedTuple):
    """What an engine makes of one kind; ``known`` is the state in the versions that are known."""

    kind: str
    state: str
    known: str
    message: str
    figure: float | None = None
    remedies: tuple[str, ...] = ()


def verdicts(engines: t.Sequence[Engine], manifest: Manifest, base_config: dict[str, t.Any] | None) -> list[Verdict]:
    """Return the verdict of each engine on an adapter.

    Raises DeliveryError for an engine that has no rules.
    """
    adapter = kinds_of(manifest, base_config)
    return [_verdict(engine, rules_of(engine.name), adapter) for engine in engines]


def common_notes(manifest: Manifest, base_config: dict[str, t.Any] | None) -> list[str]:
    """Return a note for each kind of an adapter that some current engine answers wrongly for.

    Not for a factor other than 1, which nearly every adapter has, and not for its base.
    """
    adapter = kinds_of(manifest, base_config)
    notes = []
    for kind in adapter.kinds:
        if kind in ("factor", "rope_parameters"):
            continue
        judged = {rules.title: _judge(Engine(rules.name), rules, adapter, kind) for rules in all_rules()}
        titles = [title for title, one in judged.items() if one.state == WRONG]
        if titles:
            notes.append(
                f"It has {KINDS[kind]}. Engines that answer wrongly then, without an error: {', '.join(titles)}. If one of"
                " them serves it, set agent_engine."
            )
    return notes


def _verdict(engine: Engine, rules: EngineRules, adapter: Adapter) -> Verdict:
    judged = [_judge(engine, rules, adapter, kind) for kind in adapter.kinds]
    if rules.limit is not None:
        judged += _above(rules.limit, engine, rules, adapter)
    worst = min(judged, key=lambda one: (_ORDER.index(one.state), _ORDER.index(one.known)))
    # A remedy must help all kinds. Those that the fewest help come first.
    bad = [one for one in judged if one.known in (REFUSED, WRONG)]
    remedies = (bad[0] if bad else worst).remedies
    return Verdict(
        engine=rules.name,
        version=engine.version,
        state=worst.state,
        kinds=tuple(one.kind for one in judged if one.state == worst.state),
        message=worst.message,
        figure=worst.figure if worst.state == WRONG else None,
        remedy=_sentence(remedies_of(remedies, adapter.kinds), adapter),
    )


def _judge(engine: Engine, rules: EngineRules, adapter: Adapter, kind: str) -> _Judged:
    """Return what an engine makes of one kind of an adapter."""
    title = _title(engine, rules)
    rules_of_kind = [rule for rule in rules.rules if rule.kind == kind and _holds(rule.when, engine, adapter)]
    if not rules_of_kind:
        return _Judged(kind, UNKNOWN, UNKNOWN, f"What {title} makes of {KINDS[kind]} is not known.")
    fitting = [rule for rule in rules_of_kind if _has(rule.versions or rules.versions, engine.version)]
    rule = (fitting or rules_of_kind)[0]
    does = rule.does.format(**adapter.values)
    end = "" if does.endswith('."') else "."
    if fitting:
        return _Judged(kind, rule.state, rule.state, f"{title} {does}{end}", rule.figure, rule.remedies)
    message = f"{title} was not examined; {(rule.source or rules.source).what} {does}{end}"
    return _Judged(kind, UNKNOWN, rule.state, message, rule.figure, rule.remedies)


def _holds(condition: Condition | None, engine: Engine, adapter: Adapter) -> bool:
    return condition is None or condition.holds(adapter, engine.settings)


def _has(ranges: t.Sequence[Range], version: str | None) -> bool:
    return version is None or any(one.has(version) for one in ranges)


def _above(limit: RankLimit, engine: Engine, rules: EngineRules, adapter: Adapter) -> list[_Judged]:
    """Return what an engine makes of the rank of an adapter, if it is above the limit."""
    stated = engine.settings.get(limit.setting)
    most = limit.default if stated is None else stated
    if most is None or adapter.rank <= most:
        return []
    # An inventory that names just the engine says nothing about the options of its start.
    state = UNKNOWN if stated is None else REFUSED
    message = f"{_title(engine, rules)} {limit.does.format(limit=most, **adapter.values)}."
    return [_Judged("rank", state, state, message, remedies=(limit.remedy,))]


def _title(engine: Engine, rules: EngineRules) -> str:
    return f"{rules.title} {engine.version}" if engine.version else rules.title


def _sentence(remedies: t.Sequence[str], adapter: Adapter) -> str:
    """Return a sentence of those remedies whose numbers the adapter has."""
    names = {remedy: [field for _text, field, _spec, _conversion in Formatter().parse(remedy) if field] for remedy in remedies}
    clauses = [remedy.format(**adapter.values) for remedy in remedies if set(names[remedy]) <= set(adapter.values)]
    text = ", or ".join(clauses)
    return f"{text[0].upper()}{text[1:]}." if text else ""
