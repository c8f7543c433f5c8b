# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.
"""What a node reports as arrived: counted up to what was described, compared with the limits."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import time
import typing as t

from .program import Program
from .rsync import TransferOptions, keepalive_timeout
from .ways import Progress, Wanted

# Seconds between two looks at the clock.
INTERVAL = 1


class TooSlow(Exception):
    """Too little has arrived; the text is the reason."""


@dataclasses.dataclass
class Arrivals:
    """The bytes of one adapter, of which ``bytes`` have arrived in this run by one way."""

    wanted: Wanted
    options: TransferOptions
    progress: Progress
    bytes: int = 0

    def __post_init__(self) -> None:
        # Once, and again if the staged beginning of a file was not that of this one.
        self._most = 2 * sum(entry.size for entry in self.wanted.files)
        self._window = keepalive_timeout(self.options.timeout)
        self._least = max(1, self.options.minimum_rate * self._window)
        self._counted, self._since = 0, time.monotonic()

    def follow(self, program: Program, meanwhile: c.Callable[[int], None] = lambda arrived: None) -> dict[str, t.Any] | None:
        """Return the last answer of the program at the node; None if it ended without one.

        ``meanwhile`` is called about once a second, with the bytes that the program has reported.
        Raises TooSlow, DeliveryError, and what ``meanwhile`` raises.
        """
        reported = 0
        while (answers := program.answers(INTERVAL)) is not None:
            for answer in answers:
                total = answer.get("bytes", reported)
                self._add(total - reported)
                reported = total
                if "problem" in answer:
                    return answer
            meanwhile(reported)
            self._check_rate()
        return None

    def _add(self, count: int) -> None:
        """Count further bytes, but not more than can arrive."""
        new = min(max(count, 0), self._most - self.bytes)
        self.bytes += new
        self.progress(new)

    def _check_rate(self) -> None:
        now = time.monotonic()
        if self.bytes - self._counted >= self._least:
            self._counted, self._since = self.bytes, now
        elif now - self._since > self._window:
            raise TooSlow(f"brought fewer than {self._least} bytes in {self._window} seconds and was ended.")
