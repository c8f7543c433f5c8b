# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.
"""What the workers of one run know of each other's members of a swarm.

Each worker of Ansible serves one node. They meet in files of the run's temporary directory, which
is private to the run. Locks on them end with the worker, however it ends.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import fcntl
import json
import os
import typing as t
import urllib.parse

from .identity import Authority
from .slots import try_lock

# The source, among the names of nodes.
SOURCE = ""


class Meeting:
    """The swarm of one adapter's release, from one source.

    Use it as a context manager: then this worker counts as one whose node still gets files, until
    ``leave_receivers``.
    """

    def __init__(self, directory: str, source: str, digest: str) -> None:
        self._path = os.path.join(directory, f"swarm.{urllib.parse.quote(source, safe='')}.{digest}")
        os.makedirs(self._path, mode=0o700, exist_ok=True)
        self._held = contextlib.ExitStack()
        self._receiving = contextlib.ExitStack()
        self._leading = contextlib.ExitStack()
        self._known = 0

    def __enter__(self) -> Meeting:
        fcntl.flock(self._receiving.enter_context(self._file("receivers")), fcntl.LOCK_SH)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.leave_receivers()
        self.stop_leading()

    def leave_receivers(self) -> None:
        self._receiving.close()

    def has_receivers(self) -> bool:
        """Return whether a node, other than one that has all of its files, still gets some."""
        with self._file("receivers") as file:
            return not try_lock(file)

    def authority(self) -> Authority:
        """The authority of this swarm. The first worker makes it."""
        with self._file("authority") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            recorded = file.read()
            if recorded:
                return Authority(**json.loads(recorded))
            made = Authority.new()
            file.write(json.dumps({"certificate": made.certificate, "key": made.key}).encode())
            return made

    def lead(self) -> bool:
        """Try to become the worker that runs the source's member, until ``stop_leading``."""
        with contextlib.ExitStack() as attempt:
            if try_lock(attempt.enter_context(self._file("lead"))):
                self._leading = attempt.pop_all()
                return True
        return False

    def stop_leading(self) -> None:
        self._leading.close()

    def publish(self, hashes: list[dict[str, str]]) -> None:
        """Let all workers know the hashes of the files."""
        with open(os.path.join(self._path, "hashes.new"), "w", encoding="utf-8") as file:
            json.dump(hashes, file)
        os.replace(file.name, os.path.join(self._path, "hashes"))

    def hashes(self) -> list[dict[str, str]] | None:
        try:
            with open(os.path.join(self._path, "hashes"), encoding="utf-8") as file:
                return t.cast("list[dict[str, str]]", json.load(file))
        except FileNotFoundError:
            return None

    def announce(self, name: str, address: str, port: int) -> None:
        """Let the others know how to reach a member."""
        self._add("members", [name, address, port])

    def new_members(self) -> list[tuple[str, str, int]]:
        """Those that were announced since the last call: names, addresses and ports."""
        found = self._lines("members")
        known, self._known = self._known, len(found)
        return [(str(name), str(address), int(port)) for name, address, port in found[known:]]

    def record_start(self, problem: str = "", final: bool = False) -> None:
        """Record that the source's member was started, or why it was not.

        A ``final`` problem remains when another worker tries.
        """
        self._add("starts", [problem, final])

    def failed_starts(self) -> list[tuple[str, bool]]:
        """The problems since the last start without one."""
        found: list[tuple[str, bool]] = []
        for problem, final in self._lines("starts"):
            found = [*found, (problem, final)] if problem else []
        return found

    def _file(self, name: str) -> t.IO[bytes]:
        return open(os.open(os.path.join(self._path, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0)

    def _add(self, name: str, line: list[t.Any]) -> None:
        with open(os.path.join(self._path, name), "ab", buffering=0) as file:
            # What a killed worker has left of a line does not become part of this one.
            file.write(b"\n" + json.dumps(line).encode() + b"\n")

    def _lines(self, name: str) -> c.Sequence[t.Any]:
        """The complete lines; another worker may be writing one."""
        found: list[t.Any] = []
        with self._file(name) as file:
            for line in file.read().splitlines():
                # The beginning of a list is no JSON.
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return found
