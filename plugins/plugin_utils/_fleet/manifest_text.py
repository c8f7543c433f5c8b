# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The manifest text, a Markdown file in which a training pipeline says which adapters go to which nodes.

Read are headings, bullets and, in an agent's section, tables whose columns are named as the bullets are::

    # Training Server: sbs29.etri.re.kr (129.254.184.194)
    ### Cleaner Agent (Grammar/Noise) → jw2 (129.254.202.252)
    - **3B Default:**
      - Source: `/home/models/llama32_3b_grammar_lora/`
      - Target: `jw2:/home/models/llama32_3b_grammar_lora/`
      - Base: meta-llama/Llama-3.2-3B-Instruct
      - Training: JFLEG dataset
      - Quality: 8.8/10 HHEM score
    ## Training Configuration
    - LoRA rank: 16 (3B), 32 (8B)
    - LoRA alpha: 32
    ## Quality Benchmarks
    - Grammar models: Tested on JFLEG/BEA
    ## Files to Transfer
    - adapter_config.json
    ## Status
    - [ ] Cleaner models → jw2

What is not known is kept as a note. What would have to be guessed at is an error.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import posixpath
import re
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.files import (
    CONFIG_FILE,
    PICKLE_FILE,
    SAFETENSORS_FILE,
    TOKENIZER_FILES,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._names import check_name

from .tags import SPECIAL_TAGS

# What travels without being asked for.
_KNOWN_FILES = frozenset({CONFIG_FILE, SAFETENSORS_FILE, PICKLE_FILE, *TOKENIZER_FILES})
# What may be said of an adapter, and what of that in the training configuration, for all.
_SHARED = frozenset({"rank", "alpha", "target_modules"})
_FIELDS = frozenset({"variant", "source", "target", "base", "training", "quality"}) | _SHARED
# Groups that there are in any case.
_GROUPS = frozenset({"all", "ungrouped", "agents", "training"})

_ARROW = re.compile(r"->|→")
_HEADING = re.compile(r"(#{1,6})\s+(.*)")
_BULLET = re.compile(r" *[-*+]\s(.*)")
_WORD = re.compile(r"\w")
_BOX = re.compile(r"\[[ xX]\]\s+(.*)")
_DELIVERED = re.compile(r"(.+) models (?:->|→) ([\w-]+)")
_WITH_PARENTHESES = re.compile(r"([^()]*)(?:\(([^()]*)\))?")
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_ADDRESS = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:_%-]*")
_LABEL = re.compile(r"([\w.-]+)(?: (default|appendix))?", re.IGNORECASE)
_PATH = re.compile(r"(?:([^:/~]+):)?([/~].*)")
_NUMBER = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(?: ?\(([^()]*)\))?")
_FILE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?: \(.*\))?")
_DASHES = re.compile(r":?-+:?")

_FORM = "Write it as '### NAME Agent (PURPOSE) → NODE (ADDRESS)'; a heading about something else must have no arrow."


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter as the text declares it; what it does not say is empty."""

    name: str
    variant: str
    default: bool
    base: str
    rank: int
    alpha: float
    dataset: str = ""
    quality: str = ""
    target_modules: tuple[str, ...] = ()
    extra_files: tuple[str, ...] = ()

    def row(self) -> dict[str, t.Any]:
        """The adapter as a row of C(agent_adapters)."""
        said = {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()}
        return {key: value for key, value in said.items() if value not in ("", [])}


@dataclasses.dataclass(frozen=True)
class Agent:
    """A section: an agent, the hosts that serve it (one for each address) and its adapters."""

    name: str
    purpose: str
    node: str
    addresses: tuple[str, ...]
    models_dir: str
    adapters: tuple[Adapter, ...]
    notes: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The group of its hosts, in the characters that Ansible wants there."""
        return _group(self.node)

    @property
    def hosts(self) -> dict[str, str]:
        """Names in the inventory and addresses: in inventories, a host and its group have different names."""
        return {f"{self.node}-{number}": address for number, address in enumerate(self.addresses, 1)}


def variables_of(agent: Agent) -> dict[str, t.Any]:
    """What an agent's group has in the inventory; what is empty is not set there."""
    return {
        "agent_name": agent.name,
        "agent_purpose": agent.purpose,
        "agent_models_dir": agent.models_dir,
        "agent_adapters": [adapter.row() for adapter in agent.adapters],
        "agent_notes": list(agent.notes),
    }


