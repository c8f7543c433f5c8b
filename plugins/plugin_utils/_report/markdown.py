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
import pathlib
import re
import typing as t

import jinja2
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.words import sentences
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import human_bytes

from .model import adapters_of, place_of
from .run import Data
from .words import device, grouped, origin, sentence, state_words

_TEMPLATE = pathlib.Path(__file__).with_name("manifest.md.j2")


def as_markdown(report: Data) -> str:
    """Return the manifest. No value in the report can add a line, a box or a table cell to it."""
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
        device=device,
        heading=_heading,
        line=_line,
        node_name=_node_name,
        note=_note,
        origin=origin,
        sentences=sentences,
        sentence=sentence,
        state=state_words,
    )
    pairs = adapters_of(report)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        report=report,
        sections=_sections(pairs),
        adapters=pairs,
        failures=grouped(report["failures"]),
        files=list(dict.fromkeys(name for _node, adapter in pairs for name in _file_names(adapter))),
        # Once for each release, whatever the number of nodes that have it.
        releases=list({adapter["digest"]: adapter for _node, adapter in pairs if adapter["files"]}.values()),
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


def _file_names(adapter: Data) -> list[str]:
    return [*(entry["path"] for entry in adapter["files"]), *adapter["extra_files"]]


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
