# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Regular expressions of adapter_config.json, evaluated with bounds on time and memory.

PEFT treats several values as regular expressions over the names of modules. Some expressions take
longer than the age of the universe, so all but plain names are evaluated in a child process. Part
of the load test's program, too.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import typing as t

# Thousands of names take a few hundredths of a second.
_SECONDS = 10
# More comparisons than these are bounded, too: a few seconds.
_MOST_AT_ONCE = 1_000_000
# Without repetition, an expression cannot take long.
_HARMLESS = re.compile(r"[\^\w.]*")
_PROGRAM = """
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
expressions, whole, names = json.load(sys.stdin)
found = []
for expression in expressions:
    try:
        compiled = re.compile(expression)
    except (re.error, OverflowError, RecursionError) as exc:
        found = [expression, str(exc)]
        break
    matches = [(name, (compiled.fullmatch if whole else compiled.match)(name)) for name in names]
    found.append({name: match.groupdict().get("number") for name, match in matches if match})
print(json.dumps(found))
"""

# The named groups of each name that matches.
# The names that match, each with the group ``number`` of the match, if the pattern has one.
Matches = t.Dict[str, t.Optional[str]]


class PatternError(Exception):
    """An expression that is invalid or takes too long. The text begins with a verb."""


def matching(patterns: t.Sequence[str], names: t.Sequence[str], frame: str = "{}", whole: bool = False) -> list[Matches]:
    """Return for each pattern the names that begin with a match, or with ``whole`` are one.

    ``frame`` is the expression around a pattern, which takes the place of ``{}``. Raises
    PatternError.
    """
    return _matching(tuple(patterns), tuple(names), frame, whole)


@functools.lru_cache(maxsize=64)
def _matching(patterns: tuple[str, ...], names: tuple[str, ...], frame: str, whole: bool) -> list[Matches]:
    expressions = [frame.replace("{}", pattern) for pattern in patterns]
    if all(map(_HARMLESS.fullmatch, patterns)) and len(patterns) * len(names) <= _MOST_AT_ONCE:
        found = []
        for expression in map(re.compile, expressions):
            matches = [(name, (expression.fullmatch if whole else expression.match)(name)) for name in names]
            found.append({name: match.groupdict().get("number") for name, match in matches if match})
        return found
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            input=json.dumps([expressions, whole, names]),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise PatternError(f"takes longer than {_SECONDS} seconds on {len(names)} module names") from None
    except subprocess.CalledProcessError as exc:
        raise PatternError(f"cannot be evaluated (exit status {exc.returncode})") from exc
    result = json.loads(child.stdout)
    if result and isinstance(result[-1], str):
        raise PatternError(f"is not a valid regular expression: {result[-1]}")
    return t.cast("list[Matches]", result)
