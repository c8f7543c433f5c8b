# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""report.html as text. tests/integration/test_report_page.py opens it in a browser."""

from __future__ import annotations

import html.parser
import re
import typing as t
import urllib.parse

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.html import as_html
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._steps import STEPS

from tests.support.reports import NAMES, SIGNED, UNSIGNED, hostile, in_waves, load, many, troubled


class Page(html.parser.HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, t.Any]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _tag, attributes in self.elements if attribute in attributes]


def test_as_html_defines_each_colour_in_both_themes() -> None:
    text = as_html(load("deployed"))
    for colour in set(re.findall(r"var\((--[a-z]+)\)", text)):
        # The print theme may define it a third time.
        assert text.count(f"{colour}: #") >= 2, colour
    assert {f"--{step.key}" for step in STEPS} <= set(re.findall(r"var\((--[a-z]+)\)", text))


@pytest.mark.parametrize("name", NAMES)
def test_as_html_recorded_reports_are_complete(name: str) -> None:
    report = load(name)
    page = Page(as_html(report))
    text = " ".join(page.text.split())
    for failure in report["failures"]:
        assert " ".join(failure["problem"].split()) in text
        assert failure["remedy"] in text
    for node in report["nodes"]:
        for adapter in node["adapters"]:
            for value in (adapter["digest"], adapter["previous"], *adapter["drift"], *(f["sha256"] for f in adapter["files"])):
                assert value is None or " ".join(value.split()) in text
            for check in (adapter["test"] or {}).get("checks") or ():
                assert check in text
            for verdict in adapter["engines"]:
                assert f"{verdict['engine']} {verdict['version']}: {verdict['state']}" in text
                assert verdict["state"] == "right" or (verdict["message"] in text and verdict["remedy"] in text)
    assert ("a rollback restores it" in text) == any(
        entry["release"] == adapter["previous"]
        for node in report["nodes"]
        for adapter in node["adapters"]
        for entry in adapter["history"]
    )


@pytest.mark.parametrize("name", NAMES)
def test_as_html_links_stay_on_the_page(name: str) -> None:
    page = Page(as_html(load(name)))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    links = [urllib.parse.unquote(link) for link in page.values("href") if link != "data:,"]
    assert links and {link.removeprefix("#") for link in links} <= set(ids)
    assert page.values("src") == []
    for attribute in ("aria-labelledby",):
        assert set(page.values(attribute)) <= set(ids)


def test_as_html_hostile_text_is_escaped() -> None:
    report, text = hostile(load("deployed")), as_html(hostile(load("deployed")))
    page = Page(text)
    harmless = {tag for tag, _attributes in Page(as_html(load("drifted"))).elements} | {"br"}
    assert {tag for tag, _attributes in page.elements} <= harmless
    assert not [name for _tag, attributes in page.elements for name in attributes if name.startswith("on")]
    assert report["nodes"][0]["address"] in page.text
    assert report["nodes"][0]["agents"][0] in page.text


def test_as_html_of_many_equal_nodes_has_one_card_and_all_names() -> None:
    report = many(200)
    text = as_html(report)
    assert len(text.encode()) < 150_000
    page = Page(text)
    shared = report["nodes"][0]["adapters"][0]
    # Once for all nodes.
    assert page.text.count(shared["digest"]) == page.text.count(shared["files"][0]["sha256"]) == 1
    assert "gpu-[001:200]" in page.text and "Verified2026-11-22 12:00:00 UTC to 2026-11-22 12:03:19 UTC" in page.text
    assert [tag for tag, attributes in page.elements if attributes.get("class") == "card"] == ["article"]
    for node in report["nodes"]:
        assert f"node/{node['node']}" in page.values("id")
        assert f"{node['node']} {node['address']}" in page.text
        # In the durations.
        assert f"#node/{node['node']}" in page.values("href")
    # The slowest first.
    names = re.findall(r"(?<=#node/)gpu-\d+", text)
    assert names == sorted(names, reverse=True)


