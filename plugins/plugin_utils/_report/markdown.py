# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""MANIFEST.md: the manifest text with evidence in it, and with boxes that only evidence ticks.

The inventory plugin reads it as the same fleet. So evidence goes into tables and sections that
``_fleet/fleet_manifest.py`` skips.
"""

from __future__ import annotations

import collections.abc as c
import functools
import pathlib
import re
import typing as t

import jinja2
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.files import is_always_delivered
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.words import sentences
from ansible_collections.lorafleet.delivery.plugins.module_utils._hashing import release_digest
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.words import signature_line
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import human_bytes

from .._node_names import listed
from .alike import span, together
from .model import adapters_of, place_of
from .run import Data
from .waves import wave_words
from .words import device, grouped, origin, sentence, state_words

_TEMPLATE = pathlib.Path(__file__).with_name("manifest.md.j2")


@functools.cache
def _template() -> jinja2.Template:
    """Return the compiled manifest: a run writes it at its beginning and at its end."""
    # Autoescape is for HTML. Here ``finalize`` puts every value on one line.
    environment = jinja2.Environment(
        autoescape=False,  # noqa: S701
        finalize=_line,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        bytes=human_bytes,
        cell=_cell,
        heading=_heading,
        line=_line,
        listed=listed,
        node_name=_node_name,
        note=_note,
        sentence=sentence,
        wave=wave_words,
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def as_markdown(report: Data) -> str:
    """Return the manifest. No value in the report can add a line, a box or a table cell to it."""
    pairs = adapters_of(report)
    return _template().render(
        report=report,
        sections=_sections(pairs),
        evidence=_evidence(report, pairs),
        engines=_rows(report, pairs, "engines", _verdict),
        served=_rows(report, pairs, "serving", _service),
        signatures=_signatures(report, pairs),
        failures=grouped(report["failures"]),
        files=list(dict.fromkeys(name for _node, adapter in pairs for name in _file_names(adapter))),
        releases=_releases(pairs),
    )


def _sections(pairs: c.Sequence[tuple[Data, Data]]) -> list[tuple[str, list[Data], list[Data]]]:
    """Return the agent, the nodes and the adapters of each section.

    The nodes of a group serve the same adapters below the same path.
    """
    found: dict[tuple[str, str], tuple[dict[str, Data], list[Data]]] = {}
    for node, adapter in pairs:
        nodes, adapters = found.setdefault(place_of(node, adapter), ({}, []))
        nodes[node["node"]] = node
        adapters.append(adapter)
    return [(agent, list(nodes.values()), adapters) for (agent, _group), (nodes, adapters) in found.items()]


def _evidence(report: Data, pairs: c.Iterable[tuple[Data, Data]]) -> list[list[t.Any]]:
    """Return the rows of the evidence, one for all nodes that are alike but for the time."""

    def shown(pair: tuple[Data, Data]) -> tuple[t.Any, ...]:
        _node, adapter = pair
        made_of = origin(adapter)
        release = f"{adapter['release']} ({made_of})" if made_of else adapter["release"]
        level = (adapter["test"] or {}).get("level")
        return (
            adapter["agent"],
            adapter["name"],
            release,
            state_words(adapter["state"]),
            level,
            device(adapter),
            adapter["digest"],
        )

    rows = []
    for alike in together(report, pairs, shown):
        agent, *values, digest = shown(alike[0])
        at = span((adapter["test"] or {}).get("at") for _node, adapter in alike)
        rows.append([agent, listed(node["node"] for node, _adapter in alike), *values, at, digest])
    return rows


def _rows(
    report: Data, pairs: c.Iterable[tuple[Data, Data]], key: str, shown: c.Callable[[Data], tuple[t.Any, ...]]
) -> list[list[t.Any]]:
    """Return a row for each entry below ``key`` of an adapter, with all nodes that have it."""
    found = [(node["node"], (adapter["name"], *shown(entry))) for node, adapter in pairs for entry in adapter[key]]
    return _with_nodes(report, found)


def _verdict(verdict: Data) -> tuple[t.Any, ...]:
    return verdict["engine"], verdict["version"], verdict["state"], sentences(verdict)


def _service(one: Data) -> tuple[t.Any, ...]:
    return f"{one['engine']} at {one['url']}", one["state"], one["release"], one["why"]


def _signatures(report: Data, pairs: c.Iterable[tuple[Data, Data]]) -> list[list[t.Any]]:
    """Return a row for each adapter of nodes that trust signers."""
    found = [
        (node["node"], (adapter["name"], adapter["release"], *_signature(adapter["signed"])))
        for node, adapter in pairs
        if adapter.get("signed") is not None
    ]
    return _with_nodes(report, found)


def _signature(signed: Data) -> tuple[t.Any, ...]:
    return ", ".join(signed["signers"]) or signature_line(signed), signed["serial"], signed["expires"]


def _with_nodes(report: Data, found: c.Iterable[tuple[str, tuple[t.Any, ...]]]) -> list[list[t.Any]]:
    """Return each row with all nodes that have it."""
    return [[listed(name for name, _row in alike), *alike[0][1]] for alike in together(report, found, lambda pair: pair[1])]


def _releases(pairs: c.Sequence[tuple[Data, Data]]) -> list[Data]:
    """Return an adapter for each release, whatever the number of nodes that have it.

    Of a node whose files do not give its digest, nothing is known. It must not change what is said
    about the release of other nodes.
    """
    found: dict[tuple[str, str], Data] = {}
    for _node, adapter in pairs:
        files = [(entry["path"], entry["size"], entry["sha256"]) for entry in adapter["files"]]
        if files and release_digest(files) == adapter["digest"]:
            found.setdefault((adapter["name"], adapter["digest"]), adapter)
    return list(found.values())


def _file_names(adapter: Data) -> list[str]:
    """The files to transfer: the inventory plugin reads unknown ones as extra_files of all rows.

    So a node cannot add names: those of its release are listed only if they are always delivered.
    """
    return [*filter(is_always_delivered, (entry["path"] for entry in adapter["files"])), *adapter["extra_files"]]


def _node_name(node: Data) -> str:
    """Return a node's name in the manifest: ``gpu-a`` for host ``gpu-a-1`` of group ``gpu_a``."""
    name = str(node["node"]).rpartition("-")[0]
    return name if re.sub(r"\W", "_", name) == node["group"] else str(node["group"])


def _line(value: t.Any) -> str:
    """Return a value on one line. It must not begin a comment, which would hide what follows."""
    return "" if value is None else " ".join(str(value).split()).replace("<!--", "<! --")


def _cell(value: t.Any) -> str:
    return _line(value).replace("\\", "\\\\").replace("|", "\\|")


def _heading(value: str) -> str:
    """Return a value without the signs that divide a heading."""
    return re.sub(r"[()]", "", re.sub(r"->|→", "to", _line(value)))


def _note(value: str) -> str:
    """Return a note that does not look like a check box."""
    return re.sub(r"^\[(.)\]", r"(\1)", _line(value))
