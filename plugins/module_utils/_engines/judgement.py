# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What follows from the verdicts on an adapter: whether it is blocked, and what is said."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from .._adapter.manifest import Manifest
from .._base.config import with_config
from .._errors import DeliveryError, Problem
from .declared import declared_engines
from .verdicts import REFUSED, WRONG, Verdict, common_notes, verdicts
from .words import sentences

ENFORCE = "enforce"


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The verdicts of a node's engines on one adapter; ``enforced`` is the policy of the node.

    ``notes`` are those of a node whose engines are not known.
    """

    adapter: str
    verdicts: t.Sequence[Verdict] = ()
    enforced: bool = False
    notes: t.Sequence[str] = ()

    def holds_back(self, verdict: Verdict) -> bool:
        return self.enforced and verdict.state in (REFUSED, WRONG)

    def problems(self, wish: str = "deliver it") -> list[Problem]:
        """Return a problem for each engine that blocks the adapter.

        ``wish`` completes the sentence on how to have one's way.
        """
        anyway = f"To {wish} nevertheless, set engine_policy to report."
        return [self._problem(verdict, anyway) for verdict in self.verdicts if self.holds_back(verdict)]

    def warnings(self) -> list[str]:
        """Return a warning for each engine that refuses or misreads the adapter."""
        return [str(self._problem(verdict)) for verdict in self.verdicts if verdict.state in (REFUSED, WRONG)]

    def _problem(self, verdict: Verdict, *remedies: str) -> Problem:
        remedy = " ".join(filter(None, (verdict.remedy, *remedies)))
        return Problem(f"engine {verdict.engine}", sentences(dataclasses.asdict(verdict)), remedy, self.adapter)

    def engines(self) -> list[dict[str, t.Any]]:
        """Return the verdicts as modules do."""
        return [{**dataclasses.asdict(verdict), "held_back": self.holds_back(verdict)} for verdict in self.verdicts]


class Judge:
    """Judges adapters for the engines of this node.

    ``missing`` are those that are not found. ``serves`` says whether any has an endpoint.
    """

    def __init__(self, params: dict[str, t.Any]) -> None:
        """Take the options ``engines`` and ``engine_policy``. Raises DeliveryError for bad ones."""
        declared = declared_engines(params["engines"], "engines")
        self.serves = any(one.endpoint is not None for one in declared)
        found = [one.on_this_host() for one in declared]
        self._engines = [engine for engine, _missing in found]
        self.missing = [missing for _engine, missing in found if missing]
        self._enforces = params["engine_policy"] == ENFORCE

    def judge(self, manifest: Manifest, base_config: dict[str, t.Any] | None) -> Judgement:
        """Judge an adapter. ``base_config`` is the config.json of its base, if this node has it."""
        trained = (manifest.base or {}).get("config")
        config = base_config or (trained if isinstance(trained, dict) else None)
        if not self._engines:
            return Judgement(manifest.name, notes=common_notes(manifest, config))
        return Judgement(manifest.name, verdicts(self._engines, manifest, config), self._enforces)


def config_of_base(manifest: Manifest, bases: dict[str, t.Any]) -> dict[str, t.Any] | None:
    """Return the config.json of an adapter's base as ``bases`` or this host have it.

    What is wrong with the base is for the load test to say.
    """
    named = manifest.config.get("base_model_name_or_path")
    for name, base in bases.items():
        aliases = base.get("aliases") if isinstance(base, dict) else None
        if named == name or (isinstance(aliases, list) and named in aliases):
            with contextlib.suppress(DeliveryError):
                config: dict[str, t.Any] | None = with_config({name: base})[name]["config"]
                return config
    return None
