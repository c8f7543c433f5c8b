# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The manifest text of the training pipeline, as it comes, as it might come, and as it must not."""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.fleet import Node
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.fleet_manifest import (
    Adapter,
    Agent,
    Distribution,
    _names,
    is_fleet_manifest,
    parse,
    variables_of,
)
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.markdown import as_markdown
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.model import report_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.run import Run
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import FIXTURES

SAMPLE = (FIXTURES / "MODEL_MANIFEST.md").read_text(encoding="utf-8")

PLAIN = """\
# Training Server: sbs29 (192.0.2.1)
### Cleaner Agent (Grammar/Noise) -> jw2 (192.0.2.2)
- **3B Default:**
  - Source: `/home/models/a_lora/`
  - Target: `jw2:/home/models/a_lora/`
  - Base: meta/base-3b
  - LoRA rank: 16
  - LoRA alpha: 32
"""
A_LORA = Adapter("a_lora", "3b", True, "meta/base-3b", 16, 32)
CLEANER = Agent("cleaner", "Grammar/Noise", "jw2", ("192.0.2.2",), "/home/models", (A_LORA,))
FLEET = Distribution("sbs29", "192.0.2.1", "/home/models", (CLEANER,))


def test_parse_pipeline_file() -> None:
    assert is_fleet_manifest(SAMPLE)
    fleet = parse(SAMPLE, "MODEL_MANIFEST.md")
    assert (fleet.server, fleet.address, fleet.models_dir) == ("sbs29", "sbs29.etri.re.kr", "/home/models")
    assert [(agent.name, agent.purpose, agent.group, agent.hosts) for agent in fleet.agents] == [
        ("cleaner", "Grammar/Noise", "jw2", {"jw2-1": "129.254.202.252"}),
        # Its heading has "Description Generator", its check box "Describer".
        ("describer", "Context", "jw3", {"jw3-1": "129.254.202.253"}),
        ("paraphraser", "Clarity", "kcloud", {"kcloud-1": "129.254.202.129"}),
    ]
    assert [adapter.row() for adapter in fleet.agents[1].adapters] == [
        {
            "name": f"llama{family}_{variant}_wikipedia_only_lora",
            "variant": variant,
            "default": variant == "3b",
            "base": base,
            "rank": rank,
            "alpha": 32,
            "dataset": "Wikipedia-only (14,982 samples)",
            "quality": "8.8/10 HHEM score; 8.8/10 quality score, 17/20 high-quality responses",
        }
        for family, variant, base, rank in (
            ("32", "3b", "meta-llama/Llama-3.2-3B-Instruct", 16),
            ("31", "8b", "meta-llama/Llama-3.1-8B-Instruct", 32),
        )
    ]
    assert {agent.name: agent.adapters[0].quality for agent in fleet.agents if agent.name != "describer"} == {
        "cleaner": "Tested on JFLEG/BEA",
        "paraphraser": "Tested on PAWS/MSRP",
    }
    assert fleet.training["batch_size"] == "effective 256 via gradient accumulation"
    assert fleet.notes == ("Generated: 2025-10-31",)


def test_is_fleet_manifest_recognizes_title_or_agent_heading() -> None:
    assert is_fleet_manifest(PLAIN)
    assert is_fleet_manifest("# **Model Distribution Manifest**\nempty\n")
    assert not is_fleet_manifest("# A title -> with an arrow\n## Models\n- a -> b\n")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("->", "→"),
        ("\n", "\r\n"),
        ("  - ", "\t* "),
        ("  - ", "    + "),
        ("- **3B Default:**", "* __x__: y\n- **3b default**:"),
        ("Source: `/home/models/a_lora/`", "**Source:** sbs29:/home/models/a_lora"),
        ("  - Base", "\n  - Base"),
        ("jw2:/home", "192.0.2.2:/home"),
        ("jw2:/home", "jw2-1:/home"),
        ("jw2:/home", "/home"),
        ("LoRA rank: 16", "Rank: 16 (3B), 32"),
        ("Agent (Grammar", "(Grammar"),
        ("# Training Server: sbs29 (192.0.2.1)", "- Training Server: sbs29 (192.0.2.1)"),
        ("# Training", "```\n### Other -> jw9\n```\n# Training"),
        ("# Training", "<!--\n### Other -> jw9\n-->\n# Training"),
        ("- **3B Default:**", "- Variant: 3B Default"),
    ],
)
def test_parse_spelling_variants_are_equivalent(before: str, after: str) -> None:
    assert before in PLAIN
    fleet = parse(PLAIN.replace(before, after), "file")
    assert dataclasses.replace(fleet, agents=(dataclasses.replace(fleet.agents[0], notes=()),)) == FLEET


