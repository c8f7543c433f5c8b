# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Which versions of the serving packages, and of rsync, are too old to be trusted with what somebody else wrote, and why."""

from __future__ import annotations

import typing as t

from ._errors import Problem
from ._versions import Version, dotted, numbers


class _Weakness(t.NamedTuple):
    """Versions of C(package) from C(since) on, and before C(fixed), have it."""

    package: str
    since: Version
    fixed: Version
    reason: str


# None of them can be reached through the load test, which reads no pickle (unless told to, see C(_weights_file)), no key of
# a configuration that could name code, and nothing from a network. What serves on the host may be less careful.
_WEAKNESSES = (
    _Weakness("torch", (0,), (2, 6), "CVE-2025-32434: torch.load runs code out of a pickle even with weights_only=True"),
    _Weakness(
        "transformers",
        (4, 56),
        (5, 3),
        "CVE-2026-4372: where the package kernels is installed, a base's config.json runs code from the Hub even with"
        " trust_remote_code=False",
    ),
    _Weakness("peft", (0,), (0, 20), "keys of adapter_config.json can make it import any Python module (peft pull request 3090)"),
    _Weakness("safetensors", (0,), (0, 4, 3), "nothing older was tried"),
    # Distributions mend older versions without giving them another number, so none is refused.
    _Weakness(
        "rsync",
        (0,),
        (3, 4),
        "Unless your distribution has mended it, CVE-2024-12084 to CVE-2024-12088: who has the other end can run code, read"
        " memory and write files outside of the transfer",
    ),
    _Weakness(
        "rsync",
        (3, 4),
        (3, 5),
        "Unless your distribution has mended it, CVE-2026-70456 and others: who has the other end can write to rsync's memory",
    ),
)
# It refuses every configuration with a key that it does not know, and newer ones write more keys.
_LEAST_PEFT: Version = (0, 14)


def version_problems(python: str, versions: t.Mapping[str, str]) -> list[Problem]:
    """What cannot be used at all, by package and version."""
    found = versions.get("peft")
    if found is None or numbers(found) >= _LEAST_PEFT:
        return []
    problem = f"has PEFT {found}, which cannot read the adapters that newer ones save."
    return [Problem(python, problem, f"Install PEFT {dotted(_LEAST_PEFT)} or newer there, best 0.20 or newer.")]


def version_warnings(where: str, versions: t.Mapping[str, str]) -> list[str]:
    """What should be replaced, and why: one sentence for each package."""
    return [
        f"{where} has {weak.package} {versions[weak.package]}. {weak.reason}."
        f" Install {weak.package} {dotted(weak.fixed)} or newer."
        for weak in _WEAKNESSES
        if weak.package in versions and weak.since <= numbers(versions[weak.package]) < weak.fixed
    ]