def test_as_html_of_many_nodes_and_adapters_that_fail_in_many_ways_is_small() -> None:
    text = as_html(troubled(200))
    assert len(text.encode()) < 350_000
    page = Page(text)
    assert page.text.count("fails in way 96.") == 2
    assert "gpu-097, gpu-197" in page.text
    assert {attributes["data-shape"] for _tag, attributes in page.elements if "data-shape" in attributes} == {"bad", "good"}


def test_as_html_nodes_differing_in_one_fact_are_not_alike() -> None:
    changes: list[dict[str, t.Any]] = [
        {"digest": "0" * 64}, {"level": "structure"}, {"device_name": "another"}, {"checks": ["another"]}, {"drift": ["x"]},
        {"state": "failed"}, {"release": None}, {"engines": []}, {"engine_notes": ["another"]}, {"path": "/another"},
        {"way": "direct"}, {"history": []}, {"at": None}, {"from_receipt": True}, {"effect": None}, {"agent": "another"},
        {"serving": [{"engine": "vllm", "url": "u", "state": "behind", "release": None, "why": ""}]},
        {"excluded": [{"path": "x", "reason": "y"}]}, {"signed": SIGNED}, {"signed": UNSIGNED},
        {"distances": {"on": 9.0, "off": 0.0, "direction": 1.0, "strength": 1.0}},
    ]  # fmt: skip
    report = many(40)
    for node, change in zip(report["nodes"][1:], changes):
        [adapter] = node["adapters"]
        for key, value in change.items():
            (adapter["test"] if key in adapter["test"] else adapter)[key] = value
    names = re.findall(r'<tr data-shape="[a-z]+"><th scope="row">(.*?)<br>', as_html(report))
    last = len(changes) + 1
    assert names == [f"gpu-001, gpu-[{last + 1:03}:040]", *(f"gpu-{number:03}" for number in range(2, last + 1))]


def test_as_html_of_few_equal_nodes_shows_them_one_by_one() -> None:
    page = Page(as_html(many(10)))
    assert "fieldset" not in {tag for tag, _attributes in page.elements}
    assert [attributes["id"] for tag, attributes in page.elements if tag == "h3" and "id" in attributes] == [
        f"node/gpu-{number:03}" for number in range(1, 11)
    ]


def test_as_html_nodes_that_are_alike_show_the_worst_measure_and_both_ends_of_the_effect() -> None:
    report = many(12)
    for number, node in enumerate(report["nodes"]):
        [adapter] = node["adapters"]
        distances = {"on": 0.01 * number, "off": 0.0, "direction": 1.0, "strength": 1.0, "top1": 1.0}
        adapter["test"].update(distances=distances, effect=0.1 + number / 1000)
        adapter["test"]["permitted"] = {"on": 0.2, "off": 0.1, "direction": 0.9, "strength": 0.1}
    text = as_html(report)
    assert '<th scope="row">With the adapter</th><td class="number">0.110</td>' in text
    assert "10.0 % to 11.1 %" in text


def test_as_html_facts_of_one_node_stay_with_it() -> None:
    report = many(3)
    differing = report["nodes"][1]["adapters"][0]
    differing["test"]["device_name"] = "another processor"
    differing["drift"] = ["missing  /x"]
    text = " ".join(Page(as_html(report)).text.split())
    own = text[text.index(" gpu-002 describer") : text.index(" gpu-003 describer")]
    assert "cpu another processor" in own and "missing /x" in own
    assert "cpu AMD EPYC" not in own and "cpu AMD EPYC" in text


def test_as_html_differences_that_all_nodes_have_stay_with_each_node() -> None:
    report = many(3)
    for node in report["nodes"]:
        node["adapters"][0].update(state="differs", drift=["missing  /x"])
    assert Page(as_html(report)).text.count("missing  /x") == 3


def test_as_html_failure_of_a_node_is_not_on_cards_of_adapters_that_are_served() -> None:
    report = load("failed")
    failure = {**report["failures"][0], "adapter": None, "problem": "is missing."}
    report["failures"] = [failure]
    adapters = next(node["adapters"] for node in report["nodes"] if node["node"] == failure["node"])
    assert Page(as_html(report)).text.count("is missing.") == 1 + len(adapters)
    adapters[0]["state"] = "activated"
    assert Page(as_html(report)).text.count("is missing.") == len(adapters)


