# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Select the files of a directory that belong to the adapter, and build their manifest."""

from __future__ import annotations

import dataclasses
import os
import stat
import time

from .._errors import DeliveryError, Problem
from .._formats.tensor_scan import TensorScan, scan
from .._hashing import sha256_of_all
from .._text import first
from .declaration import Declaration
from .files import CODE_SUFFIXES, CONFIG_FILE, PICKLE_FILE, SAFETENSORS_FILE, TOKENIZER_FILES
from .hash_cache import CacheEntry, is_older, read_entry, signature_of, write_entry
from .lora_config import config_problems, read_lora_config
from .manifest import FileEntry, Manifest, TensorEntry
from .structure import structure_problems
from .tokenizer import tokenizer_problems


@dataclasses.dataclass(frozen=True)
class Description:
    """A described adapter directory.

    ``excluded`` are the names in it that are not part of the adapter. ``cached`` is true when the
    files were not read because the cache had a valid entry.
    """

    manifest: Manifest
    excluded: list[str]
    cached: bool


def describe(
    directory: str, declared: Declaration, versions: dict[str, str], cache: str, write_cache: bool = True
) -> Description:
    """Describe the adapter in ``directory``.

    ``versions`` are the library versions of the training environment, where they are known.
    ``cache`` is the path of this adapter's cache entry (``hash_cache.cache_path``). The entry is
    written if ``write_cache`` is true, unless a file changed so recently that another change to it
    could go unnoticed.

    Raises DeliveryError when the directory contains no adapter or one that differs from
    ``declared``, is damaged, or changes while it is read.
    """
    names, excluded = _adapter_files(directory, declared)
    started = time.time_ns()
    signature = signature_of(directory, names)
    entry = read_entry(cache, signature)
    cached = entry is not None
    if entry is None:
        entry = _read_files(directory, names)
    if signature_of(directory, names) != signature:
        raise _changed(directory, declared)
    problems = [*config_problems(entry.config, declared), *tokenizer_problems(directory, names, declared.name)]
    if SAFETENSORS_FILE in names:
        problems += structure_problems(declared.name, entry.tensors, entry.config, declared.base_config)
    if problems:
        raise DeliveryError(*problems)
    if write_cache and not cached and is_older(signature, started):
        write_entry(cache, signature, entry)
    if "peft_version" in entry.config:
        versions = {"peft": str(entry.config["peft_version"]), **versions}
    manifest = Manifest(
        name=declared.name,
        files=entry.files,
        tensors=tuple(TensorEntry(found.name, found.dtype, found.shape, found.sha256, found.norm) for found in entry.tensors),
        config=entry.config,
        versions=versions,
    )
    return Description(manifest, excluded, cached)


def _read_files(directory: str, names: list[str]) -> CacheEntry:
    hashed = [name for name in names if name != SAFETENSORS_FILE]
    digests = dict(zip(hashed, sha256_of_all([os.path.join(directory, name) for name in hashed])))
    tensors: tuple[TensorScan, ...] = ()
    if SAFETENSORS_FILE in names:
        weights = scan(os.path.join(directory, SAFETENSORS_FILE))
        digests[SAFETENSORS_FILE] = (weights.size, weights.sha256)
        tensors = weights.tensors
    config = read_lora_config(os.path.join(directory, CONFIG_FILE))
    return CacheEntry(tuple(sorted(FileEntry(name, *digests[name]) for name in names)), tensors, config)


def _adapter_files(directory: str, declared: Declaration) -> tuple[list[str], list[str]]:
    """Return the names that belong to the adapter and the names that do not, each sorted."""
    try:
        present = sorted(os.listdir(directory))
    except FileNotFoundError:
        raise _no_adapter(declared, f"{directory} does not exist.") from None
    except OSError as exc:
        raise _no_adapter(declared, f"{directory} cannot be listed: {exc.strerror}.") from exc
    if not present:
        raise _no_adapter(declared, f"{directory} is empty.")
    if CONFIG_FILE not in present:
        raise _no_adapter(declared, f"{directory} has no {CONFIG_FILE}.")
    weights = [name for name in (SAFETENSORS_FILE, PICKLE_FILE) if name in present]
    if not weights:
        raise _no_adapter(declared, f"{directory} has no {SAFETENSORS_FILE}.")
    if len(weights) > 1:
        raise DeliveryError.of(
            "",
            f"{directory} has both {SAFETENSORS_FILE} and {PICKLE_FILE}: it is unclear which of them to deliver.",
            f"Remove {PICKLE_FILE}, or move it aside.",
            declared.name,
        )
    if weights == [PICKLE_FILE] and not declared.allow_pickle:
        raise DeliveryError.of(
            "",
            f"{directory} has its weights as {PICKLE_FILE}, a pickle, which can carry code.",
            f"Save it as {SAFETENSORS_FILE} (save_pretrained with safe_serialization=True), or set allow_pickle.",
            declared.name,
        )
    code = [name for name in declared.extra_files if name.lower().endswith(CODE_SUFFIXES)]
    if code:
        raise DeliveryError.of(
            "",
            f"has {first(code)} in extra_files, which is code or can carry code.",
            "Remove it from extra_files: only data is delivered.",
            declared.name,
        )
    delivered = {CONFIG_FILE, *weights, *TOKENIZER_FILES, *declared.extra_files} & set(present)
    problems = []
    for name in sorted(delivered):
        try:
            mode = os.lstat(os.path.join(directory, name)).st_mode
        except FileNotFoundError:
            raise _changed(directory, declared) from None
        if not stat.S_ISREG(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a plain file"
            problems.append(
                Problem(
                    "",
                    f"{os.path.join(directory, name)} is {kind}.",
                    "Replace it with the file itself (cp -L): links, directories and devices are never delivered.",
                    declared.name,
                )
            )
    if problems:
        raise DeliveryError(*problems)
    return sorted(delivered), sorted(set(present) - delivered)


def _no_adapter(declared: Declaration, found: str) -> DeliveryError:
    return DeliveryError.of(
        "", found, "Check the name in the inventory and that the training has saved the adapter there.", declared.name
    )


def _changed(directory: str, declared: Declaration) -> DeliveryError:
    return DeliveryError.of(
        "",
        f"changed while it was read: {directory} is still being written.",
        "Wait until the training has ended, then run again.",
        declared.name,
    )