def test_parse_table_is_equivalent_to_bullets() -> None:
    heading = "\n".join(PLAIN.splitlines()[:2])
    table = """
| Variant | Source | Target | Base | LoRA rank | LoRA alpha | Result |
| --- | :-: | --- | --- | ---: | ---: | --- |
| 3B Default | `/home/models/a_lora/` | `jw2:/home/models/a_lora/` | meta/base-3b | 16 | 32 | a \\| b |
"""
    assert parse(heading + table, "file").agents == (dataclasses.replace(CLEANER, notes=("a_lora: Result: a | b",)),)


def test_parse_unknown_items_become_notes() -> None:
    text = PLAIN + (
        "  - Seed: 42\n"
        "    and more\n"
        "- Contact: the training group\n"
        "## Training Configuration\n- LoRA dropout: 0.05\n- Dropout: 0.1\n- Training: twice\n- see the log\n"
        "## Quality Benchmarks\n- A models: good\n- Other models: better\n"
        "## Files to Transfer\n- adapter_config.json\n- labels.json (if exists)\n- all else\n"
        "## Whatever\n- Something\n- [ ] To do\n## Status\n- [x] Cleaner models → jw2 (by hand)\n- in a hurry\n"
    )
    adapter = dataclasses.replace(A_LORA, quality="good", extra_files=("labels.json",))
    notes = ("a_lora: Seed: 42 and more", "Contact: the training group")
    fleet = parse(text, "file")
    assert fleet.agents == (dataclasses.replace(CLEANER, adapters=(adapter,), notes=notes),)
    assert fleet.training == {"dropout": "0.05", "training": "twice"}
    assert fleet.notes == ("Something", "all else", "in a hurry", "Other models: better", "Dropout: 0.1", "see the log")


@pytest.mark.parametrize("node", ["jw2", "jw2.example.org", "gpu-a"])
def test_parse_check_box_names_agent(node: str) -> None:
    text = PLAIN.replace("jw2 (192.0.2.2)", node).replace("jw2:", "") + f"## Status\n- [ ] Tidier models -> {node}\n"
    assert parse(text, "file").agents[0].name == "tidier"
    assert parse(text + f"- [ ] Sweeper models -> {node}, later\n", "file").agents[0].name == "cleaner"


def test_parse_several_addresses_become_several_hosts() -> None:
    [agent] = parse(PLAIN.replace("jw2 (192.0.2.2)", "gpu-a (192.0.2.2, fe80::1%eth0)").replace("jw2:", "gpu_a:"), "file").agents
    assert (agent.group, agent.hosts) == ("gpu_a", {"gpu-a-1": "192.0.2.2", "gpu-a-2": "fe80::1%eth0"})


