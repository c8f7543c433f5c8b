# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Security advisories: which versions of the serving packages and of rsync are too old, and why."""

from __future__ import annotations

import typing as t

from ._errors import Problem
from ._versions import Version, dotted, numbers


class Advisory(t.NamedTuple):
    """A reason not to use versions of ``package`` from ``since`` on and before ``fixed``."""

    package: str
    since: Version
    fixed: Version
    reason: str

    @property
    def remedy(self) -> str:
        return f"Install {self.package} {dotted(self.fixed)} or newer."


# The load test exposes none of these: it reads no pickle (unless the inventory allows it), no key
# of a configuration that could name code, and nothing from a network. Serving software may.
_ADVISORIES = (
    Advisory("torch", (0,), (2, 6), "CVE-2025-32434: torch.load can run code from a pickle even with weights_only=True"),
    Advisory(
        "transformers",
        (4, 56),
        (5, 3),
        "CVE-2026-4372: with the package kernels installed, a base's config.json can run code from the Hub even with"
        " trust_remote_code=False",
    ),
    Advisory("peft", (0,), (0, 20), "Keys of adapter_config.json can make it import any Python module (peft pull request 3090)"),
    Advisory("safetensors", (0,), (0, 4, 3), "Older versions have not been tested"),
    # Distributions backport fixes without changing the version, so no version is rejected.
    Advisory(
        "rsync",
        (0,),
        (3, 4),
        "Unless your distribution has backported the fixes, CVE-2024-12084 to CVE-2024-12088 let the other end run code,"
        " read memory and write files outside of the transfer",
    ),
    Advisory(
        "rsync",
        (3, 4),
        (3, 5),
        "Unless your distribution has backported the fixes, CVE-2026-70456 and others let the other end write to rsync's memory",
    ),
)
# Older versions reject a configuration with keys that they do not know, and newer versions write
# more keys.
_MINIMUM_PEFT: Version = (0, 14)


def version_problems(python: str, versions: t.Mapping[str, str]) -> list[Problem]:
    """Return a problem for each package that is too old to be used at all."""
    found = versions.get("peft")
    if found is None or numbers(found) >= _MINIMUM_PEFT:
        return []
    problem = f"has PEFT {found}, which cannot read adapters saved by newer versions."
    return [Problem(python, problem, f"Install PEFT {dotted(_MINIMUM_PEFT)} or newer, preferably 0.20 or newer.")]


def advisories_for(versions: t.Mapping[str, str]) -> list[Advisory]:
    """Return the advisories that apply to these versions of packages and programs."""
    return [
        advisory
        for advisory in _ADVISORIES
        if advisory.package in versions and advisory.since <= numbers(versions[advisory.package]) < advisory.fixed
    ]


def version_warnings(where: str, versions: t.Mapping[str, str]) -> list[str]:
    """Return a warning for each package that should be updated, with the reason."""
    return [
        f"{where} has {advisory.package} {versions[advisory.package]}. {advisory.reason}. {advisory.remedy}"
        for advisory in advisories_for(versions)
    ]
