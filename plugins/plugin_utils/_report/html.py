# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""report.html: the report as one self-contained page, rendered from ``page.html.j2``."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import functools
import json
import pathlib
import typing as t

import jinja2
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.words import sentences
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.words import signature_line
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import human_bytes

from .._node_names import listed
from .._steps import STEPS
from .alike import is_large, span, together
from .model import adapters_of
from .run import Data
from .states import NOT_SELECTED
from .table import duration_lines
from .waves import wave_words
from .words import BAD, GOOD, device, grouped, origin, state_words

_TEMPLATE = pathlib.Path(__file__).with_name("page.html.j2")
# The distances of a golden: key, name, how far a value is from equality, and the limit in words.
_MEASURES: tuple[tuple[str, str, t.Callable[[float], float], str], ...] = (
    ("on", "With the adapter", abs, "at most {:.3f}"),
    ("off", "Base alone", abs, "at most {:.3f}"),
    ("direction", "Direction of the effect", lambda value: 1 - value, "at least {:.3f}"),
    ("strength", "Strength of the effect", lambda value: abs(1 - value), "1 ± {:.3f}"),
)
# What a card shows of an adapter beside its facts.
_OF_CARD = ("agent", "name", "variant", "default", "state", "release", "way")
# Facts that always stay with their node.
_OWN = frozenset({"problems", "drift"})


# Of a node with adapters of several shapes, the one that the node is listed under.
_SHAPES = ("bad", "waiting", "good", "none")


@dataclasses.dataclass
class _Card:
    """What the page shows about one adapter on nodes that are alike, or about a release.

    ``owner`` names these nodes, and ``facts`` are the adapter's values by name. A fact that all
    nodes with the release share is only on the card of that release, ``release``.
    """

    id: str
    owner: str
    nodes: tuple[str, ...]
    adapter: Data
    facts: Data
    release: _Card | None = None


@dataclasses.dataclass
class _Group:
    """Nodes that are alike, with the cards of their adapters. ``node`` is the first of them."""

    name: str
    nodes: list[Data]
    cards: list[_Card]
    shape: str

    @property
    def node(self) -> Data:
        return self.nodes[0]


