# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The recorded state of an adapter: active and previous release, history, unfinished step."""

from __future__ import annotations

import dataclasses
import typing as t

from .._activation import EXCHANGE, SYMLINK
from .._errors import DeliveryError
from .._files import read_json, write_json
from .._names import is_release_name
from .._time import now
from .paths import AdapterPaths

SCHEMA = 1
# The key of the activation method in state.json.
_METHOD = "way"
# The steps that swap directories, and so need recovery after a crash.
ACTIVATE = "activate"
ROLL_BACK = "roll_back"
# A rollback from a release that has been refused.
RETURN = "return"
PROMOTE = "promote"


@dataclasses.dataclass(frozen=True)
class Intent:
    """A swap that is about to happen, recorded before it.

    The directory or link with ``inode`` becomes the served path or, for ``PROMOTE``, the stored
    release. Where that inode is found afterwards shows whether the swap happened. The device number
    is left out: it may change with a reboot, and the store and the models directory share one file
    system anyway.
    """

    step: str
    release: str
    inode: int
    # The activation method.
    method: str


@dataclasses.dataclass(frozen=True)
class Activation:
    """An entry of the history: when a release was last activated."""

    release: str
    at: str


@dataclasses.dataclass(frozen=True)
class State:
    """The content of state.json.

    ``history`` has each release once, the last activated one at the end.
    """

    active: str | None = None
    previous: str | None = None
    # The activation method.
    method: str | None = None
    history: tuple[Activation, ...] = ()
    intent: Intent | None = None

    def activated(self, release: str, method: str, refused: bool = False) -> State:
        """Return the state after the activation of ``release``, with no unfinished step.

        ``refused`` is whether an engine has refused the active release: it does not become the
        previous one, which a rollback would return to.
        """
        if release == self.active:
            return dataclasses.replace(self, method=method, intent=None)
        others = [entry.release for entry in self.history if entry.release not in (release, self.active)]
        return State(
            active=release,
            previous=next(reversed(others), None) if refused else self.active or self.previous,
            method=method,
            history=(*self._history_without([release]), Activation(release, now())),
        )

    def without(self, releases: t.Collection[str]) -> State:
        """Return the state after ``releases`` were pruned."""
        return dataclasses.replace(self, history=self._history_without(releases))

    def _history_without(self, releases: t.Collection[str]) -> tuple[Activation, ...]:
        return tuple(entry for entry in self.history if entry.release not in releases)


def read_state(paths: AdapterPaths) -> State:
    """Return the recorded state, or an empty one if there is none.

    Raises DeliveryError when it is damaged.
    """
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
            method=_one_of((None, EXCHANGE, SYMLINK), data[_METHOD]),
            history=tuple(Activation(str(_release(entry["release"])), str(entry["at"])) for entry in data["history"]),
            intent=None
            if intent is None
            else Intent(
                step=str(_one_of((ACTIVATE, ROLL_BACK, RETURN, PROMOTE), intent["step"])),
                release=str(_release(intent["release"])),
                inode=int(intent["inode"]),
                method=str(_one_of((EXCHANGE, SYMLINK), intent[_METHOD])),
            ),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise DeliveryError.of(
            paths.state,
            f"does not follow schema {SCHEMA}: {type(exc).__name__} {exc}.",
            "Move it aside and deploy again: that writes a new one. Only the activation history is lost.",
        ) from exc


def write_state(paths: AdapterPaths, state: State) -> None:
    """Record the state durably."""
    data = dataclasses.asdict(state)
    for part in (data, data["intent"]):
        if part is not None:
            part[_METHOD] = part.pop("method")
    write_json(paths.state, {"schema": SCHEMA, **data})


def _release(value: t.Any) -> str | None:
    if value is not None and not (isinstance(value, str) and is_release_name(value)):
        raise ValueError(f"{value!r} is not a release")
    return value


def _one_of(allowed: tuple[t.Optional[str], ...], value: t.Any) -> str | None:
    if value not in allowed:
        raise ValueError(f"{value!r} is not allowed")
    return t.cast("t.Optional[str]", value)
