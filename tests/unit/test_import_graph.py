# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Imports within plugins/: none from a higher kind or room, and no cycles."""

from __future__ import annotations

import ast
import pathlib
import typing as t

import graphlib
import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.program import PROGRAM

from tests.support.paths import PLUGINS

COLLECTION = ("ansible_collections", "lorafleet", "delivery", "plugins")
NODE = {"module_utils"}
CONTROLLER = {"module_utils", "plugin_utils"}
# The kinds of plugins that each kind may import from.
MAY_IMPORT: dict[str, set[str]] = {
    "module_utils": NODE,
    "modules": NODE,
    "doc_fragments": set(),
    **dict.fromkeys(("plugin_utils", "action", "callback", "inventory"), CONTROLLER),
}
# The rooms (sub-packages) of each kind. A room may import from those before it. "" are the files
# outside of all rooms.
ROOMS = {
    "module_utils": [
        "",
        "_linux",
        "_formats",
        "_base",
        "_adapter",
        "_engines.rules",
        "_engines",
        "_load_test.worker",
        "_store",
        "_signing",
        "_golden",
        "_serving",
        "_serving.engines",
        "_load_test",
        "_source",
        "_preflight",
        "_transfer",
    ],
    "plugin_utils": ["", "_signing", "_contact", "_rollout", "_fleet", "_progress", "_report", "_transfer", "_preflight"],
}
# The only files outside of rooms that import from rooms.
ROOF = {("module_utils", "_release_info"), ("module_utils", "_up_to_date")}

# The base class of the modules, which nothing but modules may need.
BASE_CLASS = ("module_utils", "_module")

# The parts of a file's dotted name below plugins/: ("module_utils", "_store", "plan").
File = t.Tuple[str, ...]


def names_imported_by(path: pathlib.Path) -> t.Iterator[tuple[str, ...]]:
    """Yield the full name of every import of a file, also inside functions."""
    here = (*COLLECTION, *path.relative_to(PLUGINS).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = here[: len(here) - node.level + 1] if node.level else ()
            module = tuple(node.module.split(".")) if node.module else ()
            yield from ((*package, *module, alias.name) for alias in node.names)


def file_of(name: tuple[str, ...]) -> File:
    """Return the file of the collection that an imported name is, or is part of."""
    below = name[len(COLLECTION) :]
    return below if PLUGINS.joinpath(*below).with_suffix(".py").is_file() else below[:-1]


def imports_of(path: pathlib.Path) -> set[File]:
    return {file_of(name) for name in names_imported_by(path) if name[: len(COLLECTION)] == COLLECTION}


FILES = {path.relative_to(PLUGINS).with_suffix("").parts: path for path in sorted(PLUGINS.rglob("*.py"))}
GRAPH = {file: imports_of(path) for file, path in FILES.items()}


def room_of(file: File) -> str:
    return ".".join(file[1:-1])


@pytest.mark.parametrize("kind", sorted({file[0] for file in FILES}))
def test_imports_respect_order_of_kinds(kind: str) -> None:
    wrong = {file: other for file in GRAPH if file[0] == kind for other in GRAPH[file] if other[0] not in MAY_IMPORT[kind]}
    assert wrong == {}


@pytest.mark.parametrize("kind", sorted(ROOMS))
def test_imports_respect_order_of_rooms(kind: str) -> None:
    order = ROOMS[kind]
    assert {room_of(file) for file in FILES if file[0] == kind} == set(order)
    wrong = {
        file: other
        for file in GRAPH.keys() - ROOF
        for other in GRAPH[file]
        if file[0] == other[0] == kind and (other in ROOF or order.index(room_of(other)) > order.index(room_of(file)))
    }
    assert wrong == {}


def test_imports_form_no_cycle() -> None:
    # Otherwise raises CycleError, which names the files.
    assert set(graphlib.TopologicalSorter(GRAPH).static_order()) == set(GRAPH)


@pytest.mark.parametrize("kind", sorted(ROOMS))
def test_imports_within_a_kind_are_relative(kind: str) -> None:
    absolute = {
        file: node.module
        for file, path in FILES.items()
        if file[0] == kind
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith(".".join((*COLLECTION, kind)))
    }
    assert absolute == {}


def test_module_utils_but_base_class_do_not_import_ansible() -> None:
    wrong = {
        file: name
        for file, path in FILES.items()
        if file[0] == "module_utils" and file != BASE_CLASS
        for name in names_imported_by(path)
        if name[0] == "ansible"
    }
    assert wrong == {}


def test_load_test_program_imports_only_itself() -> None:
    """It runs as a separate package, without the other files of the collection."""
    program = {tuple(part.__name__.split(".")[len(COLLECTION) :]) for part in PROGRAM}
    assert {file: GRAPH[file] - program for file in program if GRAPH[file] - program} == {}


def test_base_class_of_modules_is_imported_by_modules_only() -> None:
    assert {file[0] for file, others in GRAPH.items() if BASE_CLASS in others} == {"modules"}


@pytest.mark.parametrize("module", ["adapter_release", "adapter_sync"])
def test_module_that_asks_engines_is_sent_without_what_makes_them_serve(module: str) -> None:
    """The controller reads every file that a module may import, once a run."""
    sent, pending = set(), {("modules", module)}
    while pending:
        sent |= pending
        pending = {other for file in pending for other in GRAPH[file]} - sent
    assert ("module_utils", "_serving", "node_engine") in sent
    assert sent & {("module_utils", "_serving", name) for name in ("node", "restarting", "routine")} == set()
