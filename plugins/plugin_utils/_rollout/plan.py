# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The plan of a rollout: which nodes of each agent are delivered in which wave.

A node that serves several agents is delivered once, with all its adapters. So the run goes through
*turns*: the turn of a node comes after those of all nodes in earlier waves of its agents. Where no
node serves several agents, wave and turn are the same.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

from .serial import in_waves


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A selected node. ``agents`` are those with selected adapters there.

    ``serves`` is whether an engine there has a url.
    """

    name: str
    agents: tuple[str, ...]
    serves: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """The waves of each agent, the turn of each node, and the nodes that go back after a failure.

    Waves and turns are counted from 1. ``serving`` are the nodes that pass only once their engines
    serve the releases.
    """

    waves: dict[str, list[list[str]]]
    turns: dict[str, int]
    back: frozenset[str] = frozenset()
    serving: frozenset[str] = frozenset()

    @classmethod
    def of(cls, nodes: c.Sequence[Candidate], serial: c.Mapping[str, list[int | str]], back: c.Iterable[str] = ()) -> Plan:
        """``serial`` has the sizes of the waves of each agent. Nodes are taken in their order."""
        agents = dict.fromkeys(agent for node in nodes for agent in node.agents)
        waves = {agent: in_waves([node.name for node in nodes if agent in node.agents], serial[agent]) for agent in agents}
        number = {(agent, node): wave for agent in agents for wave, of in enumerate(waves[agent]) for node in of}
        # The last turn of the waves so far, by agent. Earlier waves have earlier nodes.
        last: dict[str, list[int]] = {agent: [0] * len(waves[agent]) for agent in agents}
        turns: dict[str, int] = {}
        for node in nodes:
            turns[node.name] = 1 + max(max(last[agent][: number[agent, node.name]], default=0) for agent in node.agents)
            for agent in node.agents:
                wave = number[agent, node.name]
                last[agent][wave] = max(last[agent][wave], turns[node.name])
        return cls(waves, turns, frozenset(back), frozenset(node.name for node in nodes if node.serves))

    @property
    def last_turn(self) -> int:
        return max(self.turns.values(), default=1)

    @property
    def is_needed(self) -> bool:
        """Whether anything depends on the plan: whether the nodes are not merely all delivered."""
        return self.last_turn > 1 or bool(self.back)

    def turn(self, node: str) -> int:
        """Return the turn of a node.

        A node that the inventory did not show to be selected comes with the last.
        """
        return self.turns.get(node, self.last_turn)

    def wave(self, agent: str, node: str) -> int:
        """Return the wave of a node.

        A node that the inventory did not show to be selected is in the wave whose turn is the last,
        or comes after all waves of the agent if none of them is.
        """
        waves = self.waves.get(agent, [])
        own = [number for number, nodes in enumerate(waves, 1) if node in nodes]
        last = [number for number, nodes in enumerate(waves, 1) if self.last_turn in map(self.turn, nodes)]
        return next(iter(own if node in self.turns else last), len(waves) + 1)

    def to_json(self) -> dict[str, t.Any]:
        return {"waves": self.waves, "turns": self.turns, "back": sorted(self.back), "serving": sorted(self.serving)}

    @classmethod
    def from_json(cls, data: c.Mapping[str, t.Any]) -> Plan:
        return cls(data["waves"], data["turns"], frozenset(data["back"]), frozenset(data["serving"]))
