# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The preflight of a node: what a first deploy asks of it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import typing as t

from .._adapter.manifest import Manifest
from .._engines.judgement import Judge, config_of_base
from .._engines.rules.form import RIGHT
from .._engines.words import sentences
from .._errors import DeliveryError
from .._rsync import check_transfer_options
from .._store.fetch import check_space, plan_fetches
from .._store.lock import check_locks
from .._store.paths import AdapterPaths, check_owners
from .._store.permissions import permissions_of
from .._store.plan import activation_method, check_keep
from .._store.preflight import check_models_dir, check_same_file_system, check_store, store_anchor
from .._store.probe import check_permissions, probe_directory, supports_exchange
from .._store.recovery import recovered
from .._store.served import inspect_served
from .._store.source import check_not_source
from .._store.state import read_state
from .._text import count, human_bytes
from .._ways import COMMAND, RELAY, ways_of
from .checklist import FAILED, OK, WARNING, Checklist
from .host import MODELS_DIR, adapter_check, check_libtorrent, check_python, check_rsync
from .loading import check_loading
from .serving import check_serving
from .signatures import check_signatures

FLOCK = "flock"
COMMAND_PROGRAM = "transfer_command"
STORE = "store"
SOURCE = "source of the adapters"
LOCKS = "locks"
PERMISSIONS = "owner and modes"
ACTIVATION = "activation"
SPACE = "free space"
TRANSFER = "transfer"
ENGINES = "engines"
TRAINING_SERVER = "training server"

_WITHOUT_DIRECTORIES = "without models directory and store"


@dataclasses.dataclass
class NodePreflight:
    """The checks of a node and the bytes that a deploy would send to it, None if unknown."""

    checklist: Checklist
    download_bytes: int | None = None


def check_node(params: dict[str, t.Any], scratch: str, probe: bool) -> NodePreflight:
    """Check a node with the options of module preflight_info.

    ``scratch`` is a directory for temporary files. With ``probe``, tries what an activation does in
    a directory of its own on the file system of the store, and removes it again.
    """
    node = NodePreflight(Checklist())
    checklist = node.checklist
    check_python(checklist)
    check_rsync(checklist, params)
    check_libtorrent(checklist, params, params["transfer_swarm_python"])
    if RELAY in ways_of(params):
        _check_program(checklist, FLOCK, FLOCK, "Install the package util-linux on it.")
    if COMMAND in ways_of(params) and params["transfer_command"]:
        remedy = "Install it there, or correct transfer_command."
        _check_program(checklist, COMMAND_PROGRAM, params["transfer_command"][0], remedy)
    exchange = _check_directories(checklist, params, probe)
    _check_activation(checklist, params, exchange)
    manifests = _check_training_server(checklist, params)
    check_signatures(checklist, params, manifests)
    _check_transfer(node, params, manifests)
    _check_engines(checklist, params, manifests)
    check_loading(checklist, params, manifests, scratch)
    # Some adapters have failed on the training server already.
    checklist.checks.sort(key=lambda one: one.check.startswith(adapter_check("")))
    return node


def _check_program(checklist: Checklist, check: str, name: str, remedy: str) -> None:
    with checklist.checking(check):
        program = shutil.which(name)
        if program is None:
            raise DeliveryError.of(name, "is not installed on this node.", remedy)
        checklist.ok(check, program)


def _check_directories(checklist: Checklist, params: dict[str, t.Any], probe: bool) -> bool:
    """Check the directories and what deliveries do in them.

    Returns whether directories can be exchanged between them. Like the check mode of a delivery,
    assumes that where it was not tried.
    """
    models_dir, store = params["models_dir"], params["store"]
    with checklist.checking(MODELS_DIR):
        check_models_dir(models_dir)
        checklist.ok(MODELS_DIR, models_dir)
    with checklist.checking(STORE):
        check_store(store)
        for row in params["adapters"]:
            check_owners(AdapterPaths(models_dir, store, row["name"]))
        if os.path.isdir(models_dir):
            check_same_file_system(models_dir, store)
        exists = store_anchor(store) == store
        checklist.ok(STORE, store if exists else f"{store}, which the first deploy creates")
    with checklist.checking(SOURCE):
        check_not_source(models_dir, store, params["source_directories"])
        if params["source_directories"]:
            checklist.ok(SOURCE, "not this node's own directories")
    permissions = None
    with checklist.checking(PERMISSIONS):
        permissions = permissions_of(params)
    if not probe or checklist.failed(MODELS_DIR, STORE):
        reason = "in check mode" if not probe else _WITHOUT_DIRECTORIES
        checklist.unknown(LOCKS, f"not tried {reason}")
        if permissions is not None:
            checklist.unknown(PERMISSIONS, f"not tried {reason}")
        return True
    exchange = True
    with checklist.checking(ACTIVATION), probe_directory(models_dir, store) as directory:
        with checklist.checking(LOCKS):
            check_locks(directory)
            checklist.ok(LOCKS, "work on this file system")
        if permissions is not None:
            with checklist.checking(PERMISSIONS):
                check_permissions(directory, permissions)
                checklist.ok(PERMISSIONS, _permissions_text(params))
        with checklist.checking(ACTIVATION):
            exchange = supports_exchange(directory, models_dir)
    return exchange


