# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Releases of a few hundred bytes for tests: versions 1, 2, 3, ... of one adapter."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry, Manifest, TensorEntry
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths, make_store
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.receipt import write_receipt

NAME = "grammar_lora"
WEIGHTS = "adapter_model.safetensors"

# Further files of every version, which tests add and remove.
FURTHER: dict[str, bytes] = {}
TEMPLATE = "additional_chat_templates/tool_use.jinja"


def config_of(version: int) -> dict[str, t.Any]:
    return {"r": 16 * version, "lora_alpha": 32}


def content(version: int) -> dict[str, bytes]:
    """Return the files of a version.

    Names and sizes are equal in all versions, as for a retrained adapter.
    """
    return {
        "adapter_config.json": json.dumps(config_of(version)).encode().ljust(64),
        WEIGHTS: hashlib.sha256(b"%d" % version).digest() * 16,
        "tokenizer.json": b'{"the": "same"}',
        **FURTHER,
    }


def manifest_of(version: int, name: str = NAME) -> Manifest:
    tensors = [TensorEntry(f"t{n}", "F32", (2, 2), hashlib.sha256(b"%d" % (n * version)).hexdigest()) for n in range(4)]
    return Manifest(
        name=name,
        files=tuple(
            FileEntry(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in sorted(content(version).items())
        ),
        tensors=tuple(tensors),
        config=config_of(version),
        versions={"peft": "0.18.0"},
    )


def release_of(version: int) -> str:
    return manifest_of(version).release


def write_version(directory: t.Union[str, pathlib.Path], version: int, mode: int = 0o600) -> None:
    os.makedirs(directory)
    for name, data in content(version).items():
        path = pathlib.Path(directory, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)


def stage(paths: AdapterPaths, version: int, level: str = "model") -> Manifest:
    """Stage a release and write its receipt, as the tasks before the activation do."""
    manifest = manifest_of(version, paths.name)
    make_store(paths)
    write_version(paths.staged(manifest.release), version)
    write_receipt(paths, manifest.release, {"level": level, "device": "cpu", "versions": {}, "environment": ""})
    return manifest


def version_at(path: t.Union[str, pathlib.Path]) -> t.Optional[int]:
    """Return the version that is complete in a directory, read through one handle;

    None for anything else.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    found = {}
    try:
        for top, _directories, files, top_handle in os.fwalk(dir_fd=handle):
            for name in files:
                with open(os.open(name, os.O_RDONLY, dir_fd=top_handle), "rb") as stream:
                    found[os.path.normpath(os.path.join(top, name))] = stream.read()
    finally:
        os.close(handle)
    return next((version for version in range(10) if content(version) == found), None)
