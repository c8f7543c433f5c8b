# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""report.html: the report as one self-contained page, rendered from ``page.html.j2``."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import pathlib
import typing as t

import jinja2
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.words import sentences
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import human_bytes

from .._steps import STEPS
from .model import NOT_SELECTED, adapters_of
from .run import Data
from .words import BAD, GOOD, device, grouped, origin, state_words

_TEMPLATE = pathlib.Path(__file__).with_name("page.html.j2")
# The distances of a golden: key, name, how far a value is from equality, and the limit in words.
_MEASURES: tuple[tuple[str, str, t.Callable[[float], float], str], ...] = (
    ("on", "With the adapter", abs, "at most {:.3f}"),
    ("off", "Base alone", abs, "at most {:.3f}"),
    ("direction", "Direction of the effect", lambda value: 1 - value, "at least {:.3f}"),
    ("strength", "Strength of the effect", lambda value: abs(1 - value), "1 ± {:.3f}"),
)
# Facts that always stay with their node.
_OWN = frozenset({"problems", "drift"})


@dataclasses.dataclass
class _Card:
    """What the page shows about one adapter on one node, or about a release on several nodes.

    ``facts`` are its values by name. A fact that all nodes with the release share is only on the
    card of that release, ``release``.
    """

    id: str
    node: Data
    adapter: Data
    facts: Data
    release: _Card | None = None
    nodes: int = 1


def as_html(report: Data) -> str:
    """Return the page. Every value of the report is text in it, never markup."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["words"] = lambda state: state_words(state, report["check_mode"])
    environment.filters.update(shape=_shape, bytes=human_bytes)
    pairs = adapters_of(report)
    cards = _cards(report)
    releases = _releases([card for of_node in cards.values() for card in of_node])
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    covered = [adapter for _node, adapter in pairs if adapter["state"] != NOT_SELECTED]
    return template.render(
        report=report,
        failures=grouped(report["failures"]),
        # One column for each adapter, whatever the number of nodes that serve it.
        columns=list(dict.fromkeys(adapter["name"] for _node, adapter in pairs)),
        cards=cards,
        releases=releases,
        good=sum(adapter["state"] in GOOD for adapter in covered),
        covered=len(covered),
        steps={step.key: step.done for step in STEPS},
        # The steps of any node, in their order.
        durations=[step.key for step in STEPS if any(step.key in node["seconds"] for node in report["nodes"])],
        longest=max((sum(node["seconds"].values()) for node in report["nodes"]), default=0.0),
    )


def _cards(report: Data) -> dict[str, list[_Card]]:
    """Return the cards of each node."""
    found: dict[str, list[_Card]] = {}
    for node in report["nodes"]:
        names = [adapter["name"] for adapter in node["adapters"]]
        found[node["node"]] = [
            _Card(
                # Two agents may serve the same adapter.
                "/".join([node["node"], *([adapter["agent"]] if names.count(adapter["name"]) > 1 else []), adapter["name"]]),
                node,
                adapter,
                _facts(report, node, adapter),
            )
            for adapter in node["adapters"]
        ]
    return found


def _releases(cards: c.Iterable[_Card]) -> list[_Card]:
    """Move the facts that all nodes with a release share to a card of that release."""
    alike: dict[tuple[str, str], list[_Card]] = {}
    for card in cards:
        if card.adapter["release"]:
            alike.setdefault((card.adapter["name"], card.adapter["release"]), []).append(card)
    releases: list[_Card] = []
    for of_release in alike.values():
        first, *others = of_release
        shared = [
            name
            for name, fact in first.facts.items()
            if fact and name not in _OWN and all(card.facts[name] == fact for card in others)
        ]
        if others and shared:
            facts = {name: fact if name in shared else None for name, fact in first.facts.items()}
            nodes = len({card.node["node"] for card in of_release})
            release = _Card(f"release/{len(releases) + 1}", first.node, first.adapter, facts, nodes=nodes)
            releases.append(release)
            for card in of_release:
                card.facts.update(dict.fromkeys(shared))
                card.release = release
    return releases


def _facts(report: Data, node: Data, adapter: Data) -> Data:
    """Return what the page shows about an adapter. It does not show what is empty or None."""
    test, changes = adapter["test"] or {}, adapter["changes"] or {"before": {}, "after": {}}
    downloaded, reused, effect = adapter["downloaded_bytes"], adapter["reused_bytes"], test.get("effect")
    return {
        "origin": origin(adapter),
        "level": test.get("level"),
        "device": device(adapter),
        "effect": None if effect is None else f"{100 * effect:.1f} %",
        "limited_by": test.get("limited_by"),
        "base": adapter["base"],
        "rank": f"{adapter['rank']} and {adapter['alpha']}" if adapter["rank"] else None,
        "training": adapter["dataset"],
        "quality": adapter["quality"],
        "size": human_bytes(adapter["size"]) if adapter["size"] else None,
        "downloaded": None
        if downloaded is None
        else human_bytes(downloaded) + (f", {human_bytes(reused)} reused" if reused else ""),
        "path": adapter["path"],
        "digest": adapter["digest"],
        "verified": test.get("at") and {"at": test["at"], "earlier": test["from_receipt"]},
        "problems": [] if adapter["state"] in GOOD else _problems(report, node, adapter),
        "drift": adapter["drift"],
        "engines": [{**verdict, "sentences": sentences(verdict)} for verdict in adapter["engines"]],
        "engine_notes": adapter["engine_notes"],
        "measures": _measures(test) if test.get("distances") and test.get("permitted") else None,
        "changes": {
            key: (changes["before"].get(key), after)
            for key, after in changes["after"].items()
            if after != changes["before"].get(key)
        },
        **_history(adapter),
        "files": adapter["files"],
        "excluded": adapter.get("excluded"),
        "checks": {key: test.get(key) or [] for key in ("checks", "notes", "versions")}
        if test.get("checks") or test.get("notes") or test.get("versions")
        else None,
    }


def _history(adapter: Data) -> Data:
    """Return the releases in the store, or only the time if there is none but the active one."""
    history = [
        {**entry, "active": entry["release"] == adapter["release"], "previous": entry["release"] == adapter["previous"]}
        for entry in reversed(adapter["history"])
    ]
    alone = len(history) == 1 and history[0]["active"]
    return {"activated": history[0]["at"] if alone else None, "history": [] if alone else history}


def _problems(report: Data, node: Data, adapter: Data) -> list[str]:
    """Return the problems of an adapter, except differences, which are listed one by one."""
    if adapter["drift"]:
        return []
    return [
        failure["problem"]
        for failure in report["failures"]
        if failure["node"] == node["node"] and failure["adapter"] in (None, adapter["name"])
    ]


def _shape(state: str) -> str:
    """Return the symbol of a state, which distinguishes it from others without colour."""
    return "good" if state in GOOD else "bad" if state in BAD else "waiting" if state != NOT_SELECTED else "none"


def _measures(test: Data) -> list[Data]:
    """Return the distances from the golden, their limits, and both in percent of the gauge."""
    found, permitted = test["distances"], test["permitted"]
    gauges = []
    for key, name, distance, text in _MEASURES:
        far, limit = distance(found[key]), distance(permitted[key]) if key == "direction" else permitted[key]
        scale = max(far, limit) * 1.25 or 1.0
        gauges.append(
            {
                "name": name,
                "found": f"{found[key]:.3f}",
                "permitted": text.format(permitted[key]),
                "within": far <= limit,
                "far": round(100 * far / scale, 1),
                "limit": round(100 * limit / scale, 1),
            }
        )
    return gauges