@pytest.mark.parametrize(
    ("before", "after", "line", "words"),
    [
        ("# Training Server: sbs29 (192.0.2.1)", "", 1, "does not name the training server. Write a line '# Training"),
        ("sbs29 (192.0.2.1)", "192.0.2.1", 1, "'192.0.2.1' does not begin with the name of a host"),
        ("sbs29 (192.0.2.1)", "sbs29 (192.0.2.1, 192.0.2.9)", 1, "several addresses"),
        ("sbs29 (192.0.2.1)", "jw2-1", 1, "jw2-1 would be the training server and a node"),
        ("### ", "- Training Server: other\n### ", 2, "names another training server than line 1"),
        ("### Cleaner Agent (Grammar/Noise) -> jw2 (192.0.2.2)", "### Cleaner Agent", 4, "belongs to no agent"),
        ("jw2 (192.0.2.2)", "jw2 (-oProxyCommand=x)", 2, "'-oProxyCommand=x' is not an address"),
        ("jw2 (192.0.2.2)", "", 2, "'' does not begin with the name of a host. Write it as '### NAME Agent (PURPOSE) → NODE"),
        ("-> jw2 (192.0.2.2)", "-> agents", 2, "gives node agents to agent cleaner, but that name is taken"),
        ("Cleaner Agent", "Agent", 2, "'Agent (Grammar/Noise)' does not name an agent"),
        ("Cleaner Agent", "All Agent", 2, "does not name an agent"),
        ("- **3B Default:**", "- Cleaner in 3B:", 3, "'Cleaner in 3B' is not a variant. Write it as '3B Default'"),
        ("- **3B Default:**", "Only a paragraph:", 4, "does not name its variant. Put it below"),
        ("  - Source", "  - Sauce", 3, "has no Source"),
        ("  - Base: meta/base-3b\n", "", 3, "has no Base"),
        ("  - Base: meta/base-3b", "  - Base:", 6, "has no value for base"),
        ("meta/base-3b", "[base](https://x)", 6, "'[base](https://x)' is not a base"),
        ("  - Base", "  - Source: /home/models/b_lora\n  - Base", 6, "repeats source of line 4"),
        ("`/home/models/a_lora/`", "models/a_lora", 4, "'models/a_lora' is not an absolute path. Write it as /home/models/NAME/"),
        ("`/home/models/a_lora/`", "/home/../a_lora", 4, "is not an absolute path"),
        ("`/home/models/a_lora/`", "other:/home/models/a_lora/", 4, "is on another host, other. Write a path on 192.0.2."),
        ("/home/models/a_lora/", "/home/models/a lora/", 4, "adapter 'a lora' is not a valid name. Use letters"),
        ("jw2:/home/models/a_lora/", "jw3:/home/models/a_lora/", 5, "is on another host, jw3."),
        ("jw2:/home/models/a_lora/", "jw2:/home/models/b_lora/", 5, "does not end in a_lora, as Source does"),
        ("  - LoRA rank: 16\n", "", 3, "has no LoRA rank, nor does the training configuration. Write '- LoRA rank: 16 (3B)"),
        ("LoRA rank: 16", "LoRA rank: 16 (8B)", 7, "has no LoRA rank for variant 3b"),
        ("LoRA rank: 16", "LoRA rank: 16.5", 7, "'16.5' is not a LoRA rank"),
        ("LoRA alpha: 32", "LoRA alpha: twice the rank", 8, "'twice the rank' is not a LoRA alpha"),
        ("- **3B", "<!-- to do\n- **3B", 3, "begins a comment that is never closed"),
        ("- **3B", "```\n- **3B", 3, "begins a code block that is never closed"),
        ("- **3B", "| Variant | Source |\n- **3B", 3, "begins a table without a line"),
    ],
)  # fmt: skip
def test_parse_invalid_text_names_line_and_remedy(before: str, after: str, line: int, words: str) -> None:
    assert before in PLAIN
    with pytest.raises(DeliveryError) as caught:
        parse(PLAIN.replace(before, after, 1), "MODEL_MANIFEST.md")
    [problem] = caught.value.problems
    assert problem.subject == f"MODEL_MANIFEST.md:{line}"
    assert words in f"{problem.problem} {problem.remedy}"
    assert problem.remedy


