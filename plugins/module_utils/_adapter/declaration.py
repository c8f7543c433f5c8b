# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""One adapter as the inventory declares it: a row of the modules' option ``adapters``."""

from __future__ import annotations

import dataclasses
import typing as t

from .._forms import AS_TRAINED
from .._names import check_name, check_path
from .config_keys import KEYS_OF_MODULES

# How many directories a row's subdirectory may consist of.
_DEPTH = 4


@dataclasses.dataclass(frozen=True)
class Declaration:
    """The part of a row that restricts which adapter may be delivered.

    ``base_names`` are the names of the base that adapter_config.json may contain: its declared name
    and its aliases. ``base_config`` is the base's config.json, or None when it is unknown.
    ``peft_config`` has the keys of adapter_config.json that may differ from plain LoRA, each with
    the only value it may have.
    """

    name: str
    base: str
    base_names: frozenset[str]
    rank: int
    alpha: float
    target_modules: frozenset[str] | None
    peft_config: dict[str, t.Any]
    extra_files: tuple[str, ...]
    allow_pickle: bool
    base_config: dict[str, t.Any] | None
    # Where the adapter is in the source's directory of its name; empty for that directory itself.
    subdirectory: str = ""
    # Where the base is on this host.
    base_path: str | None = None
    # The form in which it is delivered.
    form: str = AS_TRAINED

    @classmethod
    def from_row(cls, row: dict[str, t.Any], base: dict[str, t.Any]) -> Declaration:
        """Build a declaration from the options of a module. Every key of ``row`` must be present.

        Raises DeliveryError for an invalid name.
        """
        targets = row["target_modules"]
        return cls(
            name=check_name(row["name"]),
            base=row["base"],
            base_names=frozenset([row["base"], *(base.get("aliases") or ())]),
            rank=row["rank"],
            alpha=row["alpha"],
            target_modules=frozenset(targets) if targets else None,
            peft_config=row["peft_config"] or {},
            extra_files=tuple(check_path(path) for path in row["extra_files"] or ()),
            allow_pickle=row["allow_pickle"],
            base_config=base.get("config"),
            base_path=base.get("path") or None,
            subdirectory=check_path(row["subdirectory"], "subdirectory", _DEPTH) if row.get("subdirectory") else "",
            form=row.get("form") or AS_TRAINED,
        )

    def folded(self) -> Declaration:
        """Return what this declares about the folded adapter, which is plain LoRA of one rank."""
        rank = max([self.rank, *map(int, (self.peft_config.get("rank_pattern") or {}).values())])
        kept = {key: value for key, value in self.peft_config.items() if key in (*KEYS_OF_MODULES, "revision")}
        return dataclasses.replace(self, rank=rank, alpha=float(rank), peft_config=kept)
