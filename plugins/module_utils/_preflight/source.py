# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The preflight of a training server."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._adapter.files import TOKENIZER_CONFIG
from .._adapter.manifest import Manifest
from .._base.identity import Identities
from .._errors import DeliveryError
from .._files import read_json
from .._golden.attach import NONE, RECORDED, STALE
from .._load_test.interpreter import library_versions
from .._source.describe import describe_adapters
from .._text import human_bytes
from .checklist import WARNING, Checklist
from .host import (
    INTERPRETER,
    MODELS_DIR,
    adapter_check,
    check_bases,
    check_libtorrent,
    check_python,
    check_rsync,
    versions_text,
)

_GOLDENS = {RECORDED: ", golden recorded", STALE: ", golden of another release only", NONE: ""}


@dataclasses.dataclass
class Source:
    """The checks of a training server, and what nodes need to know of its adapters.

    ``directories`` is that of module adapter_info.
    ``tokenizer_classes`` has the class in tokenizer_config.json by adapter, where there is one.
    """

    checklist: Checklist
    manifests: list[Manifest] = dataclasses.field(default_factory=list)
    directories: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    tokenizer_classes: dict[str, str] = dataclasses.field(default_factory=dict)


def check_source(params: dict[str, t.Any], scratch: str) -> Source:
    """Check a training server with the options of module preflight_info.

    Writes nothing but temporary files, in ``scratch``.
    """
    source = Source(Checklist())
    checklist = source.checklist
    check_python(checklist)
    check_rsync(checklist, params)
    check_libtorrent(checklist, params, params["transfer_swarm_source_python"])
    _check_models_dir(checklist, params["models_dir"])
    versions = _check_interpreter(checklist, params["python"])
    identities = Identities()
    used = dict.fromkeys(row["base"] for row in params["adapters"])
    bases = check_bases(checklist, params["bases"], used, identities)
    # A delivery describes no adapter if the entry of any base is wrong.
    check_bases(checklist, params["bases"], [name for name in params["bases"] if name not in used], None)
    _check_adapters(source, params, bases, versions, identities, scratch)
    return source


def _check_models_dir(checklist: Checklist, models_dir: str) -> None:
    with checklist.checking(MODELS_DIR):
        if not os.path.isdir(models_dir):
            raise DeliveryError.of(
                models_dir, "is not a directory.", "Correct training_models_dir, or agent_models_dir if that is not set."
            )
        if not os.access(models_dir, os.X_OK):
            raise DeliveryError.of(
                models_dir,
                f"cannot be entered by user {os.geteuid()}.",
                "Run with become on this host, or give that user permission.",
            )
        checklist.ok(MODELS_DIR, models_dir)


def _check_interpreter(checklist: Checklist, python: str | None) -> dict[str, str]:
    """Return the versions of the training environment, where an interpreter is set and works."""
    versions: dict[str, str] = {}
    if python:
        with checklist.checking(INTERPRETER):
            versions = library_versions(python)
            checklist.ok(INTERPRETER, f"{python}: {versions_text(versions)}")
    return versions


def _check_adapters(
    source: Source,
    params: dict[str, t.Any],
    bases: dict[str, dict[str, t.Any]],
    versions: dict[str, str],
    identities: Identities,
    scratch: str,
) -> None:
    checklist = source.checklist
    for row in params["adapters"]:
        name = row["name"]
        check = adapter_check(name)
        if checklist.failed(MODELS_DIR):
            checklist.unknown(check, "not described without the models directory", name)
            continue
        known = {row["base"]: _names_only(params["bases"].get(row["base"])), **bases}
        found = describe_adapters({**params, "adapters": [row]}, known, versions, identities, scratch, write_cache=False)
        checklist.fail(check, found.problems, adapter=name)
        prefix = f"{check}: "
        for warning in found.warnings:
            # Python 3.8 has no removeprefix.
            text = warning[len(prefix) :] if warning.startswith(prefix) else warning
            checklist.add(check, WARNING, text, adapter=name)
        for manifest in found.manifests:
            with checklist.checking(check, name):
                # A folded adapter has the tokenizer of its original.
                _add_tokenizer_class(source, found.directories[name], manifest)
                made_of = f", folded from {manifest.made_of.release}" if manifest.made_of else ""
                text = f"release {manifest.release}{made_of}, {human_bytes(manifest.size)}{_GOLDENS[found.goldens[name]]}"
                if row["base"] in bases:
                    checklist.ok(check, text, name)
                else:
                    checklist.unknown(check, f"{text}; not compared with its base", name)
                source.manifests.append(manifest)
        source.directories.update(found.identified_directories())


def _names_only(base: t.Any) -> dict[str, t.Any]:
    """Return the entry of a base whose files cannot be read: only its names are known."""
    aliases = base.get("aliases") if isinstance(base, dict) else None
    return {"aliases": aliases} if isinstance(aliases, list) else {}


def _add_tokenizer_class(source: Source, directory: str, manifest: Manifest) -> None:
    if any(entry.path == TOKENIZER_CONFIG for entry in manifest.files):
        config = read_json(os.path.join(directory, TOKENIZER_CONFIG), "Save the tokenizer again.")
        if isinstance(config, dict) and isinstance(config.get("tokenizer_class"), str):
            source.tokenizer_classes[manifest.name] = config["tokenizer_class"]
