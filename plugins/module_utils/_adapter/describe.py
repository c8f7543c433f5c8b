# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Build the manifest of an adapter directory."""

from __future__ import annotations

import dataclasses
import os
import time
import typing as t

from .._errors import DeliveryError
from .._formats.tensor_scan import TensorScan, scan
from .._hashing import sha256_of_all
from .base_embeddings import embedding_problems
from .declaration import Declaration
from .excluded import Excluded
from .file_selection import changed, select_files
from .files import CONFIG_FILE, PICKLE_FILE, SAFETENSORS_FILE
from .hash_cache import CacheEntry, is_older, read_entry, signature_of, write_entry
from .lora_config import config_notes, config_problems, read_lora_config
from .manifest import FileEntry, Manifest, TensorEntry
from .other_formats import format_of_config
from .scaling import overlap_notes
from .structure import lora_modules, structure_notes, structure_problems
from .suggestion import Row, contradiction
from .tokenizer import read_tokenizer, tokenizer_problems
from .vocabulary import vocabulary_problems


@dataclasses.dataclass(frozen=True)
class Description:
    """A described adapter directory.

    ``links`` has the path that each link in it leads to, by the name of the file. ``excluded`` are
    the names in it that are not part of the adapter. ``notes`` say what is unusual about it.
    ``cached`` is true when the files were not read because the cache had a valid entry.
    """

    manifest: Manifest
    links: dict[str, str]
    excluded: list[Excluded]
    notes: list[str]
    cached: bool


def describe(
    directory: str,
    declared: Declaration,
    versions: dict[str, str],
    cache: str,
    write_cache: bool = True,
    link_dirs: t.Sequence[str] = (),
    row: Row | None = None,
) -> Description:
    """Describe the adapter in ``directory``, following links into ``link_dirs``.

    With ``row``, from which ``declared`` was made, the problems show the row that the adapter's own
    configuration gives if it differs.

    ``versions`` are the library versions of the training environment, where they are known.
    ``cache`` is the path of this adapter's cache entry (``hash_cache.cache_path``). The entry is
    written if ``write_cache`` is true, unless a file changed so recently that another change to it
    could go unnoticed.

    Raises DeliveryError when the directory contains no adapter or one that differs from
    ``declared``, is damaged, or changes while it is read.
    """
    selection = select_files(directory, declared, link_dirs)
    paths = selection.paths
    started = time.time_ns()
    signature = signature_of(paths)
    entry = read_entry(cache, signature)
    cached = entry is not None
    if entry is None:
        entry = _read_files(paths, declared.name)
    # Also if a link, or a directory on the way to a file, leads somewhere else now.
    if signature_of(paths) != signature or select_files(directory, declared, link_dirs).paths != paths:
        raise changed(directory, declared)
    other = format_of_config(entry.config)
    if other is not None:
        problem = f"{directory} has the {CONFIG_FILE} of {other.what}."
        raise DeliveryError.of("", problem, other.remedy, declared.name)
    differing = config_problems(entry.config, declared)
    if differing and row is not None:
        differing += contradiction(entry.config, declared, row)
    problems = [*differing, *tokenizer_problems(paths, declared.name)]
    beyond, notes = vocabulary_problems(entry.vocabulary, paths, entry.tensors, declared)
    problems += beyond
    if SAFETENSORS_FILE in paths:
        problems += structure_problems(declared.name, entry.tensors, entry.config, declared.base_config, declared.target_modules)
    if not problems:
        problems += embedding_problems(entry.tensors, entry.config, declared)
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
    notes += config_notes(entry.config, declared)
    notes += overlap_notes(entry.config, lora_modules(entry.tensors))
    if SAFETENSORS_FILE in paths and PICKLE_FILE in [item.path for item in selection.excluded]:
        notes.append(f"There is {PICKLE_FILE}, too. PEFT loads {SAFETENSORS_FILE}, which is delivered.")
    if SAFETENSORS_FILE in paths:
        notes += structure_notes(entry.tensors, entry.config, declared.base_config)
    links = {name: path for name, path in paths.items() if path != os.path.join(directory, name)}
    return Description(manifest, links, selection.excluded, notes, cached)


def _read_files(paths: t.Mapping[str, str], name: str) -> CacheEntry:
    hashed = [file for file in paths if file != SAFETENSORS_FILE]
    digests = dict(zip(hashed, sha256_of_all([paths[file] for file in hashed])))
    tensors: tuple[TensorScan, ...] = ()
    if SAFETENSORS_FILE in paths:
        weights = scan(paths[SAFETENSORS_FILE])
        digests[SAFETENSORS_FILE] = (weights.size, weights.sha256)
        tensors = weights.tensors
    config = read_lora_config(paths[CONFIG_FILE])
    files = tuple(sorted(FileEntry(file, *digests[file]) for file in paths))
    return CacheEntry(files, tensors, config, read_tokenizer(paths, name))