@dataclasses.dataclass(frozen=True)
class Distribution:
    """All that a manifest text says. C(training) is how the adapters were trained, for reports."""

    server: str
    address: str
    models_dir: str
    agents: tuple[Agent, ...]
    training: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Host:
    """A host's short name, its addresses (one at least) and all that a path may call it."""

    name: str
    addresses: tuple[str, ...]
    spellings: frozenset[str]


@dataclasses.dataclass
class _Item:
    """A bullet, without its mark and what only makes it look like something. C(depth) is 0 for one below no other."""

    line: int
    depth: int
    text: str

    @property
    def key(self) -> str:
        """What stands before the colon, in the form of a variable; without C(lora_), which the text may leave out."""
        before, colon, _after = self.text.partition(":")
        return _slug(before).removeprefix("lora_") if colon else ""

    @property
    def value(self) -> str:
        return self.text.partition(":")[2].strip()


@dataclasses.dataclass
class _Section:
    """A heading and what stands below it up to the next one, whatever that one's level."""

    line: int
    level: int
    title: str
    items: list[_Item] = dataclasses.field(default_factory=list)
    table: list[tuple[int, list[str]]] = dataclasses.field(default_factory=list)

    @property
    def is_agent(self) -> bool:
        return self.level > 1 and _ARROW.search(self.title) is not None

    @property
    def subject(self) -> str:
        return _slug(self.title.partition("(")[0])


def is_manifest_text(text: str) -> bool:
    """Whether a text means to be one: it has the title of the pipeline's files, or an agent's heading."""
    headings = filter(None, map(_HEADING.match, text.splitlines()))
    return any(_plain(m[2]) == "Model Distribution Manifest" or (len(m[1]) > 1 and _ARROW.search(m[2])) for m in headings)


def parse(text: str, file: str) -> Distribution:
    """Read a manifest text. Raises DeliveryError, with C(file) and line, for what is missing, contradicts or is not clear."""
    return _Reader(file).distribution(text)