def section(agent: str, node: str, *bullets: str) -> str:
    return f"### {agent} -> {node}\n" + "\n".join(bullets) + "\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (section("Cleaner", "jw3"), "file:9: has no adapter below it"),
        (section("Cleaner", "jw3", "- Source: /x/b_lora"), "file:10: does not name its variant"),
        ("\n".join(PLAIN.splitlines()[1:]), "file:9: gives node jw2 to agent cleaner a second time"),
        (section("Describer", "jw2 (192.0.2.3)"), "file:9: gives node jw2 another address than line 2"),
        (section("Describer", "agents"), "file:9: gives node agents to agent describer, but that name is taken"),
        (
            section("Describer", "jw2", "- Variant: 3b", "- Source: /home/models/b", "- Target: /x/b", "- Base: meta/b"),
            "file:12: is in /x, but line 5 in /home/models",
        ),
        ("\n".join(PLAIN.splitlines()[2:]), "file:9: names adapter a_lora a second time"),
        ("\n".join(PLAIN.splitlines()[2:]).replace("/a_", "/x/b_", 1), "file:10: is in /home/models/x, but line 4 in /home/m"),
        ("#### 8B Appendix\n- Source: /home/models/b_lora\n", "file:10: belongs to no agent"),
        ("- **8B Appendix:**\n", "file:9: has no Source"),
        ("| Variant | Source |\n| --- | --- |\n| | |\n", "file:11: does not name its variant"),
        ("| Variant | Source |\n| --- | --- |\n| 8B |\n", "file:11: has 1 cells instead of 2"),
    ],
)
def test_parse_incomplete_addition_is_refused(text: str, words: str) -> None:
    with pytest.raises(DeliveryError, match=re.escape(words)):
        parse(PLAIN + text, "file")


def test_parse_sections_of_one_node_are_its_agents() -> None:
    second = section("Description Generator Agent (Wikipedia)", "jw2", *PLAIN.splitlines()[2:], "- Seed: 7")
    fleet = parse(PLAIN + second + "## Status\n- [ ] Cleaner models -> jw2\n- [ ] Describer models -> jw2\n", "file")
    [group], [agents] = fleet.groups.keys(), fleet.groups.values()
    variables = variables_of(agents)
    assert [agent.name for agent in agents] == ["cleaner", "describer"]
    assert group == "jw2" and agents[0].hosts == agents[1].hosts
    assert "agent_name" not in variables
    assert [(row["agent"], row["name"]) for row in variables["agent_adapters"]] == [
        ("cleaner", "a_lora"),
        ("describer", "a_lora"),
    ]
    assert variables["agent_purpose"] == {"cleaner": "Grammar/Noise", "describer": "Wikipedia"}
    assert variables["agent_notes"] == {"describer": ["Seed: 7"]}


@pytest.mark.parametrize(
    ("headings", "boxes", "expected"),
    [
        (["description_generator"], {"describer"}, ["describer"]),
        (["cleaner"], {"describer"}, ["describer"]),
        (["cleaner"], {"cleaner", "describer"}, ["cleaner"]),
        (["cleaner", "description_generator"], {"cleaner", "describer"}, ["cleaner", "describer"]),
        (["cleaner", "description_generator"], {"describer"}, ["cleaner", "description_generator"]),
        (["grammar", "description_generator"], {"cleaner", "describer"}, ["grammar", "description_generator"]),
    ],
)
def test_names_of_check_boxes_are_used_where_they_are_unambiguous(
    headings: list[str], boxes: set[str], expected: list[str]
) -> None:
    assert [_names(headings, boxes)[heading] for heading in headings] == expected


# Properties

WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=6).map("n{}".format)
PHRASES = st.lists(st.sampled_from(["8.8/10", "PAWS + QQP", "(14,9", "::", "가", "{{x}}", "->", "#"]), max_size=4).map(" ".join)


NOTES = st.lists(st.sampled_from(["Contact: the trainers", "in a hurry", "n1: Seed: 42"]), max_size=2, unique=True).map(tuple)
AGENTS = WORDS.map(lambda word: word.replace("_", "").removesuffix("agent") or "n")


@st.composite
def adapters(draw: st.DrawFn, name: str, extra_files: tuple[str, ...]) -> Adapter:
    return Adapter(
        name=name,
        variant=draw(WORDS),
        default=draw(st.booleans()),
        base=f"{draw(WORDS)}/{draw(WORDS)}",
        rank=draw(st.integers(1, 512)),
        alpha=draw(st.one_of(st.integers(1, 1024), st.just(0.5))),
        dataset=draw(PHRASES),
        quality=draw(PHRASES),
        target_modules=tuple(draw(st.lists(WORDS, max_size=3))),
        extra_files=extra_files,
    )


