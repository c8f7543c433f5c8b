# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""A server that the site has written: nothing is known of what it makes of adapters."""

from __future__ import annotations

from .form import BOOLEAN, NOT_RUN, EngineRules, Setting, Source, Switching

_PATH = Setting(
    "a path that begins with /",
    lambda value: (
        isinstance(value, str) and value.startswith("/") and value.isascii() and value.isprintable() and " " not in value
    ),
)

RULES = EngineRules(
    name="own",
    title="your own server",
    versions=(),
    source=Source("nothing", "2026-11-29"),
    settings={"ready": _PATH, "lists_adapters": BOOLEAN},
    rules=(),
    switching=Switching(),
    bounds=NOT_RUN,
    notes=(
        "It gets its adapters at its start, as words NAME=DIRECTORY in the file of options.",
        "The path `ready` answers with status 200 once it is up. Without this setting, that is `/health`.",
        "`/v1/models` lists its base and its adapters, as OpenAI's does. With `lists_adapters: false` it need not.",
        "`/v1/completions` takes the name of the base or of an adapter as `model`, and a list of prompts as token ids. With"
        " `echo` and `logprobs` it returns the log-probabilities of the prompts, as OpenAI's does. Without all that, releases"
        " are `unproved`.",
    ),
)