@functools.cache
def _template() -> jinja2.Template:
    """Return the compiled page: a run writes it at its beginning and at its end."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(words=state_words, shape=_shape, bytes=human_bytes, wave=wave_words, listed=listed, moment=_moment)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def as_html(report: Data) -> str:
    """Return the page. Every value of the report is text in it, never markup."""
    pairs = adapters_of(report)
    groups = _groups(report)
    releases = _releases([card for group in groups for card in group.cards])
    covered = [adapter for _node, adapter in pairs if adapter["state"] != NOT_SELECTED]
    seconds = {node["node"]: sum(node["seconds"].values()) for node in report["nodes"]}
    timed = [node for node in report["nodes"] if node["seconds"]]
    return _template().render(
        report=report,
        failures=grouped(report["failures"]),
        # One column for each adapter, whatever the number of nodes that serve it.
        columns=list(dict.fromkeys(adapter["name"] for _node, adapter in pairs)),
        groups=groups,
        large=is_large(report),
        shapes={node["node"]: group.shape for group in groups for node in group.nodes},
        releases=releases,
        good=sum(adapter["state"] in GOOD for adapter in covered),
        covered=len(covered),
        steps={step.key: step.done for step in STEPS},
        # The steps of any node, in their order.
        durations=[step.key for step in STEPS if any(step.key in node["seconds"] for node in report["nodes"])],
        # Of many nodes, the slowest are the ones to look at.
        timed=sorted(timed, key=lambda node: -seconds[node["node"]]) if is_large(report) else timed,
        slowest=duration_lines(report),
        longest=max(seconds.values(), default=0.0),
    )


def _groups(report: Data) -> list[_Group]:
    """Return the nodes of the page, those that are alike together."""

    def shown(node: Data) -> str:
        about = [node["group"], node["agents"], node["purpose"], node["notes"]]
        cards = [
            ([adapter.get(key) for key in _OF_CARD], _unmeasured(_facts(report, [(node, adapter)])))
            for adapter in node["adapters"]
        ]
        return json.dumps([about, cards])

    found = []
    for number, nodes in enumerate(together(report, report["nodes"], shown), 1):
        node = nodes[0]
        names = tuple(other["node"] for other in nodes)
        place = node["node"] if len(nodes) == 1 else f"alike/{number}"
        owner = node["node"] if len(nodes) == 1 else f"{node['node']} and {len(nodes) - 1} alike"
        adapters = [adapter["name"] for adapter in node["adapters"]]
        cards = []
        for position, adapter in enumerate(node["adapters"]):
            # Two agents may serve the same adapter.
            name = [*([adapter["agent"]] if adapters.count(adapter["name"]) > 1 else []), adapter["name"]]
            facts = _facts(report, [(other, other["adapters"][position]) for other in nodes])
            cards.append(_Card("/".join([place, *name]), "/".join([owner, *name]), names, adapter, facts))
        shapes = {_shape(adapter["state"]) for adapter in node["adapters"]}
        found.append(_Group(listed(names), nodes, cards, next((shape for shape in _SHAPES if shape in shapes), "none")))
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
            nodes = tuple(dict.fromkeys(name for card in of_release for name in card.nodes))
            owner = f"{first.adapter['name']} {first.adapter['release']}"
            release = _Card(f"release/{len(releases) + 1}", owner, nodes, first.adapter, facts)
            releases.append(release)
            for card in of_release:
                card.facts.update(dict.fromkeys(shared))
                card.release = release
    return releases


def _facts(report: Data, pairs: c.Sequence[tuple[Data, Data]]) -> Data:
    """Return what the page shows about an adapter on nodes that are alike.

    It does not show what is empty or None. Of measured values, it shows the lowest and the highest.
    """
    node, adapter = pairs[0]
    adapters = [other for _node, other in pairs]
    tests = [other["test"] or {} for other in adapters]
    test, changes = tests[0], adapter["changes"] or {"before": {}, "after": {}}
    downloaded = span((other["downloaded_bytes"] for other in adapters), human_bytes)
    reused = span((other["reused_bytes"] or None for other in adapters), human_bytes)
    return {
        "origin": origin(adapter),
        # A report of an earlier version has no such key, here and in the other forms.
        "signed": signature_line(adapter.get("signed")),
        "level": test.get("level"),
        "device": device(adapter),
        "effect": span((of.get("effect") for of in tests), lambda effect: f"{100 * effect:.1f} %"),
        "limited_by": test.get("limited_by"),
        "isolation": test.get("isolation") and f"its own {', '.join(test['isolation'])}",
        "base": adapter["base"],
        "rank": f"{adapter['rank']} and {adapter['alpha']}" if adapter["rank"] else None,
        "training": adapter["dataset"],
        "quality": adapter["quality"],
        "size": human_bytes(adapter["size"]) if adapter["size"] else None,
        "downloaded": downloaded
        + (f" ({adapter['way']})" if downloaded and adapter.get("way") else "")
        + (f", {reused} reused" if downloaded and reused else ""),
        "path": adapter["path"],
        "digest": adapter["digest"],
        "verified": test.get("at") and {"at": span((of["at"] for of in tests), _moment), "earlier": test["from_receipt"]},
        "problems": [] if adapter["state"] in GOOD else _problems(report, node, adapter),
        "drift": adapter["drift"],
        "engines": [{**verdict, "sentences": sentences(verdict)} for verdict in adapter["engines"]],
        "engine_notes": adapter["engine_notes"],
        "serving": adapter["serving"],
        "measures": _measures(tests) if test.get("distances") and test.get("permitted") else None,
        "changes": {
            key: (changes["before"].get(key), after)
            for key, after in changes["after"].items()
            if after != changes["before"].get(key)
        },
        **_history(adapters),
        "files": adapter["files"],
        "excluded": adapter.get("excluded"),
        "checks": {key: test.get(key) or [] for key in ("checks", "notes", "versions")}
        if test.get("checks") or test.get("notes") or test.get("versions")
        else None,
    }


def _unmeasured(facts: Data) -> Data:
    """Return the facts in which nodes must be equal to be alike: all but times and measures."""
    return {
        **facts,
        **{key: bool(facts[key]) for key in ("effect", "downloaded", "activated")},
        "verified": facts["verified"] and [facts["verified"]["earlier"]],
        # A value beyond its limit must not be with those within.
        "measures": [(measure["permitted"], measure["within"]) for measure in facts["measures"] or []],
        "history": [{**entry, "at": None} for entry in facts["history"]],
    }


def _history(adapters: c.Sequence[Data]) -> Data:
    """Return the releases in the store, or only the time if there is none but the active one."""
    first = adapters[0]
    history = [
        {
            "release": entries[0]["release"],
            "at": span((entry["at"] for entry in entries), _moment),
            "active": entries[0]["release"] == first["release"],
            "previous": entries[0]["release"] == first["previous"],
        }
        for entries in zip(*(reversed(adapter["history"]) for adapter in adapters))
    ]
    alone = len(history) == 1 and history[0]["active"]
    return {"activated": history[0]["at"] if alone else None, "history": [] if alone else history}


def _moment(at: str) -> str:
    return at.replace("T", " ").replace("+00:00", " UTC")


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


def _measures(tests: c.Sequence[Data]) -> list[Data]:
    """Return the distances from the golden, their limits, and both in percent of the gauge.

    Of several tests, each measure is the one that is farthest from equality.
    """
    gauges = []
    for key, name, distance, text in _MEASURES:
        test = max(tests, key=lambda test: distance(test["distances"][key]))
        found, permitted = test["distances"], test["permitted"]
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