def _permissions_text(params: dict[str, t.Any]) -> str:
    given = [f"{option} {params[option]}" for option in ("owner", "group") if params[option] is not None]
    return ", ".join([*given, f"files {params['file_mode']}", f"directories {params['directory_mode']}"])


def _check_activation(checklist: Checklist, params: dict[str, t.Any], exchange: bool) -> None:
    """Check that what is served now can be replaced, and how."""
    if checklist.failed(MODELS_DIR, STORE, ACTIVATION):
        if not checklist.failed(ACTIVATION):
            checklist.unknown(ACTIVATION, f"not tried {_WITHOUT_DIRECTORIES}")
        return
    with checklist.checking(ACTIVATION):
        check_keep(params["keep"])
    methods = set()
    for row in params["adapters"]:
        with checklist.checking(ACTIVATION):
            paths = AdapterPaths(params["models_dir"], params["store"], row["name"])
            recorded = recovered(paths, read_state(paths)).method
            methods.add(activation_method(paths, params["activation"], recorded, inspect_served(paths), lambda: exchange))
    if not checklist.failed(ACTIVATION):
        checklist.ok(ACTIVATION, " and ".join(sorted(methods)))


def _check_training_server(checklist: Checklist, params: dict[str, t.Any]) -> dict[str, Manifest]:
    """Add what failed on the training server; returns the manifests of this node's adapters."""
    manifests = {manifest.name: manifest for manifest in map(Manifest.from_argument, params["manifests"])}
    missing = {adapter_check(row["name"]): row["name"] for row in params["adapters"] if row["name"] not in manifests}
    for found in params["source_checks"]:
        if found["state"] != FAILED:
            continue
        if found["check"] in missing:
            checklist.add(found["check"], FAILED, found["found"], found["remedy"], missing[found["check"]])
        elif not found["check"].startswith(adapter_check("")):
            checklist.add(TRAINING_SERVER, FAILED, f"{found['check']}: {found['found']}", found["remedy"])
    for check, name in missing.items():
        if checklist.failed(TRAINING_SERVER) and not checklist.failed(check):
            checklist.unknown(check, "not described by the training server", name)
        elif not checklist.failed(check):
            checklist.add(check, FAILED, "has no manifest in manifests.", "Describe it on the training server first.", name)
    if not checklist.failed(TRAINING_SERVER):
        checklist.ok(TRAINING_SERVER, "can be used")
    return {row["name"]: manifests[row["name"]] for row in params["adapters"] if row["name"] in manifests}


def _check_engines(checklist: Checklist, params: dict[str, t.Any], manifests: dict[str, Manifest]) -> None:
    with checklist.checking(ENGINES):
        judge = Judge(params)
        for missing in judge.missing:
            checklist.add(missing.subject, WARNING, missing.problem, missing.remedy)
        for name, manifest in manifests.items():
            judgement = judge.judge(manifest, config_of_base(manifest, params["bases"]))
            for verdict in judgement.engines():
                state = FAILED if verdict["held_back"] else OK if verdict["state"] == RIGHT else WARNING
                found = f"adapter {name}: {sentences(verdict)}"
                checklist.add(f"engine {verdict['engine']}", state, found, verdict["remedy"])
            for note in judgement.notes:
                checklist.add(ENGINES, WARNING, f"adapter {name}: {note}")
        check_serving(checklist, params, manifests.values())


def _check_transfer(node: NodePreflight, params: dict[str, t.Any], manifests: dict[str, Manifest]) -> None:
    checklist = node.checklist
    with checklist.checking(TRANSFER):
        check_transfer_options(params)
    if not manifests or checklist.failed(MODELS_DIR, STORE):
        reason = _WITHOUT_DIRECTORIES if manifests else "without a described adapter"
        checklist.unknown(SPACE, f"not calculated {reason}")
        checklist.unknown(TRANSFER, f"not calculated {reason}")
        return
    with checklist.checking(TRANSFER):
        fetches = plan_fetches(manifests.values(), params["models_dir"], params["store"])
        files = [entry for fetch in fetches for entry in fetch.to_download]
        node.download_bytes = sum(entry.size for entry in files)
        local = sum(entry.size for fetch in fetches for entry in fetch.missing) - node.download_bytes
        more = f"; {human_bytes(local)} more are shared by adapters or here already" if local else ""
        checklist.ok(TRANSFER, f"{human_bytes(node.download_bytes)} to receive in {count(len(files), 'file')}{more}")
        with checklist.checking(SPACE):
            space = check_space(params["store"], fetches)
            checklist.ok(SPACE, f"{human_bytes(space.free)} free, {human_bytes(space.needed)} needed")