class _Reader:
    """Reads one file, whose name is in every error; C(self) holds what one part of it says of others."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.notes: list[str] = []
        self.defaults: dict[str, _Item] = {}
        self.benchmarks: list[_Item] = []
        self.extra_files: tuple[str, ...] = ()
        self.names: dict[str, set[str]] = {}

    def error(self, line: int, problem: str, remedy: str) -> DeliveryError:
        return DeliveryError.of(f"{self.file}:{line}", problem, remedy)

    def distribution(self, text: str) -> Distribution:
        sections = self.sections(self.without_comments(text))
        facts = [_Item(section.line, 0, section.title) for section in sections if section.level == 1 and ":" in section.title]
        parts: dict[str, list[_Item]] = {
            name: [] for name in ("training_configuration", "quality_benchmarks", "files_to_transfer", "status")
        }
        for section in sections:
            if not section.is_agent:
                parts.get(section.subject, facts).extend(section.items)
        configuration, self.benchmarks, files, boxes = parts.values()
        server = self.server(facts)
        self.defaults = self.fields([item for item in configuration if item.key in _SHARED], self.notes)
        names = [name for item in files for name in self.file_names(item) if name not in _KNOWN_FILES]
        self.extra_files = tuple(dict.fromkeys(names))
        self.names = self.delivered(boxes)
        agents: list[Agent] = []
        sources: dict[str, int] = {}
        for section in sections:
            if section.is_agent:
                agents.append(self.agent(section, server, sources, {*_GROUPS, *(agent.group for agent in agents)}))
        if not agents:
            raise self.error(1, "names no agent.", f"Add a section for each. {_FORM}")
        if server.name in {host for agent in agents for host in agent.hosts}:
            raise self.error(1, f"{server.name} would be the training server and a node.", "Give one of the two another name.")
        adapters = [adapter.name for agent in agents for adapter in agent.adapters]
        self.notes += [item.text for item in self.benchmarks if not any(_speaks_of(item, name) for name in adapters)]
        training: dict[str, str] = {}
        for item in configuration:
            if item.key and item.value and item.key not in _SHARED | training.keys():
                training[item.key] = item.value
            elif item.key not in _SHARED:
                self.notes.append(item.text)
        return Distribution(server.name, server.addresses[0], next(iter(sources)), tuple(agents), training, tuple(self.notes))

    # The text in parts

    def without_comments(self, text: str) -> str:
        """The text with blank lines where comments were: what somebody has commented out is not delivered."""
        kept, *commented = text.split("<!--")
        for part in commented:
            comment, end, after = part.partition("-->")
            if not end:
                raise self.error(kept.count("\n") + 1, "begins a comment that never ends.", "End it with -->.")
            kept += "\n" * comment.count("\n") + after
        return kept

    def sections(self, text: str) -> list[_Section]:
        """Take the text apart. Code blocks and paragraphs are for people."""
        section = _Section(0, 0, "")
        found, above, fence = [section], list[tuple[int, _Item]](), (0, "")
        for number, line in enumerate(text.split("\n"), 1):
            line = line.expandtabs(4).rstrip()
            mark = line.lstrip()[:3]
            if fence[1] or mark in ("```", "~~~"):
                fence = (0, "") if mark == fence[1] else fence if fence[1] else (number, mark)
                continue
            indent = len(line) - len(line.lstrip())
            if heading := _HEADING.match(line):
                section = _Section(number, len(heading[1]), _plain(heading[2].rstrip("#")))
                found.append(section)
                above = []
            elif (bullet := _BULLET.fullmatch(line)) and _WORD.search(line):
                above = [(level, item) for level, item in above if level < indent]
                item = _Item(number, len(above), _plain(bullet[1]))
                section.items.append(item)
                above.append((indent, item))
            elif mark.startswith("|"):
                cells = re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))
                section.table.append((number, [_plain(cell.replace("\\|", "|")) for cell in cells]))
                above = []
            elif mark and above and indent > above[-1][0]:
                above[-1][1].text += " " + _plain(line)
            elif mark:
                above = []
        if fence[1]:
            raise self.error(fence[0], "begins a code block that never ends.", f"End it with {fence[1]}.")
        return found

    # What is said of the fleet

    def server(self, facts: c.Sequence[_Item]) -> _Host:
        """The training server; all other facts become notes."""
        form = "Write a line '# Training Server: NAME (ADDRESS)'."
        named = [item for item in facts if item.key == "training_server"]
        for item in facts:
            if item.key in ("source", "target") and _PATH.fullmatch(item.value):
                raise self.error(item.line, "belongs to no agent.", "Put it below the heading of one, as a bullet.")
            if item.key != "training_server" and not _BOX.fullmatch(item.text):
                self.notes.append(item.text)
        if not named:
            raise self.error(1, "does not name the training server.", form)
        if len({item.value for item in named}) > 1:
            raise self.error(named[1].line, f"names another training server than line {named[0].line}.", "Remove one of the two.")
        server = self.host(named[0].value, named[0].line, form)
        if len(server.addresses) > 1:
            raise self.error(named[0].line, "gives the training server several addresses.", "Leave one.")
        return server

    def host(self, text: str, line: int, form: str) -> _Host:
        """Read C(NAME (ADDRESS, ...)): a fully qualified name is an address as well, and preferred."""
        parts = _WITH_PARENTHESES.fullmatch(text)
        name = parts[1].strip() if parts else ""
        if parts is None or not _NAME.fullmatch(name):
            raise self.error(line, f"{text!r} does not begin with the name of a host.", form)
        given = tuple(address.strip() for address in (parts[2] or name).split(","))
        for address in given:
            if not _ADDRESS.fullmatch(address):
                raise self.error(line, f"{address!r} is no address.", form)
        short = name.partition(".")[0]
        return _Host(short, (name,) if "." in name and len(given) == 1 else given, frozenset({short, name, *given}))

    def delivered(self, boxes: c.Sequence[_Item]) -> dict[str, set[str]]:
        """What the check boxes call the agent of each node's group."""
        names: dict[str, set[str]] = {}
        for item in boxes:
            box = _BOX.fullmatch(item.text)
            if box is None:
                self.notes.append(item.text)
            elif said := _DELIVERED.match(box[1]):
                names.setdefault(_group(said[2]), set()).add(_slug(said[1]))
        return names

    def file_names(self, item: _Item) -> list[str]:
        found = _FILE.fullmatch(item.text)
        if found is None:
            self.notes.append(item.text)
        return [self.name(found[1], item.line, "file")] if found else []

    # What is said of an agent

    def agent(self, section: _Section, server: _Host, sources: dict[str, int], groups: c.Collection[str]) -> Agent:
        """Read an agent's section. C(sources) has the directory of all sources and the line that says so, C(groups) are taken."""
        left, right = (part.strip() for part in _ARROW.split(section.title, maxsplit=1))
        heading = _WITH_PARENTHESES.fullmatch(left)
        name = _slug(re.sub(r"\bagent$", "", heading[1].strip(), flags=re.IGNORECASE)) if heading else ""
        node = self.host(right, section.line, _FORM)
        # "Description Generator" is the agent that a check box calls "Describer": people know it by that name.
        boxes = self.names.get(_group(node.name), set())
        if len(boxes) == 1:
            (name,) = boxes
        if heading is None or not name or name in SPECIAL_TAGS:
            raise self.error(section.line, f"{left!r} does not name an agent.", _FORM)
        agent = Agent(name, (heading[2] or "").strip(), node.name, node.addresses, "", ())
        if agent.group in groups:
            problem = f"gives node {node.name} to agent {name}, but that name is taken."
            raise self.error(section.line, problem, "Give each agent's node a name of its own; two may have the same address.")
        spellings = node.spellings | {agent.group, *agent.hosts}
        notes: list[str] = []
        adapters: list[Adapter] = []
        targets: dict[str, int] = {}
        for line, fields, said in self.adapters(section, notes):
            name = self.path(fields["source"], server.spellings, sources)
            if self.path(fields["target"], spellings, targets) != name:
                problem = f"does not end in {name}, as Source does."
                raise self.error(fields["target"].line, problem, "An adapter has one name: correct one of the two.")
            if name in {other.name for other in adapters}:
                raise self.error(line, f"names adapter {name} a second time.", "Remove one of the two.")
            adapters.append(self.adapter(name, line, fields))
            notes += [f"{name}: {note}" for note in said]
        if not adapters:
            raise self.error(section.line, "has no adapter below it.", "Add '- **3B Default:**' with Source and so on below.")
        return dataclasses.replace(agent, models_dir=next(iter(targets)), adapters=tuple(adapters), notes=tuple(notes))

    def adapters(self, section: _Section, notes: list[str]) -> c.Iterator[tuple[int, dict[str, _Item], list[str]]]:
        """Each adapter of a section: its line, what is said of it and its notes. What is about no adapter goes to C(notes)."""
        families: list[list[_Item]] = []
        for item in section.items:
            if item.depth == 0:
                families.append([])
            families[-1].append(item)
        single: list[_Item] = []
        for top, *below in families:
            label = top.text.rstrip(": ")
            named = _LABEL.fullmatch(label)
            if top.key in _FIELDS:
                single += [top, *below]
            elif any(item.key in _FIELDS for item in below) or (named and named[2]):
                yield self.of_adapter(top.line, [dataclasses.replace(top, text=f"Variant: {label}"), *below])
            else:
                notes += [item.text for item in (top, *below)]
        if single:
            yield self.of_adapter(single[0].line, single)
        if section.table:
            (_line, header), *rows = section.table
            if not rows or not all(map(_DASHES.fullmatch, rows.pop(0)[1])):
                raise self.error(section.table[0][0], "begins a table without a line '| --- |'.", "Add that below it.")
            for line, cells in rows:
                if len(cells) != len(header):
                    raise self.error(line, f"has {len(cells)} cells instead of {len(header)}.", "Write one for each column.")
                yield self.of_adapter(line, [_Item(line, 0, f"{name}: {cell}") for name, cell in zip(header, cells) if cell])

    def of_adapter(self, line: int, items: c.Sequence[_Item]) -> tuple[int, dict[str, _Item], list[str]]:
        notes: list[str] = []
        fields = self.fields(items, notes)
        if "variant" not in fields:
            raise self.error(
                line,
                "does not say which variant it is about.",
                "Put it below a line such as '- **3B Default:**', indented by two spaces, or add '- Variant: 3B Default'.",
            )
        for key in ("source", "target", "base"):
            if key not in fields:
                raise self.error(line, f"says no {key.capitalize()}.", f"Add '- {key.capitalize()}: ...' below it.")
        return line, fields, notes

    def adapter(self, name: str, line: int, fields: c.Mapping[str, _Item]) -> Adapter:
        label = _LABEL.fullmatch(fields["variant"].value)
        if label is None:
            problem = f"{fields['variant'].value!r} is no variant."
            raise self.error(line, problem, "Write it as '3B Default', '8B Appendix' or '8B'.")
        if re.search(r"[\s\[\]<>{}]", fields["base"].value):
            problem = f"{fields['base'].value!r} is no base."
            raise self.error(fields["base"].line, problem, "Write the name that adapter_config.json has for it.")
        variant = label[1].lower()
        said = {**self.defaults, **fields}
        values = {key: item.value for key, item in said.items()}
        quality = [values["quality"]] if "quality" in values else []
        return Adapter(
            name=name,
            variant=variant,
            default=(label[2] or "").lower() == "default",
            base=values["base"],
            rank=int(self.number("rank", said, variant, line)),
            alpha=self.number("alpha", said, variant, line),
            dataset=values.get("training", ""),
            quality="; ".join(quality + [item.value for item in self.benchmarks if _speaks_of(item, name)]),
            target_modules=tuple(values.get("target_modules", "").replace(",", " ").split()),
            extra_files=self.extra_files,
        )

    # Single values

    def fields(self, items: c.Iterable[_Item], notes: list[str]) -> dict[str, _Item]:
        """What is known among bullets, by its key; all else goes to C(notes)."""
        found: dict[str, _Item] = {}
        for item in items:
            if item.key not in _FIELDS:
                notes.append(item.text)
            elif item.key in found:
                raise self.error(item.line, f"repeats {item.key} of line {found[item.key].line}.", "Remove one of the two.")
            elif not item.value:
                raise self.error(item.line, f"says nothing of {item.key}.", "Write it on the same line, or remove the line.")
            else:
                found[item.key] = item
        return found

    def name(self, name: str, line: int, what: str) -> str:
        try:
            return check_name(name, what)
        except DeliveryError as exc:
            problem = exc.problems[0]
            raise self.error(line, f"{problem.subject} {problem.problem}", problem.remedy) from exc

    def path(self, item: _Item, spellings: c.Collection[str], places: dict[str, int]) -> str:
        """The adapter's name in a path on a host of these C(spellings), in the one directory that C(places) may have."""
        found = _PATH.fullmatch(item.value)
        path = found[2].rstrip("/") if found else ""
        directory, name = posixpath.split(path)
        if found is None or not directory or posixpath.normpath(path) != path or path.startswith("//"):
            raise self.error(item.line, f"{item.value!r} is no absolute path.", "Write it as /home/models/NAME/.")
        if found[1] and found[1] not in spellings:
            remedy = f"Write a path on {' or '.join(sorted(spellings))}."
            raise self.error(item.line, f"leads to another host, {found[1]}.", remedy)
        first = next(iter(places), directory)
        if directory != first:
            problem = f"is in {directory}, but line {places[first]} in {first}."
            raise self.error(item.line, problem, "All adapters of a host lie in one directory: move this one there.")
        places.setdefault(directory, item.line)
        return self.name(name, item.line, "adapter")

    def number(self, key: str, said: c.Mapping[str, _Item], variant: str, line: int) -> float:
        """A number, or the one of this variant among several; whole ones as int."""
        form = f"Write '- LoRA {key}: 16 (3B), 32 (8B)' or '- LoRA {key}: 16' in the training configuration or with the adapter."
        if key not in said:
            raise self.error(line, f"says no LoRA {key}, nor does the training configuration.", form)
        numbers = {}
        for part in said[key].value.split(","):
            number = _NUMBER.fullmatch(part.strip())
            if number is None or (key == "rank" and "." in number[1]):
                raise self.error(said[key].line, f"{part.strip()!r} is no LoRA {key}.", form)
            numbers[(number[2] or "").strip().lower()] = float(number[1])
        found = numbers.get(variant, numbers.get(""))
        if found is None:
            raise self.error(said[key].line, f"says no LoRA {key} of variant {variant}.", form)
        return int(found) if found.is_integer() else found


def _plain(text: str) -> str:
    """A text without marks for bold and code, and with single spaces."""
    return " ".join(re.sub(r"\*\*|`", "", text).split())


def _slug(text: str) -> str:
    return "_".join(re.findall(r"[^\W_]+", text.lower()))


def _group(node: str) -> str:
    return re.sub(r"\W", "_", node)


def _speaks_of(benchmark: _Item, adapter: str) -> bool:
    """Whether a benchmark is about an adapter: C(Wikipedia-only models) are those that have these words in their name."""
    subject = benchmark.key.removesuffix("_models")
    return bool(subject) and f"_{subject}_" in f"_{_slug(adapter)}_"
