# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.selection import SPECIAL_TAGS, check_selected, select
from hypothesis import given
from hypothesis import strategies as st

AGENTS = ("cleaner", "describer", "paraphraser")
VARIANTS = ("3b", "8b")
FLEET = dict.fromkeys(AGENTS, VARIANTS)
ALL = {f"{agent} {variant}" for agent in AGENTS for variant in VARIANTS}


def rows(agent: str) -> list[dict[str, t.Any]]:
    return [{"agent": agent, "name": f"{agent}_{variant}_lora", "variant": variant} for variant in VARIANTS]


EVERY_ROW = [row for agent in AGENTS for row in rows(agent)]


def selected(run_tags: t.Sequence[str], skip_tags: t.Sequence[str] = ()) -> set[str]:
    """The adapters that are selected in the whole fleet, as 'agent variant'."""
    return {f"{row['agent']} {row['variant']}" for row in select(EVERY_ROW, FLEET, run_tags, skip_tags)}


@pytest.mark.parametrize(
    ("run_tags", "skip_tags", "expected"),
    [
        (["all"], [], ALL),
        ([], [], ALL),
        (["cleaner"], [], {"cleaner 3b", "cleaner 8b"}),
        (["cleaner", "paraphraser"], [], {"cleaner 3b", "cleaner 8b", "paraphraser 3b", "paraphraser 8b"}),
        (["3b"], [], {"cleaner 3b", "describer 3b", "paraphraser 3b"}),
        (["3b", "8b"], [], ALL),
        (["cleaner", "8b"], [], {"cleaner 8b"}),
        (["8b", "cleaner"], [], {"cleaner 8b"}),
        (["cleaner", "describer", "3b"], [], {"cleaner 3b", "describer 3b"}),
        (["cleaner", "3b", "8b"], [], {"cleaner 3b", "cleaner 8b"}),
        ([*AGENTS, *VARIANTS], [], ALL),
        (["all"], ["cleaner"], ALL - {"cleaner 3b", "cleaner 8b"}),
        (["all"], ["8b"], {"cleaner 3b", "describer 3b", "paraphraser 3b"}),
        (["all"], ["cleaner", "8b"], {"describer 3b", "paraphraser 3b"}),
        (["cleaner"], ["8b"], {"cleaner 3b"}),
        (["cleaner"], ["cleaner"], set()),
        # Tags to skip that belong to something else.
        (["cleaner"], ["molecule-notest", "cleanr"], {"cleaner 3b", "cleaner 8b"}),
        (["all", "always"], ["never"], ALL),
        (["tagged"], [], ALL),
        (["untagged"], ["all"], ALL),
    ],
)
def test_select_tags_select_adapters(run_tags: list[str], skip_tags: list[str], expected: set[str]) -> None:
    assert selected(run_tags, skip_tags) == expected


@pytest.mark.parametrize("run_tags", [["cleanr"], ["cleaner", "9b"], ["Cleaner"], [""]])
def test_select_unknown_tag_is_refused(run_tags: list[str]) -> None:
    # Whatever the agent: a typing error must not end as 'nothing to do' on any of them.
    for agent in AGENTS:
        with pytest.raises(DeliveryError, match=r"names no agent and no variant of the inventory") as caught:
            select(rows(agent), FLEET, run_tags, [])
        assert "Agents: cleaner, describer, paraphraser. Variants: 3b, 8b." in str(caught.value)


def test_select_several_unknown_tags_are_all_named() -> None:
    with pytest.raises(DeliveryError, match=r"^tag 9b, cleanr: names no agent"):
        selected(["cleanr", "9b", "cleaner"])


def test_select_tags_without_common_adapter_are_refused() -> None:
    fleet = {"cleaner": ["3b", "8b"], "describer": ["3b"]}
    assert select(rows("cleaner"), fleet, ["cleaner", "describer", "8b"], []) == rows("cleaner")[1:]
    # Whatever the agent: the node of another one must not end as if it were right.
    for agent in fleet:
        with pytest.raises(DeliveryError, match=r"^tags 8b, describer: together select no adapter: .* describer: 3b\.$"):
            select(rows(agent), fleet, ["describer", "8b"], [])


TAGS = st.lists(st.sampled_from([*AGENTS, *VARIANTS, "all"]), max_size=6)


