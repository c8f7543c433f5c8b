# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What this collection needs of an engine that serves adapters. One file in ``engines`` each.

A client only sends requests and reads the answers. What follows from them is for ``routine``.
"""

from __future__ import annotations

import abc
import os
import types
import typing as t

# What an engine's own list of adapters proves: which name was asked for, which path was loaded, or
# which bytes are in memory. Nothing, if it has no list.
PROVES_NOTHING, PROVES_NAME, PROVES_PATH, PROVES_BYTES = "nothing", "name", "path", "bytes"

# The log-probabilities at one position, by token id.
Row = t.Dict[int, float]


class Question(t.NamedTuple):
    """A position in a text: ``token`` follows ``ids``.

    The log-probabilities of ``token`` and ``others`` are wanted, as far as the engine tells them;
    without ``others``, those of any tokens.
    """

    ids: tuple[int, ...]
    token: int
    others: tuple[int, ...] = ()


class EngineError(Exception):
    """What an engine did instead of what it was asked for.

    ``message`` completes a sentence that begins with the engine. It is one line of at most a few
    hundred characters. ``remedy`` is a sentence, empty if the engine alone does not tell.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class Refused(EngineError):
    """The engine answered, and does not do it. Asking again changes nothing."""

    def __init__(self, message: str, remedy: str = "", status: int = 0) -> None:
        super().__init__(message, remedy)
        self.status = status


class Unauthorized(Refused):
    """The engine demands an API key, or another one."""


class Unsupported(Refused):
    """This engine, or this version, has no such function: the probe has to do without it."""


class NotFinite(EngineError):
    """The answer has NaN or infinity, or the engine failed to compute it."""


class Dead(EngineError):
    """The engine does not answer, or says that it has failed. It has to be restarted."""


class Busy(EngineError):
    """The engine asks to come back after ``seconds``."""

    def __init__(self, message: str, seconds: float = 1) -> None:
        super().__init__(message)
        self.seconds = seconds


class Unanswered(EngineError):
    """There was no answer in time: it may have been done. Read the list before asking again."""


class Slow(EngineError):
    """The engine answers, but too slowly to be asked all questions of a probe."""


class EngineState(t.NamedTuple):
    """An engine that is up.

    ``base`` is the name that requests to the base have, ``root`` the path or name that the base was
    loaded from. ``longest`` is the most tokens that a request may have. Each of them is None if the
    engine does not tell. ``warnings`` are sentences on this version or its settings.
    """

    version: str | None = None
    base: str | None = None
    root: str | None = None
    longest: int | None = None
    warnings: tuple[str, ...] = ()


class Listed(t.NamedTuple):
    """An adapter in an engine's list.

    ``root`` is its path as it was sent, ``parent`` the name of its base. ``generation`` identifies
    the bytes in memory. Each of the three is None if the engine does not list it.
    """

    name: str
    root: str | None = None
    parent: str | None = None
    generation: str | None = None


class Capacity(t.NamedTuple):
    """How much an engine says that it can have.

    ``places`` are its limits on the number of adapters, by the settings of its rules; None is no
    limit. ``free_bytes`` are left of its limit on the memory of adapters, None if it has none.
    """

    places: t.Mapping[str, int | None] = types.MappingProxyType({})
    free_bytes: int | None = None


class ServingEngine(abc.ABC):
    """A client of one engine at one address.

    Any method may raise Dead, Busy, Unanswered and Unauthorized. No method repeats a request.
    """

    # The name of its rules in ``_engines/rules``.
    name: t.ClassVar[str]
    # How the engine is run, where it can be run in several ways.
    form: t.ClassVar[str] = ""
    # One of the constants above.
    proves: str
    # Whether the engine gets its adapters at its start only. Then ``restart`` replaces ``load``,
    # ``unload`` and ``switch``, which raise Unsupported.
    restarts: t.ClassVar[bool] = False
    # How many questions it answers with one request.
    most_questions: t.ClassVar[int] = 1

    @abc.abstractmethod
    def state(self) -> EngineState:
        """Return what the engine says of itself. Raises Dead if it is not up."""

    @abc.abstractmethod
    def listed(self) -> list[Listed]:
        """Return the adapters that the engine has, without its base; none if it has no list."""

    @abc.abstractmethod
    def load(self, name: str, directory: str) -> None:
        """Load a release under a name that is not listed. Returns when the engine has accepted it.

        Raises Refused.
        """

    @abc.abstractmethod
    def unload(self, name: str) -> None:
        """Remove a name. Answers that are being generated end as they began.

        Raises Refused, also if there is no such name.
        """

    @abc.abstractmethod
    def switch(self, name: str, directory: str) -> None:
        """Make a name answer from another release, whether the name is listed or not.

        After Refused, the name may be gone: read the list.
        """

    def prepare(self, adapters: t.Sequence[tuple[str, str]]) -> None:  # noqa: B027 (few have to)
        """Do what a restart with these names and directories needs, and what may fail before it.

        The engine goes on as it is. Raises Refused.
        """

    def restart(self, adapters: t.Sequence[tuple[str, str]]) -> None:
        """Start the engine again with these names and directories, and wait until it is up.

        Raises Refused if it does not come up.
        """
        raise Unsupported("gets its adapters without a restart")

    def capacity(self) -> Capacity:
        """Return how much the engine says that it can have."""
        return Capacity()

    def why_not_switch(self) -> str | None:
        """Return why this version must not reuse a name, as a sentence, or None if it may."""
        return None

    def expected_generation(self, directory: str) -> str | None:
        """Return the generation that a release has in the engine's list, None if not known."""
        return None

    def converted_digest(self, directory: str) -> str | None:
        """Return the SHA-256 of the file that is read instead of a release, None if none is."""
        return None

    @abc.abstractmethod
    def log_probabilities(self, model: str | None, questions: t.Sequence[Question]) -> list[Row]:
        """Return the log-probabilities at each position, at most ``most_questions`` of them.

        ``model`` is the name of an adapter, None for the base. The weights alone decide the result:
        the request does not read caches of earlier ones. Raises NotFinite, Unsupported, and Refused
        for an unknown name.
        """

    @abc.abstractmethod
    def first_token(self, model: str | None, prompt: t.Sequence[int], salt: str | None) -> dict[str, float]:
        """Return the log-probabilities of the likeliest tokens that users would get next.

        The request goes through the same caches as theirs; ``salt`` gives it a cache of its own.
        The keys are any texts that identify tokens. Raises NotFinite, Unsupported, and Refused for
        an unknown name.
        """

    @abc.abstractmethod
    def wait_until_idle(self, name: str, seconds: float) -> bool:
        """Wait until no answer of ``name`` is being generated. Returns whether that is known."""

    def start_options(self, adapters: t.Sequence[tuple[str, str]]) -> list[str]:
        """Return the options of the engine's command line that load these names and directories."""
        return []


def first_line(text: str, most: int = 300) -> str:
    """Return the first line of an engine's message, shortened: some have kilobytes."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= most else f"{line[:most]} ..."


def new_salt() -> str:
    """Return a text that gives requests a prefix cache of their own."""
    return os.urandom(8).hex()
