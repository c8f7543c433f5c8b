# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Check the names, the number and the sizes of the files in a manifest that another host made.

Apart from ``offered``, since nodes with nothing to do need only this.
"""

from __future__ import annotations

from .._errors import Problem
from .._formats.strict_json import MAX_CONFIG, MAX_DATA
from .._text import first, human_bytes
from .declaration import Declaration
from .files import CONFIG_FILE, PICKLE_FILE, SAFETENSORS_FILE, is_code, is_tokenizer_file
from .manifest import Manifest

# Tokenizers have about ten files, and a chat template each for a few purposes.
MAX_FILES = 128
MAX_EXTRA = 1 << 30
# A pickle does not say how much data it has. Saved embeddings of the largest bases have 5 GB.
MAX_PICKLE = 1 << 34

REMEDY = "Inspect the host that described it: it does not offer what its own checks accept."


def file_problems(manifest: Manifest, declared: Declaration) -> list[Problem]:
    """Return what the declaration does not permit."""

    def problem(text: str) -> Problem:
        return Problem("", text, REMEDY, declared.name)

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
    problems += [
        problem(f"has {name} of {human_bytes(sizes[name])}; at most {human_bytes(limit)} are accepted.")
        for name, limit in limits.items()
        if sizes.get(name, 0) > limit
    ]
    return problems