def test_as_html_of_adapter_that_two_agents_serve_has_a_card_for_each() -> None:
    report = load("deployed")
    node = report["nodes"][0]
    node["agents"], node["purpose"] = ["cleaner", "corrector"], {"cleaner": "Grammar", "corrector": "Style"}
    node["adapters"] = [node["adapters"][0], {**node["adapters"][0], "agent": "corrector", "state": "differs", "drift": ["x"]}]
    page = Page(as_html(report))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for agent in node["agents"]:
        link = f"{node['node']}/{agent}/{node['adapters'][0]['name']}"
        assert link in ids and f"#{link}" in page.values("href")
    assert "cleaner (Grammar), corrector (Style)" in page.text


def test_as_html_shows_the_way_of_the_files() -> None:
    report = load("deployed")
    report["nodes"][0]["adapters"][0].update(downloaded_bytes=97_300_000, reused_bytes=0, way="direct", not_taken=[])
    assert "97.3 MB (direct)" in Page(as_html(report)).text


def test_as_html_says_by_whom_a_release_is_signed() -> None:
    report = load("deployed")
    for adapter, signed in zip(report["nodes"][0]["adapters"], (SIGNED, UNSIGNED)):
        adapter["signed"] = signed
    text = Page(as_html(report)).text
    assert "Signaturesigned by alice, bob, serial 7, until 2026-11-29T12:00:00+00:00" in text
    assert "Signatureunsigned" in text
    assert text.count("Signature") == 2


def test_as_html_unfinished_run_without_results_renders() -> None:
    report = {**load("failed"), "ended": None, "seconds": None, "failures": []}
    for node in report["nodes"]:
        node.update(seconds={}, wire_bytes=None)
        for adapter in node["adapters"]:
            adapter.update(state="not_selected", test=None, release=None, files=[], history=[], changes=None, drift=[])
    assert "Unfinished run: deploy" in as_html(report)
    assert as_html({**report, "nodes": [], "boxes": []})


def test_as_html_rollout_has_its_waves() -> None:
    assert "not started: wave 1 failed (jw2-1)" in Page(as_html(in_waves(load("failed")))).text
    assert "Rollout" not in Page(as_html(load("failed"))).text


def test_as_html_gauges_show_distances_against_limits() -> None:
    report = load("deployed")
    del report["nodes"][1:]
    test = report["nodes"][0]["adapters"][0]["test"]
    test["distances"] = {"on": 0.24, "off": 0.04, "direction": 0.96, "strength": 1.05, "top1": 1.0}
    gauges = [
        (float(attributes["width"]), attributes["class"])
        for tag, attributes in Page(as_html(report)).elements
        if tag == "rect" and attributes.get("class", "").split()[:1] in (["permitted"], ["far"])
    ][:8]
    # Twice the limit, half of it, twice, half.
    assert gauges == [
        (40.0, "permitted"), (80.0, "far bad"), (80.0, "permitted"), (40.0, "far good"),
        (40.0, "permitted"), (80.0, "far bad"), (80.0, "permitted"), (40.0, "far good"),
    ]  # fmt: skip


def test_as_html_shows_what_is_held_back_and_notes_of_unknown_engines() -> None:
    report = load("deployed")
    first, second, *_others = (adapter for node in report["nodes"] for adapter in node["adapters"])
    [right] = first["engines"]
    words = {"message": "It ignores use_rslora.", "figure": 1.161, "remedy": "Set alpha."}
    first["engines"] = [{**right, "engine": "llama_cpp", "version": None, "state": "wrong", "held_back": True, **words}]
    second.update(engines=[], engine_notes=["Some engines ignore it."])
    text = " ".join(Page(as_html(report)).text.split())
    said = "It ignores use_rslora. Log-probabilities were up to 1.161 away from PEFT's. Set alpha."
    assert f"Engines llama_cpp: wrong, blocked{said}" in text
    assert "Engines Some engines ignore it." in text
