# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""All that one node gets from one source: one connection to each, tried again where it breaks, and an account of it."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import time
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

from .relay import End, Outcome, Way, transfer, why
from .ssh import without_secrets

# Seconds between a broken connection and the next: a host that refuses one now would refuse all that come at once.
_PAUSE = 2


@dataclasses.dataclass
class Session:
    """Transfers from C(source) to C(node), which are names for messages. C(outcomes) are those of all tries up to now."""

    source: str
    node: str
    source_end: End
    node_end: End
    way: Way
    tries: int
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)

    def bring(
        self,
        adapter: str,
        names: c.Sequence[str],
        source_dir: str,
        staging: str,
        progress: c.Callable[[int], None] = lambda count: None,
    ) -> None:
        """Move files of an adapter, going on after a broken connection. Raises DeliveryError when it cannot be done.

        C(progress) is that of C(transfer), for all tries.
        """
        failed: list[Outcome] = []
        path = self.source_end.path(source_dir)
        for number in range(self.tries):
            wait = 0
            if number:
                time.sleep(_PAUSE)
                # The receiver of the try before may not have noticed yet that nobody sends to it any more: it does when it sends
                # its next sign of life, after half of the time limit.
                wait = self.way.timeout * 3 // 4
            outcome = transfer(self.source_end, self.node_end, names, path, staging, self.way, progress, wait)
            self.outcomes.append(outcome)
            if outcome.returncode == 0:
                return
            if self.way.compress and outcome.source and not outcome.source.zstd:
                raise no_zstd(self.source, outcome.source.version)
            failed.append(outcome)
            # What is left of them may stand still; the next try is to find out by itself.
            self.hang_up()
            if not outcome.passing:
                break
        raise DeliveryError.of(
            "",
            f"could not be brought from {self.source}:{source_dir} to {self.node}: {why(failed, self.way.timeout)}.",
            "What had arrived is kept; run again to go on from there. What is served was not touched.",
            adapter,
        )

    def hang_up(self) -> None:
        for end in (self.source_end, self.node_end):
            end.hang_up()

    @property
    def source_rsync(self) -> str:
        """The version of rsync at the source, empty as long as it has not said it."""
        return next((outcome.source.version for outcome in self.outcomes if outcome.source), "")

    def account(self) -> dict[str, t.Any]:
        """What was done, as the result of a task."""
        return {
            "wire_bytes": sum(outcome.received for outcome in self.outcomes),
            "source_rsync": self.source_rsync,
            "commands": [without_secrets(command) for outcome in self.outcomes for command in outcome.commands],
        }


def no_zstd(host: str, version: str) -> DeliveryError:
    return DeliveryError.of(
        host,
        f"has an rsync ({version}) that cannot compress with zstd.",
        "Turn agent_transfer_compress off (zlib would be slower than the link), or install rsync 3.2 or newer with zstd there.",
    )
