# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Reads a manifest text: a Markdown file of a training pipeline that assigns adapters to nodes.

It consists of headings, bullets and, in an agent's section, tables with the bullets' names as
columns::

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

Unknown items are kept as notes. Nothing is guessed: an ambiguous text is an error.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import posixpath
import re
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.files import is_always_delivered
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._names import check_name

from .markdown_sections import Item, MarkdownReader, Section, headings, slug
from .selection import SPECIAL_TAGS

# The known fields of an adapter. The shared ones may be in the training configuration instead.
_SHARED = frozenset({"rank", "alpha", "target_modules"})
_FIELDS = frozenset({"variant", "source", "target", "base", "training", "quality"}) | _SHARED
# Groups that always exist.
_GROUPS = frozenset({"all", "ungrouped", "agents", "training"})

_ARROW = re.compile(r"->|→")
_BOX = re.compile(r"\[[ xX]\]\s+(.*)")
_DELIVERED = re.compile(r"(.+) models (?:->|→) ([\w-]+)")
_WITH_PARENTHESES = re.compile(r"([^()]*)(?:\(([^()]*)\))?")
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_ADDRESS = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:_%-]*")
_LABEL = re.compile(r"([\w.-]+)(?: (default|appendix))?", re.IGNORECASE)
_PATH = re.compile(r"(?:([^:/~]+):)?([/~].*)")
_NUMBER = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(?: ?\(([^()]*)\))?")
_FILE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?: \(.*\))?")

_FORM = "Write it as '### NAME Agent (PURPOSE) → NODE (ADDRESS)'; a heading about something else must have no arrow."


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter as the text declares it. Fields that are not declared are empty."""

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
        """The adapter as a row of ``agent_adapters``."""
        fields = {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()}
        return {key: value for key, value in fields.items() if value not in ("", [])}


@dataclasses.dataclass(frozen=True)
class Agent:
    """A section: an agent, its hosts (one for each address) and its adapters."""

    name: str
    purpose: str
    node: str
    addresses: tuple[str, ...]
    models_dir: str
    adapters: tuple[Adapter, ...]
    notes: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The group of its hosts, with only the characters that Ansible allows."""
        return _group(self.node)

    @property
    def hosts(self) -> dict[str, str]:
        """Inventory names and addresses.

        In an inventory, a host must not have the name of its group.
        """
        return {f"{self.node}-{number}": address for number, address in enumerate(self.addresses, 1)}


def variables_of(agents: c.Sequence[Agent]) -> dict[str, t.Any]:
    """The variables of a node's group. The inventory plugin leaves empty ones out.

    If the node serves several agents, the rows name their agents.
    """
    if len(agents) > 1:
        return {
            "agent_purpose": {agent.name: agent.purpose for agent in agents if agent.purpose},
            "agent_models_dir": agents[0].models_dir,
            "agent_adapters": [{"agent": agent.name, **adapter.row()} for agent in agents for adapter in agent.adapters],
            "agent_notes": {agent.name: list(agent.notes) for agent in agents if agent.notes},
        }
    [agent] = agents
    return {
        "agent_name": agent.name,
        "agent_purpose": agent.purpose,
        "agent_models_dir": agent.models_dir,
        "agent_adapters": [adapter.row() for adapter in agent.adapters],
        "agent_notes": list(agent.notes),
    }


@dataclasses.dataclass(frozen=True)
class Distribution:
    """The content of a manifest text. ``training`` describes the training, for reports."""

    server: str
    address: str
    models_dir: str
    agents: tuple[Agent, ...]
    training: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> dict[str, list[Agent]]:
        """The agents of each node, by the node's group."""
        found: dict[str, list[Agent]] = {}
        for agent in self.agents:
            found.setdefault(agent.group, []).append(agent)
        return found


@dataclasses.dataclass(frozen=True)
class _Host:
    """A host's short name, its addresses (at least one) and its names in paths."""

    name: str
    addresses: tuple[str, ...]
    spellings: frozenset[str]


@dataclasses.dataclass(frozen=True)
class _Heading:
    """The heading of an agent's section. A check box may have another name of the agent."""

    section: Section
    name: str
    purpose: str
    node: _Host


def is_fleet_manifest(text: str) -> bool:
    """Return whether a text has the title of the pipeline's files or an agent's heading."""
    return any(title == "Model Distribution Manifest" or _is_agent(level, title) for level, title in headings(text))


