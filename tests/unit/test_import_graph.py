# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may import whom in plugins/: nobody upwards, nothing of the controller on a node, nothing in a circle."""

from __future__ import annotations

import ast
import pathlib
import typing as t

import graphlib
import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test import PROGRAM

PLUGINS = pathlib.Path(__file__).parents[2] / "plugins"
COLLECTION = ("ansible_collections", "lorafleet", "delivery", "plugins")
NODE = {"module_utils"}
CONTROLLER = {"module_utils", "plugin_utils"}
# What each kind of plugin may import of the collection.
MAY: dict[str, set[str]] = {
    "module_utils": NODE,
    "modules": NODE,
    "doc_fragments": set(),
    **dict.fromkeys(("plugin_utils", "action", "callback", "filter", "inventory"), CONTROLLER),
}

# (kind, file) to those that it imports.
File = tuple[str, str]


def imports(path: pathlib.Path) -> t.Iterator[tuple[int, tuple[str, ...]]]:
    """Every import of a file, inside functions too: how many dots it begins with, and the whole name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, tuple(alias.name.split("."))) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            yield from ((node.level, (*module, alias.name)) for alias in node.names)


def files_of_the_collection(path: pathlib.Path) -> set[File]:
    found: set[File] = set()
    for dots, name in imports(path):
        if dots:
            assert dots == 1, f"{path} reaches out of its directory"
            name = (*COLLECTION, path.parent.name, *name)
        if name[:4] == COLLECTION:
            found.add((name[4], name[5]))
    return found


GRAPH = {(path.parent.name, path.stem): files_of_the_collection(path) for path in sorted(PLUGINS.glob("*/*.py"))}


@pytest.mark.parametrize("kind", sorted({path.parent.name for path in PLUGINS.glob("*/*.py")}))
def test_each_kind_imports_only_what_lies_below_it(kind: str) -> None:
    wrong = {file: of for file in GRAPH if file[0] == kind for of in GRAPH[file] if of[0] not in MAY[kind]}
    assert wrong == {}


def test_nothing_in_a_circle() -> None:
    # Raises CycleError, which names the files.
    assert set(graphlib.TopologicalSorter(GRAPH).static_order()) == set(GRAPH)


def test_node_code_of_the_collection_knows_nothing_of_ansible() -> None:
    wrong = {
        path.name: name
        for path in sorted((PLUGINS / "module_utils").glob("*.py"))
        for dots, name in imports(path)
        if not dots and name[0] == "ansible"
    }
    assert wrong == {}


def test_the_program_of_the_load_test_is_whole() -> None:
    """It is a package of its own where it runs: relative imports of its own files, and none of anything else here."""
    program = {part.__name__.rpartition(".")[2] for part in PROGRAM}
    for name in program:
        found = imports(PLUGINS / "module_utils" / f"{name}.py")
        ours = {(dots, imported[0]) for dots, imported in found if dots or imported[0] == COLLECTION[0]}
        assert ours <= {(1, part) for part in program}, name
