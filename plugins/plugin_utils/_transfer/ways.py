# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.
"""The ways that files take from the source to a node, and which of them is taken.

Each way brings the wanted files of an adapter into its staging directory, resumes what is there,
and leaves there what has arrived when it fails. What differs is who moves the bytes:

==========  ==============================================================  ==========
way         who moves the bytes                                             file
==========  ==============================================================  ==========
relay       rsync at both ends, whose pipes the controller connects         session
direct      a program on the node, from a port of the source                direct
direct_ssh  the same, through the ssh server of the source                  direct_ssh
swarm       programs on the nodes, from the source and from each other      swarm
command     a command of the site, on the node                              command
==========  ==============================================================  ==========

The manifest, the staging directory, the slots and the verification afterwards are the same for all.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import os
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry, Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import escaped
from ansible_collections.lorafleet.delivery.plugins.module_utils._ways import SWARM

Progress = t.Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The files that one adapter needs from the source: ``names``, paths of ``manifest``.

    ``directory`` is where they are at the source, and ``links`` has the paths of those that are
    elsewhere there.
    """

    manifest: Manifest
    names: c.Sequence[str]
    staging: str
    directory: str = ""
    links: c.Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def files(self) -> list[FileEntry]:
        return [entry for entry in self.manifest.files if entry.path in self.names]

    def at_source(self, path: str) -> str:
        """Where a file of the manifest is at the source."""
        return self.links.get(path) or os.path.join(self.directory, path)


class Way(t.Protocol):
    """One way for all adapters of a node.

    ``received`` is the number of bytes that have arrived by it. ``given_up`` is why it cannot be
    taken for any further adapter; empty as long as it may work.
    """

    @property
    def name(self) -> str: ...
    @property
    def given_up(self) -> str: ...
    @property
    def received(self) -> int: ...

    def fetch(self, wanted: Wanted, progress: Progress) -> None:
        """Transfer the files; ``progress`` gets the bytes that arrive. Raises DeliveryError."""


@dataclasses.dataclass
class Ways:
    """Takes the first of ``ways`` that works.

    ``on_refusal`` is called with the adapter, the way and the reason when a way has failed and
    the next one is taken. ``take_slot`` is called before each way in which the source serves
    the node alone.
    """

    ways: c.Sequence[Way]
    on_refusal: c.Callable[[str, str, str], None] = lambda adapter, way, why: None
    take_slot: c.Callable[[], None] = lambda: None
    # By adapter: the way that was taken last, and why not those before it.
    taken: dict[str, dict[str, t.Any]] = dataclasses.field(default_factory=dict)

    def fetch(self, wanted: Wanted, progress: Progress) -> None:
        """Transfer the files of an adapter. Raises the DeliveryError of the last way."""
        *others, last = self.ways
        account: dict[str, t.Any] = {"way": "", "not_taken": []}
        self.taken[wanted.manifest.name] = account
        for way in others:
            account["way"], why = way.name, way.given_up
            if not why:
                try:
                    self._fetch(way, wanted, progress)
                except DeliveryError as exc:
                    why = " ".join(problem.problem for problem in exc.problems)
                    self.on_refusal(wanted.manifest.name, way.name, why)
                else:
                    return
            account["not_taken"].append({"way": way.name, "why": escaped(why, kept="")})
        account["way"] = last.name
        self._fetch(last, wanted, progress)

    def _fetch(self, way: Way, wanted: Wanted, progress: Progress) -> None:
        if way.name != SWARM:
            self.take_slot()
        way.fetch(wanted, progress)

    @property
    def received(self) -> int:
        return sum(way.received for way in self.ways)
