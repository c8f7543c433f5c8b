# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Check a manifest that another host made, against what the inventory declares. Reads no files.

A training server checks its adapters before it describes them, but its owner can describe
what it likes. So the controller checks every manifest that it gets, and the node every manifest
that it is given.
"""

from __future__ import annotations

import typing as t

from .._errors import DeliveryError, Problem
from .._formats.safetensors import MAX_HEADER, bit_count
from .._formats.tensor_scan import TensorScan
from .._text import count, human_bytes
from .declaration import Declaration
from .files import SAFETENSORS_FILE
from .lora_config import config_problems
from .manifest import Manifest
from .permitted_files import REMEDY, file_problems
from .structure import structure_problems

# The length of the header, and an empty object.
_LEAST_HEADER = 10


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
            problems.append(Problem("", "has a manifest, but is not declared.", REMEDY, manifest.name))
        elif manifest.name in [other.name for other in manifests[:number]]:
            problems.append(Problem("", "has two manifests.", REMEDY, manifest.name))
        else:
            problems += manifest_problems(manifest, declarations[manifest.name])
    if problems:
        raise DeliveryError(*problems)


def manifest_problems(manifest: Manifest, declared: Declaration) -> list[Problem]:
    """Return what the declaration does not permit: files, sizes, configuration and tensors."""
    if manifest.made_of is not None:
        if manifest.made_of.form != declared.form:
            problem = f"has the form {manifest.made_of.form}; the inventory declares {declared.form}."
            return [Problem("", problem, REMEDY, declared.name)]
        declared = declared.folded()
    problems = [*file_problems(manifest, declared), *config_problems(manifest.config, declared), *_weights_problems(manifest)]
    if manifest.weights_file == SAFETENSORS_FILE:
        # The values were checked where the file is.
        tensors = [
            TensorScan(entry.name, entry.dtype, entry.shape, entry.sha256, finite=True, zero=False, norm=entry.norm)
            for entry in manifest.tensors
        ]
        problems += structure_problems(declared.name, tensors, manifest.config, declared.base_config, declared.target_modules)
    return problems


def _weights_problems(manifest: Manifest) -> list[Problem]:
    """Return a problem if the weights file is not as large as its tensors."""
    sizes = [entry.size for entry in manifest.files if entry.path == SAFETENSORS_FILE]
    data = _data_size(manifest)
    if not sizes or (data is not None and _LEAST_HEADER <= sizes[0] - data <= 8 + MAX_HEADER):
        return []
    of = "unknown size" if data is None else human_bytes(data)
    text = f"has {SAFETENSORS_FILE} of {human_bytes(sizes[0])} for {count(len(manifest.tensors), 'tensor')} of {of}."
    return [Problem("", text, REMEDY, manifest.name)]


def _data_size(manifest: Manifest) -> int | None:
    """Return the bytes of all tensors, None if they have no size."""
    bits = [bit_count(entry.dtype, entry.shape) for entry in manifest.tensors]
    known = [number for number in bits if number is not None]
    return sum(known) // 8 if len(known) == len(bits) else None
