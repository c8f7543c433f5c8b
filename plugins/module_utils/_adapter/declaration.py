# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What the inventory declares of an adapter: one row of C(agent_adapters)."""

from __future__ import annotations

import dataclasses
import typing as t

from .._names import check_name


@dataclasses.dataclass(frozen=True)
class Declaration:
    """One row of the inventory, as far as it binds what may be delivered.

    C(base_names) are all spellings of the base that adapter_config.json may carry (its declared name and aliases);
    C(base_config) is the base's config.json as far as it is known, or None;
    C(peft_config) are keys of adapter_config.json that may differ from plain LoRA, with the only value they may have.
    """

    name: str
    base: str
    base_names: frozenset[str]
    rank: int
    alpha: float
    target_modules: t.Optional[frozenset[str]]
    peft_config: dict[str, t.Any]
    extra_files: tuple[str, ...]
    allow_pickle: bool
    base_config: t.Optional[dict[str, t.Any]]

    @classmethod
    def from_row(cls, row: dict[str, t.Any], base: dict[str, t.Any]) -> Declaration:
        """C(row) and C(base) as the modules' argument_spec gives them (all keys there). Raises DeliveryError for a bad name."""
        targets = row["target_modules"]
        return cls(
            name=check_name(row["name"]),
            base=row["base"],
            base_names=frozenset([row["base"], *(base.get("aliases") or ())]),
            rank=row["rank"],
            alpha=row["alpha"],
            target_modules=frozenset(targets) if targets else None,
            peft_config=row["peft_config"] or {},
            extra_files=tuple(check_name(name, "file") for name in row["extra_files"] or ()),
            allow_pickle=row["allow_pickle"],
            base_config=base.get("config"),
        )
