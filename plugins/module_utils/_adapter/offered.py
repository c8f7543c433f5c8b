# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Check a manifest that another host made, against what the inventory declares. Reads no files.

A training server checks its adapters before it describes them, but whoever owns it can describe
what it likes. So the controller checks every manifest that it gets, and the node every manifest
that it is given.
"""

from __future__ import annotations

import typing as t

from .._errors import DeliveryError, Problem
from .._formats.safetensors import MAX_HEADER, bit_count
from .._formats.strict_json import MAX_CONFIG, MAX_DATA
from .._formats.tensor_scan import TensorScan
from .._text import count, first, human_bytes
from .declaration import Declaration
from .files import CONFIG_FILE, PICKLE_FILE, SAFETENSORS_FILE, is_code, is_tokenizer_file
from .lora_config import config_problems
from .manifest import Manifest
from .structure import structure_problems

# Tokenizers have about ten files, and a chat template each for a few purposes.
MAX_FILES = 128
MAX_EXTRA = 1 << 30
# A pickle does not say how much data it has. Saved embeddings of the largest bases have 5 GB.
MAX_PICKLE = 1 << 34

_REMEDY = "Inspect the host that described it: it does not offer what its own checks accept."


def declared_in(rows: t.Iterable[dict[str, t.Any]], bases: t.Mapping[str, t.Any]) -> list[Declaration]:
    """Return what the options ``adapters`` and ``bases`` of a module declare.

    Of a base about which nothing is known here, less is checked. Raises DeliveryError for a row
    with an invalid name.
    """
    known = {name: base for name, base in bases.items() if isinstance(base, dict)}
    return [Declaration.from_row(row, known.get(row["base"], {})) for row in rows]


def check_offered(manifests: t.Sequence[Manifest], declared: t.Sequence[Declaration]) -> None:
    """Raise DeliveryError with the problems of all manifests.

    There must be at most one for each declared adapter, and none for others.
    """
    problems: list[Problem] = []
    declarations = {one.name: one for one in declared}
    for number, manifest in enumerate(manifests):
        if manifest.name not in declarations:
            problems.append(Problem("", "has a manifest, but is not declared.", _REMEDY, manifest.name))
        elif manifest.name in [other.name for other in manifests[:number]]:
            problems.append(Problem("", "has two manifests.", _REMEDY, manifest.name))
        else:
            problems += manifest_problems(manifest, declarations[manifest.name])
    if problems:
        raise DeliveryError(*problems)


def manifest_problems(manifest: Manifest, declared: Declaration) -> list[Problem]:
    """Return what the declaration does not permit: files, sizes, configuration and tensors."""
    if manifest.made_of is not None:
        if manifest.made_of.form != declared.form:
            problem = f"has the form {manifest.made_of.form}; the inventory declares {declared.form}."
            return [Problem("", problem, _REMEDY, declared.name)]
        declared = declared.folded()
    problems = [*file_problems(manifest, declared), *config_problems(manifest.config, declared)]
    if manifest.weights_file == SAFETENSORS_FILE:
        # The values were checked where the file is.
        tensors = [
            TensorScan(entry.name, entry.dtype, entry.shape, entry.sha256, finite=True, zero=False, norm=entry.norm)
            for entry in manifest.tensors
        ]
        problems += structure_problems(declared.name, tensors, manifest.config, declared.base_config, declared.target_modules)
    return problems


def file_problems(manifest: Manifest, declared: Declaration) -> list[Problem]:
    """Return what is wrong with the names, the number and the sizes of the files."""

    def problem(text: str) -> Problem:
        return Problem("", text, _REMEDY, declared.name)

    sizes = {entry.path: entry.size for entry in manifest.files}
    weights = {SAFETENSORS_FILE, PICKLE_FILE} & sizes.keys()
    others = sorted(sizes.keys() - {CONFIG_FILE, *weights})
    problems = []
    if len(sizes) > MAX_FILES:
        problems.append(problem(f"has {len(sizes)} files; at most {MAX_FILES} are accepted."))
    if CONFIG_FILE not in sizes or len(weights) != 1:
        problems.append(problem(f"does not have {CONFIG_FILE} and exactly one weights file, but {first(sorted(sizes))}."))
    elif weights == {PICKLE_FILE} and not declared.allow_pickle:
        problems.append(problem(f"has its weights as {PICKLE_FILE}, a pickle, which its row does not permit."))
    undeclared = [name for name in others if is_code(name) or not (is_tokenizer_file(name) or name in declared.extra_files)]
    if undeclared:
        problems.append(problem(f"has files that are not declared: {first(undeclared)}."))
    limits = {CONFIG_FILE: MAX_CONFIG, **{name: MAX_DATA if is_tokenizer_file(name) else MAX_EXTRA for name in others}}
    limits[PICKLE_FILE] = MAX_PICKLE
    if SAFETENSORS_FILE in sizes:
        data, least = _data_size(manifest), 10
        if data is None or not least <= sizes[SAFETENSORS_FILE] - data <= 8 + MAX_HEADER:
            size = human_bytes(sizes[SAFETENSORS_FILE])
            of = "unknown size" if data is None else human_bytes(data)
            problems.append(problem(f"has {SAFETENSORS_FILE} of {size} for {count(len(manifest.tensors), 'tensor')} of {of}."))
    problems += [
        problem(f"has {name} of {human_bytes(sizes[name])}; at most {human_bytes(limit)} are accepted.")
        for name, limit in limits.items()
        if sizes.get(name, 0) > limit
    ]
    return problems


def _data_size(manifest: Manifest) -> int | None:
    """Return the bytes of all tensors, None if they have no size."""
    bits = [bit_count(entry.dtype, entry.shape) for entry in manifest.tensors]
    known = [number for number in bits if number is not None]
    return sum(known) // 8 if len(known) == len(bits) else None
