# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What the node remembers of one adapter: active and previous release, when each was last active, and a step begun."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._activation import EXCHANGE, SYMLINK
from .._errors import DeliveryError
from .._files import read_json, write_json
from .._names import is_release_name
from .paths import AdapterPaths

SCHEMA = 1
# The steps that swap something in and thereby something out, so that a crash in between must be told from the rest.
ACTIVATE = "activate"
ROLL_BACK = "roll_back"
PROMOTE = "promote"


@dataclasses.dataclass(frozen=True)
class Intent:
    """A swap that was about to happen: what has C(inode) goes to its place (NAME, or the release for C(PROMOTE)).

    Where that inode is found tells afterwards whether it happened. The device number is left out: it may change with a
    reboot, and the store is on one file system with the models directory anyway.
    """

    step: str
    release: str
    inode: int
    way: str


@dataclasses.dataclass(frozen=True)
class Activation:
    """When a release was last made active."""

    release: str
    at: str


@dataclasses.dataclass(frozen=True)
class State:
    """The content of state.json. C(history) has each release once, the one activated last at the end."""

    active: t.Optional[str] = None
    previous: t.Optional[str] = None
    way: t.Optional[str] = None
    history: tuple[Activation, ...] = ()
    intent: t.Optional[Intent] = None

    def activated(self, release: str, way: str) -> State:
        """The state after C(release) was made active, with no step open."""
        if release == self.active:
            return dataclasses.replace(self, way=way, intent=None)
        now = datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds")
        return State(
            active=release,
            previous=self.active or self.previous,
            way=way,
            history=(*self._history_without([release]), Activation(release, now)),
        )

    def without(self, releases: t.Collection[str]) -> State:
        """The state after releases were pruned."""
        return dataclasses.replace(self, history=self._history_without(releases))

    def _history_without(self, releases: t.Collection[str]) -> tuple[Activation, ...]:
        return tuple(entry for entry in self.history if entry.release not in releases)


def read_state(paths: AdapterPaths) -> State:
    """The recorded state, the empty one when nothing was recorded. Raises DeliveryError when it is damaged."""
    data = read_json(paths.state)
    if data is None:
        return State()
    try:
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']}")
        intent = data["intent"]
        return State(
            active=_release(data["active"]),
            previous=_release(data["previous"]),
            way=_one_of((None, EXCHANGE, SYMLINK), data["way"]),
            history=tuple(Activation(str(_release(entry["release"])), str(entry["at"])) for entry in data["history"]),
            intent=None
            if intent is None
            else Intent(
                step=str(_one_of((ACTIVATE, ROLL_BACK, PROMOTE), intent["step"])),
                release=str(_release(intent["release"])),
                inode=int(intent["inode"]),
                way=str(_one_of((EXCHANGE, SYMLINK), intent["way"])),
            ),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise DeliveryError.of(
            paths.state,
            f"is not in the form of schema {SCHEMA}: {type(exc).__name__} {exc}.",
            "Move it aside and deploy again: it is written anew, only what was active before is forgotten.",
        ) from exc


def write_state(paths: AdapterPaths, state: State) -> None:
    """Record the state durably."""
    write_json(paths.state, {"schema": SCHEMA, **dataclasses.asdict(state)})


def _release(value: t.Any) -> t.Optional[str]:
    if value is not None and not (isinstance(value, str) and is_release_name(value)):
        raise ValueError(f"{value!r} is no release")
    return value


def _one_of(allowed: tuple[t.Optional[str], ...], value: t.Any) -> t.Optional[str]:
    if value not in allowed:
        raise ValueError(f"{value!r} is not known")
    return t.cast("t.Optional[str]", value)
