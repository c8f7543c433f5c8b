# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Checks the tokenizer files of an adapter: they must not load code or have a huge template."""

from __future__ import annotations

import os
import typing as t

from .._errors import DeliveryError, Problem
from .._formats.strict_json import read_object
from .._text import shown
from .files import TOKENIZER_CONFIG, is_chat_template

# The longest templates of known models have 20 kB. A template is a program. It is never rendered
# here, but serving software does render it and should not get an inflated one.
MAX_TEMPLATE = 1 << 18
# The file of Gemma 3, which has thousands of added tokens, has 1.2 MB.
_MAX_CONFIG = 1 << 24


def tokenizer_problems(paths: t.Mapping[str, str], name: str) -> list[Problem]:
    """Return the problems of the tokenizer of adapter ``name``, whose files are at ``paths``."""
    problems: list[Problem] = []
    templates: list[tuple[str, int]] = []
    templates += [(file, os.lstat(path).st_size) for file, path in paths.items() if is_chat_template(file)]
    if TOKENIZER_CONFIG in paths:
        try:
            config = read_object(paths[TOKENIZER_CONFIG], "Save the tokenizer again.", _MAX_CONFIG)
        except DeliveryError as exc:
            return list(exc.problems)
        for key in ("auto_map", "trust_remote_code"):
            if config.get(key):
                problem = f"has {key} = {shown(config[key])}, which can make transformers load code."
                remedy = "Save it with a tokenizer class that is part of transformers."
                problems.append(Problem(TOKENIZER_CONFIG, problem, remedy, name))
        templates += [(f"chat_template in {TOKENIZER_CONFIG}", size) for size in _sizes(config.get("chat_template"))]
    for where, size in templates:
        if size > MAX_TEMPLATE:
            problem = f"has {size} bytes; a chat template may have at most {MAX_TEMPLATE}."
            problems.append(Problem(where, problem, "Save the tokenizer with the template of its base.", name))
    return problems


def _sizes(value: t.Any) -> t.Iterator[int]:
    """Yield the sizes of all strings in a value: one template or a list of named templates."""
    if isinstance(value, str):
        yield len(value.encode())
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _sizes(inner)
