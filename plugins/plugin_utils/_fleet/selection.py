# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Selects adapters by the tags of a run."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import first

# Tags with a special meaning in Ansible. They select no agent and no variant.
SPECIAL_TAGS = frozenset({"all", "always", "never", "tagged", "untagged"})


def select(
    rows: c.Sequence[dict[str, t.Any]],
    fleet: c.Mapping[str, c.Collection[str]],
    run_tags: c.Collection[str],
    skip_tags: c.Collection[str],
    task_tags: c.Collection[str] = (),
    other_tags: c.Collection[str] = (),
) -> list[dict[str, t.Any]]:
    """Return those ``rows``, each of which names its agent, that the tags of a run select.

    Agents and variants are combined: ``cleaner,8b`` selects only the cleaner's 8b. Several agents,
    or several variants, are alternatives. Without a tag of one kind, all of that kind are selected.

    ``fleet`` maps every agent to its variants. ``task_tags`` are those that the role itself has in
    the user's playbook: alone, they select every adapter. ``other_tags`` belong to other parts of
    that playbook: alone, they select none. Raises DeliveryError for any other tag, and for tags
    that select no adapter of the fleet, because a typing error must not deliver nothing. Unknown
    tags to skip are ignored: they may belong to another part of the playbook.
    """
    agents = set(fleet)
    variants = {variant for of_agent in fleet.values() for variant in of_agent}
    wanted = set(run_tags) - SPECIAL_TAGS
    skipped = set(skip_tags) - SPECIAL_TAGS
    ours = wanted & (agents | variants | set(task_tags))
    unknown = sorted(wanted - ours - set(other_tags))
    if unknown:
        raise DeliveryError.of(
            f"tag {', '.join(unknown)}",
            "names no agent and no variant of the inventory.",
            f"Agents: {', '.join(sorted(agents))}. Variants: {', '.join(sorted(variants))}.",
        )
    of_agents, of_variants = wanted & agents, wanted & variants
    if of_agents and of_variants and not any(of_variants & set(fleet[agent]) for agent in of_agents):
        raise DeliveryError.of(
            f"tags {', '.join(sorted(of_agents | of_variants))}",
            "together select no adapter: none of these agents has such a variant.",
            " ".join(f"{agent}: {', '.join(sorted(fleet[agent]))}." for agent in sorted(of_agents)),
        )

    if wanted and not ours:
        return []

    def selected(agent: str, variant: str) -> bool:
        wanted = (not of_agents or agent in of_agents) and (not of_variants or variant in of_variants)
        return wanted and agent not in skipped and variant not in skipped

    return [row for row in rows if selected(row["agent"], row["variant"])]


def check_selected(
    selected: c.Mapping[str, c.Sequence[dict[str, t.Any]]],
    hosts: c.Collection[str] | None,
    run_tags: c.Collection[str],
    skip_tags: c.Collection[str],
    unknown: c.Collection[str] = (),
) -> list[Problem]:
    """Return the problem of a run whose tags and limit together leave nothing to do.

    ``selected`` maps each node to the rows that the tags select. ``hosts`` are those of the limit,
    None without one. The rows of ``unknown`` nodes cannot be evaluated before the first contact.
    """
    limited = [node for node in selected if hosts is None or node in hosts]
    if not limited:
        return [Problem("--limit", "selects no node.", f"Name nodes or their groups. Nodes: {first(selected)}.")]
    if any(selected[node] or node in unknown for node in limited):
        return []
    wanted, skipped = (sorted(set(tags) - SPECIAL_TAGS) for tags in (run_tags, skip_tags))
    given = [
        *([f"--tags {','.join(wanted)}"] if wanted else []),
        *([f"--skip-tags {','.join(skipped)}"] if skipped else []),
        *(["--limit"] if hosts is not None else []),
    ]
    others = [node for node, rows in selected.items() if rows]
    remedy = f"Without the limit, they select adapters on {first(others)}." if others else "Leave out some of the tags."
    return [Problem(" ".join(given), "together select no adapter.", remedy)]