def parse(text: str, file: str) -> Distribution:
    """Read a manifest text.

    Raises DeliveryError, with ``file`` and line, for missing, contradictory or unclear statements.
    """
    return _Reader(file).distribution(text)


class _Reader(MarkdownReader):
    """Reads one file. ``self`` holds the facts from one part of it that apply to other parts."""

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.notes: list[str] = []
        self.defaults: dict[str, Item] = {}
        self.benchmarks: list[Item] = []
        self.extra_files: tuple[str, ...] = ()
        # By group: the line that names the directory of all targets.
        self.targets: dict[str, dict[str, int]] = {}

    def distribution(self, text: str) -> Distribution:
        sections = self.sections(text)
        facts = [Item(section.line, 0, section.title) for section in sections if section.level == 1 and ":" in section.title]
        parts: dict[str, list[Item]] = {
            name: [] for name in ("training_configuration", "quality_benchmarks", "files_to_transfer", "status")
        }
        for section in sections:
            if not _is_agent(section.level, section.title):
                parts.get(section.subject, facts).extend(section.items)
        configuration, self.benchmarks, files, boxes = parts.values()
        server = self.server(facts)
        self.defaults = self.fields([item for item in configuration if item.key in _SHARED], self.notes)
        names = [name for item in files for name in self.file_names(item) if not is_always_delivered(name)]
        self.extra_files = tuple(dict.fromkeys(names))
        delivered = self.delivered(boxes)
        headings = [self.heading(section) for section in sections if _is_agent(section.level, section.title)]
        agents: list[Agent] = []
        sources: dict[str, int] = {}
        for heading in headings:
            group = _group(heading.node.name)
            of_node = [other for other in headings if _group(other.node.name) == group]
            name = _names([other.name for other in of_node], delivered.get(group, set()))[heading.name]
            agents.append(self.agent(heading, name, of_node[0], server, sources, agents))
        if not agents:
            raise self.error(1, "names no agent.", f"Add a section for each agent. {_FORM}")
        if server.name in {host for agent in agents for host in agent.hosts}:
            raise self.error(1, f"{server.name} would be the training server and a node.", "Give one of the two another name.")
        adapters = [adapter.name for agent in agents for adapter in agent.adapters]
        self.notes += [item.text for item in self.benchmarks if not any(_is_about(item, name) for name in adapters)]
        training: dict[str, str] = {}
        for item in configuration:
            if item.key and item.value and item.key not in _SHARED | training.keys():
                training[item.key] = item.value
            elif item.key not in _SHARED:
                self.notes.append(item.text)
        return Distribution(server.name, server.addresses[0], next(iter(sources)), tuple(agents), training, tuple(self.notes))

    # The fleet

    def server(self, facts: c.Sequence[Item]) -> _Host:
        """The training server. All other facts become notes."""
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
            raise self.error(named[0].line, "gives the training server several addresses.", "Keep only one.")
        return server

    def host(self, text: str, line: int, form: str) -> _Host:
        """Read ``NAME (ADDRESS, ...)``. A fully qualified name is preferred to a single address."""
        parts = _WITH_PARENTHESES.fullmatch(text)
        name = parts[1].strip() if parts else ""
        if parts is None or not _NAME.fullmatch(name):
            raise self.error(line, f"{text!r} does not begin with the name of a host.", form)
        given = tuple(address.strip() for address in (parts[2] or name).split(","))
        for address in given:
            if not _ADDRESS.fullmatch(address):
                raise self.error(line, f"{address!r} is not an address.", form)
        short = name.partition(".")[0]
        return _Host(short, (name,) if "." in name and len(given) == 1 else given, frozenset({short, name, *given}))

    def delivered(self, boxes: c.Sequence[Item]) -> dict[str, set[str]]:
        """The names that the check boxes have for the agent of each node's group."""
        names: dict[str, set[str]] = {}
        for item in boxes:
            box = _BOX.fullmatch(item.text)
            if box is None:
                self.notes.append(item.text)
            elif models := _DELIVERED.match(box[1]):
                names.setdefault(_group(models[2]), set()).add(slug(models[1]))
        return names

    def file_names(self, item: Item) -> list[str]:
        found = _FILE.fullmatch(item.text)
        if found is None:
            self.notes.append(item.text)
        return [self.name(found[1], item.line, "file")] if found else []

    # Agents

    def heading(self, section: Section) -> _Heading:
        """Read the heading of an agent's section."""
        left, right = (part.strip() for part in _ARROW.split(section.title, maxsplit=1))
        parts = _WITH_PARENTHESES.fullmatch(left)
        name = slug(re.sub(r"\bagent$", "", parts[1].strip(), flags=re.IGNORECASE)) if parts else ""
        node = self.host(right, section.line, _FORM)
        if parts is None or not name:
            raise self.error(section.line, f"{left!r} does not name an agent.", _FORM)
        return _Heading(section, name, (parts[2] or "").strip(), node)

    def agent(
        self,
        heading: _Heading,
        name: str,
        first: _Heading,
        server: _Host,
        sources: dict[str, int],
        others: c.Sequence[Agent],
    ) -> Agent:
        """Read the section of agent ``name``.

        ``first`` is the first heading of its node, ``others`` are the agents before it. ``sources``
        maps the directory of all sources to the line that names it.
        """
        section, node = heading.section, heading.node
        if name in SPECIAL_TAGS:
            raise self.error(section.line, f"{name!r} does not name an agent.", _FORM)
        # A further section may leave the addresses of its node out.
        addresses = first.node.addresses if node.addresses == (node.name,) else node.addresses
        agent = Agent(name, heading.purpose, node.name, addresses, "", ())
        if agent.group in _GROUPS:
            problem = f"gives node {node.name} to agent {name}, but that name is taken."
            raise self.error(section.line, problem, "Give the node another name.")
        if addresses != first.node.addresses or node.name != first.node.name:
            problem = f"gives node {node.name} another address than line {first.section.line}."
            raise self.error(section.line, problem, "Correct one of the two, or give one of the nodes another name.")
        if (name, agent.group) in {(other.name, other.group) for other in others}:
            problem = f"gives node {node.name} to agent {name} a second time."
            raise self.error(section.line, problem, "Put all adapters of an agent below one heading.")
        spellings = node.spellings | {agent.group, *agent.hosts}
        notes: list[str] = []
        adapters: list[Adapter] = []
        targets = self.targets.setdefault(agent.group, {})
        for line, fields, unknown in self.adapters(section, notes):
            adapter = self.path(fields["source"], server.spellings, sources)
            if self.path(fields["target"], spellings, targets) != adapter:
                problem = f"does not end in {adapter}, as Source does."
                raise self.error(fields["target"].line, problem, "An adapter has one name: correct one of the two.")
            if adapter in {other.name for other in adapters}:
                raise self.error(line, f"names adapter {adapter} a second time.", "Remove one of the two.")
            adapters.append(self.adapter(adapter, line, fields))
            notes += [f"{adapter}: {note}" for note in unknown]
        if not adapters:
            raise self.error(section.line, "has no adapter below it.", "Add '- **3B Default:**' with Source and so on below.")
        return dataclasses.replace(agent, models_dir=next(iter(targets)), adapters=tuple(adapters), notes=tuple(notes))

    def adapters(self, section: Section, notes: list[str]) -> c.Iterator[tuple[int, dict[str, Item], list[str]]]:
        """The line, fields and notes of each adapter of a section. Other items go to ``notes``."""
        families: list[list[Item]] = []
        for item in section.items:
            if item.depth == 0:
                families.append([])
            families[-1].append(item)
        single: list[Item] = []
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
        for line, items in self.rows(section):
            yield self.of_adapter(line, items)

    def of_adapter(self, line: int, items: c.Sequence[Item]) -> tuple[int, dict[str, Item], list[str]]:
        notes: list[str] = []
        fields = self.fields(items, notes)
        if "variant" not in fields:
            raise self.error(
                line,
                "does not name its variant.",
                "Put it below a line such as '- **3B Default:**', indented by two spaces, or add '- Variant: 3B Default'.",
            )
        for key in ("source", "target", "base"):
            if key not in fields:
                raise self.error(line, f"has no {key.capitalize()}.", f"Add '- {key.capitalize()}: ...' below it.")
        return line, fields, notes

    def adapter(self, name: str, line: int, fields: c.Mapping[str, Item]) -> Adapter:
        label = _LABEL.fullmatch(fields["variant"].value)
        if label is None:
            problem = f"{fields['variant'].value!r} is not a variant."
            raise self.error(line, problem, "Write it as '3B Default', '8B Appendix' or '8B'.")
        if re.search(r"[\s\[\]<>{}]", fields["base"].value):
            problem = f"{fields['base'].value!r} is not a base."
            raise self.error(fields["base"].line, problem, "Write its name as in adapter_config.json.")
        variant = label[1].lower()
        known = {**self.defaults, **fields}
        values = {key: item.value for key, item in known.items()}
        quality = [values["quality"]] if "quality" in values else []
        return Adapter(
            name=name,
            variant=variant,
            default=(label[2] or "").lower() == "default",
            base=values["base"],
            rank=int(self.number("rank", known, variant, line)),
            alpha=self.number("alpha", known, variant, line),
            dataset=values.get("training", ""),
            quality="; ".join(quality + [item.value for item in self.benchmarks if _is_about(item, name)]),
            target_modules=tuple(values.get("target_modules", "").replace(",", " ").split()),
            extra_files=self.extra_files,
        )

    # Single values

    def fields(self, items: c.Iterable[Item], notes: list[str]) -> dict[str, Item]:
        """The known fields among bullets, by key. Other bullets go to ``notes``."""
        found: dict[str, Item] = {}
        for item in items:
            if item.key not in _FIELDS:
                notes.append(item.text)
            elif item.key in found:
                raise self.error(item.line, f"repeats {item.key} of line {found[item.key].line}.", "Remove one of the two.")
            elif not item.value:
                raise self.error(
                    item.line, f"has no value for {item.key}.", "Write the value on the same line, or remove the line."
                )
            else:
                found[item.key] = item
        return found

    def name(self, name: str, line: int, what: str) -> str:
        try:
            return check_name(name, what)
        except DeliveryError as exc:
            problem = exc.problems[0]
            raise self.error(line, f"{problem.subject} {problem.problem}", problem.remedy) from exc

    def path(self, item: Item, spellings: c.Collection[str], places: dict[str, int]) -> str:
        """The adapter's name in a path on a host of these ``spellings``.

        ``places`` holds the one directory that all adapters of the host must be in.
        """
        found = _PATH.fullmatch(item.value)
        path = found[2].rstrip("/") if found else ""
        directory, name = posixpath.split(path)
        if found is None or not directory or posixpath.normpath(path) != path or path.startswith("//"):
            raise self.error(item.line, f"{item.value!r} is not an absolute path.", "Write it as /home/models/NAME/.")
        if found[1] and found[1] not in spellings:
            remedy = f"Write a path on {' or '.join(sorted(spellings))}."
            raise self.error(item.line, f"is on another host, {found[1]}.", remedy)
        first = next(iter(places), directory)
        if directory != first:
            problem = f"is in {directory}, but line {places[first]} in {first}."
            raise self.error(item.line, problem, "All adapters of a host must be in one directory: move this one there.")
        places.setdefault(directory, item.line)
        return self.name(name, item.line, "adapter")

    def number(self, key: str, known: c.Mapping[str, Item], variant: str, line: int) -> float:
        """The number for this variant. Integers are returned as int."""
        form = f"Write '- LoRA {key}: 16 (3B), 32 (8B)' or '- LoRA {key}: 16' in the training configuration or with the adapter."
        if key not in known:
            raise self.error(line, f"has no LoRA {key}, nor does the training configuration.", form)
        numbers = {}
        for part in known[key].value.split(","):
            number = _NUMBER.fullmatch(part.strip())
            if number is None or (key == "rank" and "." in number[1]):
                raise self.error(known[key].line, f"{part.strip()!r} is not a LoRA {key}.", form)
            numbers[(number[2] or "").strip().lower()] = float(number[1])
        found = numbers.get(variant, numbers.get(""))
        if found is None:
            raise self.error(known[key].line, f"has no LoRA {key} for variant {variant}.", form)
        return int(found) if found.is_integer() else found


def _is_agent(level: int, title: str) -> bool:
    return level > 1 and _ARROW.search(title) is not None


def _group(node: str) -> str:
    return re.sub(r"\W", "_", node)


def _names(headings: c.Sequence[str], boxes: set[str]) -> dict[str, str]:
    """Return the names of a node's agents, by their headings.

    A check box has the agent's common name: "Describer" for agent "Description Generator".
    """
    names = {heading: heading for heading in headings}
    [*unnamed], [*left] = set(headings) - boxes, boxes - set(headings)
    if len(unnamed) == len(left) == 1:
        names.update(zip(unnamed, left))
    return names


def _is_about(benchmark: Item, adapter: str) -> bool:
    """Return whether a benchmark is about an adapter, whose name contains the benchmark's words."""
    subject = benchmark.key.removesuffix("_models")
    return bool(subject) and f"_{subject}_" in f"_{slug(adapter)}_"
