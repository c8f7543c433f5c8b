# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What the engines of a node make of an adapter, before it is delivered."""

from __future__ import annotations

import dataclasses
import typing as t

from .._adapter.manifest import Manifest
from .kinds import kinds_of
from .rules.form import KINDS, REFUSED, RIGHT, UNKNOWN, WRONG, Adapter, EngineRules, RankLimit, Rule
from .rules.table import ENGINES, rules_of

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
    """The state of one kind; ``known`` is the same, or that of the nearest version examined."""

    kind: str
    state: str
    known: str
    rule: Rule | None
    message: str


def verdicts(engines: t.Sequence[Engine], manifest: Manifest, base_config: dict[str, t.Any] | None) -> list[Verdict]:
    """Return the verdict of each engine on an adapter, the worst of its kinds.

    Raises DeliveryError for an engine that has no rules.
    """
    adapter = kinds_of(manifest, base_config)
    return [_verdict(engine, rules_of(engine.name), adapter) for engine in engines]


def common_notes(manifest: Manifest, base_config: dict[str, t.Any] | None) -> list[str]:
    """Return a note for each kind of the adapter that some engine answers wrongly for.

    Not for a factor other than 1, which nearly every adapter has.
    """
    adapter = kinds_of(manifest, base_config)
    notes = []
    for kind in adapter.kinds:
        wrong = [rules.title for rules in ENGINES.values() for rule in rules.rules if (rule.kind, rule.state) == (kind, WRONG)]
        if wrong and kind != "factor":
            listed = " and ".join(filter(None, [", ".join(wrong[:-1]), wrong[-1]]))
            notes.append(f"Of {KINDS[kind]}, {listed} make something else without an error. Set agent_engine to check yours.")
    return notes


def _verdict(engine: Engine, rules: EngineRules, adapter: Adapter) -> Verdict:
    judged = [_judge(engine, rules, adapter, kind) for kind in adapter.kinds]
    if rules.limit is not None:
        judged += _above(rules.limit, engine, rules, adapter)
    order = sorted(judged, key=lambda one: (_ORDER.index(one.state), _ORDER.index(one.known)))
    worst = order[0]
    # The first kind that is not right is the one that fewest remedies help.
    remedies = next((one.rule.remedies for one in judged if one.known in (REFUSED, WRONG) and one.rule), ())
    if not remedies and worst.rule:
        remedies = worst.rule.remedies
    return Verdict(
        engine=rules.name,
        version=engine.version,
        state=worst.state,
        kinds=tuple(one.kind for one in judged if one.state == worst.state),
        message=worst.message,
        figure=worst.rule.figure if worst.rule and worst.state == WRONG else None,
        remedy=_remedy(remedies, adapter) if worst.state != RIGHT else "",
    )


def _above(limit: RankLimit, engine: Engine, rules: EngineRules, adapter: Adapter) -> list[_Judged]:
    """Return the state of the kind ``rank`` if the largest rank is above the engine's limit."""
    stated = engine.settings.get(limit.setting)
    most = limit.default if stated is None else stated
    if adapter.rank <= most:
        return []
    # Whoever names just the engine may have started it with another limit.
    state = UNKNOWN if stated is None else REFUSED
    does = limit.does.format(limit=most, **adapter.values)
    rule = Rule("rank", state, does, remedies=(limit.remedy,))
    return [_Judged("rank", state, state, rule, f"{_title(engine, rules)} {does}.")]


def _title(engine: Engine, rules: EngineRules) -> str:
    return f"{rules.title} {engine.version}" if engine.version else rules.title


def _judge(engine: Engine, rules: EngineRules, adapter: Adapter, kind: str) -> _Judged:
    """Return the state of one kind of the adapter."""
    title = _title(engine, rules)
    having = [rule for rule in rules.rules if rule.kind == kind]
    if not having:
        return _Judged(kind, UNKNOWN, UNKNOWN, None, f"Nobody has tried what {title} makes of {KINDS[kind]}.")
    fitting = [
        rule
        for rule in having
        if engine.version is None or any(one.has(engine.version) for one in rule.versions or rules.versions)
    ]
    rule = fitting[-1] if fitting else having[-1]
    settled = _is_settled(rule, engine, adapter)
    known = RIGHT if settled else rule.state
    does = "answers as PEFT does with these settings" if settled else rule.does.format(**adapter.values)
    if fitting:
        return _Judged(kind, known, known, rule, f"{title} {does}.")
    examined = (rule.source or rules.source).what
    return _Judged(kind, UNKNOWN, known, rule, f"{title} was not examined. {examined} {does}.")


def _is_settled(rule: Rule, engine: Engine, adapter: Adapter) -> bool:
    return rule.unless is not None and rule.unless.holds(adapter, engine.settings)


def _remedy(remedies: t.Sequence[str], adapter: Adapter) -> str:
    """Return one sentence of the clauses whose numbers the adapter has."""
    clauses = []
    for remedy in remedies:
        try:
            clauses.append(remedy.format(**adapter.values))
        except KeyError:
            continue
    text = ", or ".join(clauses)
    return f"{text[0].upper()}{text[1:]}." if text else ""
