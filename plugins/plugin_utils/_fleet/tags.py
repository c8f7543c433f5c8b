# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Selects adapters by the tags of a run."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

# Tags with a special meaning in Ansible. They select no agent and no variant.
SPECIAL_TAGS = frozenset({"all", "always", "never", "tagged", "untagged"})


def select(
    adapters: c.Sequence[dict[str, t.Any]],
    agent: str,
    fleet: c.Mapping[str, c.Sequence[t.Any]],
    run_tags: c.Sequence[str],
    skip_tags: c.Sequence[str],
) -> list[dict[str, t.Any]]:
    """Return those rows of one agent's ``adapters`` that the tags of a run select.

    Agents and variants are combined: ``cleaner,8b`` selects only the cleaner's 8b. Several agents,
    or several variants, are alternatives. Without a tag of one kind, all of that kind are selected.

    ``fleet`` maps every agent of the inventory to its variants. Raises DeliveryError for a tag that
    is neither, and for tags that select no adapter, because a typing error must not deliver
    nothing. Unknown tags to skip are ignored: they may belong to another part of the user's
    playbook.
    """
    agents = set(fleet)
    # YAML may have parsed a variant as a number. Tags are always text.
    variants = {str(variant) for of_agent in fleet.values() for variant in of_agent}
    wanted = set(run_tags) - SPECIAL_TAGS
    skipped = set(skip_tags) - SPECIAL_TAGS
    unknown = sorted(wanted - agents - variants)
    if unknown:
        raise DeliveryError.of(
            f"tag {', '.join(unknown)}",
            "names no agent and no variant of the inventory.",
            f"Agents: {', '.join(sorted(agents))}. Variants: {', '.join(sorted(variants))}.",
        )
    of_agents, of_variants = wanted & agents, wanted & variants
    if of_agents and of_variants and not any(str(variant) in of_variants for one in of_agents for variant in fleet[one]):
        raise DeliveryError.of(
            f"tags {', '.join(sorted(wanted))}",
            "together select no adapter: none of these agents has such a variant.",
            " ".join(f"{one}: {', '.join(sorted(map(str, fleet[one])))}." for one in sorted(of_agents)),
        )
    if (of_agents and agent not in of_agents) or agent in skipped:
        return []
    return [
        row for row in adapters if (not of_variants or str(row["variant"]) in of_variants) and str(row["variant"]) not in skipped
    ]
