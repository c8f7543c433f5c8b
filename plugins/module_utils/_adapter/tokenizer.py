# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Checks the tokenizer of an adapter: all of it can be read, none of it loads code."""

from __future__ import annotations

import os
import typing as t

from .._errors import DeliveryError, Problem, collected
from .._formats.strict_json import read_json_file, read_object
from .._text import shown
from .files import CONFIG_FILE, TOKENIZER_CONFIG, TOKENIZER_FILE, is_chat_template
from .vocabulary import Vocabulary, read_vocabulary

# The longest templates of known models have 20 kB. A template is a program. It is never rendered
# here, but serving software does render it and should not get an inflated one.
MAX_TEMPLATE = 1 << 18
# The file of Gemma 3, which has thousands of added tokens, has 1.2 MB.
_MAX_CONFIG = 1 << 24
# Settings that name the class of a tokenizer or processor.
_SETTINGS = (
    *(TOKENIZER_CONFIG, "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
    "audio_tokenizer_config.json",
)
_SAVE_AGAIN = "Save the tokenizer again."


def read_tokenizer(paths: t.Mapping[str, str], name: str) -> Vocabulary | None:
    """Parse every JSON file of the tokenizer but its settings, and return its vocabulary, if any.

    Raises DeliveryError with the problems of all files.
    """
    problems: list[Problem] = []
    vocabulary = None
    for file, path in paths.items():
        with collected(problems, name):
            if file == TOKENIZER_FILE:
                vocabulary = read_vocabulary(path)
            elif file.endswith(".json") and file not in (CONFIG_FILE, *_SETTINGS):
                read_json_file(path, _SAVE_AGAIN)
    if problems:
        raise DeliveryError(*problems)
    return vocabulary


def tokenizer_problems(paths: t.Mapping[str, str], name: str) -> list[Problem]:
    """Return the problems of the settings and templates of the tokenizer of adapter ``name``.

    ``paths`` are those of the adapter's files.
    """
    problems: list[Problem] = []
    templates = [(file, os.lstat(path).st_size) for file, path in paths.items() if is_chat_template(file)]
    for file in (file for file in _SETTINGS if file in paths):
        with collected(problems, name):
            config = read_object(paths[file], _SAVE_AGAIN, _MAX_CONFIG)
            for key in ("auto_map", "trust_remote_code"):
                if config.get(key):
                    problem = f"has {key} = {shown(config[key])}, which can make transformers load code."
                    remedy = "Save it with a tokenizer class that is part of transformers."
                    problems.append(Problem(file, problem, remedy, name))
            templates += [(f"chat_template in {file}", size) for size in _sizes(config.get("chat_template"))]
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