@given(TAGS, TAGS)
def test_select_more_kinds_of_tags_never_select_more(run_tags: list[str], skip_tags: list[str]) -> None:
    found = selected(run_tags, skip_tags)
    assert found <= selected(run_tags) <= ALL
    assert selected([], skip_tags) == selected(["all"], skip_tags)
    assert not {entry for entry in found if set(entry.split()) & set(skip_tags)}
    for kind in (AGENTS, VARIANTS):
        named = set(run_tags) & set(kind)
        assert not named or {word for entry in found for word in entry.split() if word in kind} <= named


@given(TAGS, st.sampled_from(AGENTS), st.sampled_from(VARIANTS))
def test_select_agent_and_variant_select_intersection(run_tags: list[str], agent: str, variant: str) -> None:
    assert selected([agent, variant]) == selected([agent]) & selected([variant]) == {f"{agent} {variant}"}
    of_agents = [tag for tag in run_tags if tag in AGENTS]
    of_variants = [tag for tag in run_tags if tag in VARIANTS]
    assert selected(run_tags) == selected(of_agents) & selected(of_variants)


@given(TAGS, TAGS, st.randoms())
def test_select_order_and_repetition_are_irrelevant(run_tags: list[str], skip_tags: list[str], random: t.Any) -> None:
    shuffled = [*run_tags, *run_tags]
    random.shuffle(shuffled)
    assert selected(shuffled, skip_tags[::-1]) == selected(run_tags, skip_tags)


@given(TAGS, TAGS, TAGS)
def test_select_task_tags_select_nothing(run_tags: list[str], skip_tags: list[str], task_tags: list[str]) -> None:
    """Whether or not they are also names of agents or variants."""
    found = select(EVERY_ROW, FLEET, [*run_tags, "deliver"], skip_tags, [*task_tags, "deliver"])
    assert found == select(EVERY_ROW, FLEET, run_tags, skip_tags)


@given(TAGS, TAGS, TAGS)
def test_select_other_tags_alone_select_no_adapter(run_tags: list[str], skip_tags: list[str], other_tags: list[str]) -> None:
    found = select(EVERY_ROW, FLEET, [*run_tags, "drain"], skip_tags, (), [*other_tags, "drain"])
    named = set(run_tags) - SPECIAL_TAGS
    assert found == (select(EVERY_ROW, FLEET, run_tags, skip_tags) if named else [])


@given(TAGS, TAGS)
def test_select_rows_of_several_agents_are_selected_as_on_nodes_of_their_own(run_tags: list[str], skip_tags: list[str]) -> None:
    apart = [row for agent in AGENTS for row in select(rows(agent), FLEET, run_tags, skip_tags)]
    assert select(EVERY_ROW, FLEET, run_tags, skip_tags) == apart


SELECTED = {"jw2-1": rows("cleaner"), "jw3-1": []}


def test_check_selected_run_with_work_has_no_problem() -> None:
    assert check_selected(SELECTED, None, ["cleaner"], []) == []
    assert check_selected(SELECTED, ["jw2-1", "sbs29"], ["all"], []) == []


def test_check_selected_limit_without_nodes_is_refused() -> None:
    [problem] = check_selected(SELECTED, ["sbs29"], ["all"], [])
    assert str(problem) == "--limit: selects no node. Name nodes or their groups. Nodes: jw2-1, jw3-1."


@pytest.mark.parametrize(
    ("hosts", "run_tags", "skip_tags", "subject"),
    [
        (["jw3-1"], ["cleaner", "all"], [], "--tags cleaner --limit"),
        (["jw3-1"], ["all"], ["describer"], "--skip-tags describer --limit"),
    ],
)
def test_check_selected_tags_and_limit_without_adapter_are_refused(
    hosts: list[str], run_tags: list[str], skip_tags: list[str], subject: str
) -> None:
    expected = f"{subject}: together select no adapter. Without the limit, they select adapters on jw2-1."
    assert [str(problem) for problem in check_selected(SELECTED, hosts, run_tags, skip_tags)] == [expected]
    assert check_selected(SELECTED, hosts, run_tags, skip_tags, unknown=["jw3-1"]) == []


def test_check_selected_all_tags_skipped_is_refused() -> None:
    [problem] = check_selected({"jw2-1": []}, None, ["cleaner"], ["cleaner"])
    assert str(problem) == "--tags cleaner --skip-tags cleaner: together select no adapter. Leave out some of the tags."