@st.composite
def distributions(draw: st.DrawFn) -> Distribution:
    agents = []
    extra_files = draw(st.sampled_from([(), ("labels.json", "x.txt")]))
    for node in draw(st.lists(WORDS, min_size=1, max_size=3, unique=True)):
        names = draw(st.lists(WORDS, min_size=1, max_size=3, unique=True))
        of_node = {
            "node": draw(st.sampled_from([node, f"gpu-{node}"])),
            "addresses": tuple(draw(st.lists(st.ip_addresses().map(str), min_size=1, max_size=2, unique=True))),
            "models_dir": draw(st.sampled_from(["/home/models", "~/models"])),
        }
        agents += [
            Agent(
                name=name,
                purpose=draw(st.sampled_from(["", "Grammar/Noise"])),
                adapters=tuple(draw(adapters(name, extra_files)) for name in names),
                notes=draw(NOTES),
                **of_node,
            )
            for name in draw(st.lists(AGENTS, min_size=1, max_size=2, unique=True))
        ]
    training = draw(st.dictionaries(st.sampled_from(["epochs", "batch_size"]), WORDS))
    return Distribution("trainer-x", "trainer-x.example.org", "/srv/models", tuple(agents), training, draw(NOTES))


def written(fleet: Distribution, shuffle: random.Random | None = None) -> str:
    """The report of a fleet read from a manifest text, with an adapter's bullets in any order."""
    nodes = []
    for group, agents in fleet.groups.items():
        for host, address in agents[0].hosts.items():
            variables = {**variables_of(agents), "agent_source_models_dir": fleet.models_dir, "ansible_host": address}
            node = Node.of(host, [group], variables)
            nodes.append(node.entry(node.rows))
    run = Run("2026-11-22T12:00:00+00:00")
    server = {"name": fleet.server, "address": fleet.address}
    run.declare({"nodes": nodes, "training_server": server, "training": fleet.training, "notes": list(fleet.notes)})
    lines = as_markdown(report_of(run)).splitlines()
    if shuffle:
        runs = [list(run) for _bullets, run in itertools.groupby(lines, key=lambda line: line.startswith("  - "))]
        for run_of_lines in runs:
            if run_of_lines[0].startswith("  - "):
                shuffle.shuffle(run_of_lines)
        lines = [line for run_of_lines in runs for line in run_of_lines]
    return "\n".join(lines)


@given(distributions(), st.none() | st.randoms(use_true_random=False))
def test_parse_reads_report_as_same_fleet(fleet: Distribution, shuffle: random.Random | None) -> None:
    assert parse(written(fleet, shuffle), "file") == fleet


def test_parse_pipeline_file_survives_round_trip() -> None:
    fleet = parse(SAMPLE, "MODEL_MANIFEST.md")
    assert parse(written(fleet), "MANIFEST.md") == fleet


PIECES = [
    *PLAIN.splitlines(keepends=True), *SAMPLE.splitlines(keepends=True)[::3], "#", "### ", " -> ", "→", "(", ")", "- ", "  ",
    "\t", ":", "|", "| --- |\n", "**", "`", "```\n", "~~~", "<!--", "-->", "[ ] ", "models -> jw2", ",", "/", "~", "..", "9" * 30,
    "\n", "\r", "\x00", "\u2028", "\ufffd",
]  # fmt: skip


@pytest.mark.fuzz
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_parse_any_text_is_read_or_refused_with_line(text: str) -> None:
    is_fleet_manifest(text)
    try:
        parse(text, "file")
    except DeliveryError as exc:
        [problem] = exc.problems
        number = re.fullmatch(r"file:(\d+)", problem.subject)
        assert number and 1 <= int(number[1]) <= text.count("\n") + 1
        assert problem.problem and problem.remedy


@pytest.mark.fuzz
@given(st.data())
def test_parse_damaged_text_is_read_or_refused(data: st.DataObject) -> None:
    lines = SAMPLE.splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at : at + data.draw(st.integers(0, 3))] = data.draw(st.lists(st.sampled_from(PIECES), max_size=3))
    try:
        fleet = parse("".join(lines), "file")
    except DeliveryError:
        return
    hosts: list[t.Any] = [host for agent in fleet.agents for host in agent.hosts]
    assert len(hosts) == len(set(hosts))
    assert all(adapter.rank for agent in fleet.agents for adapter in agent.adapters)
