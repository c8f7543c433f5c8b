# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""All transfers from one source to one node: one connection to each, retries, and a summary."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import os
import time
import types
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, about
from ansible_collections.lorafleet.delivery.plugins.module_utils._rsync import no_zstd
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import escaped, shown
from ansible_collections.lorafleet.delivery.plugins.module_utils._ways import RELAY

from .._contact.failures import CLEAN_SHELL
from .relay import End, transfer
from .rsync import BUSY, NOT_FOUND, Offer, TransferOptions, TransferResult, failure_reason, within_space
from .ssh import without_secrets
from .ways import Progress, Wanted

# Seconds before a retry: a host that has just refused a connection would refuse the next one too.
_RETRY_DELAY = 2
_UNTOUCHED = "The served files were not changed."


@dataclasses.dataclass
class Session:
    """Transfers from ``source`` to ``node``, which are names for messages.

    ``follows`` is whether another way was tried before, which may still hold the staging directory.
    ``results`` holds the result of every attempt up to now.
    """

    source: str
    node: str
    source_end: End
    node_end: End
    options: TransferOptions
    tries: int
    follows: bool = False
    results: list[TransferResult] = dataclasses.field(default_factory=list)

    def fetch(
        self,
        adapter: str,
        names: c.Sequence[str],
        source_dir: str,
        staging: str,
        progress: c.Callable[[int], None] = lambda count: None,
        links: c.Mapping[str, str] = types.MappingProxyType({}),
        sizes: c.Mapping[str, int] = types.MappingProxyType({}),
    ) -> None:
        """Transfer files of an adapter; resume after a broken connection.

        ``names`` can be in a subdirectory, which must exist in ``staging``. ``links`` has the paths
        of files that are elsewhere at the source. rsync follows no links, so nobody can exchange
        what was resolved for a link to another file. ``sizes`` has the described size of each file:
        without it, the source may send any amount. Raises DeliveryError on failure. ``progress``
        is that of ``transfer``, over all attempts.
        """
        groups: dict[tuple[str, str], list[str]] = {}
        for name in names:
            if name in links:
                group = (os.path.dirname(links[name]), name)
            else:
                subdirectory = os.path.dirname(name)
                directory = os.path.join(source_dir, subdirectory) if subdirectory else source_dir
                group = (directory, os.path.join(subdirectory, ""))
            groups.setdefault(group, []).append(name)
        for (directory, destination), members in groups.items():
            for found in within_space({name: sizes[name] for name in members}) if sizes else [members]:
                described = [sizes[name] for name in found] if sizes else []
                offer = Offer(max(described), sum(described)) if described else None
                files = [os.path.basename(links.get(name, name)) for name in found]
                self._fetch(adapter, files, directory, staging, progress, destination, offer)

    def _fetch(
        self,
        adapter: str,
        names: c.Sequence[str],
        source_dir: str,
        staging: str,
        progress: c.Callable[[int], None],
        destination: str,
        offer: Offer | None,
    ) -> None:
        failed: list[TransferResult] = []
        path = self.source_end.path(source_dir)
        for number in range(self.tries):
            lock_timeout = 0
            if number:
                time.sleep(_RETRY_DELAY)
            if number or self.follows:
                # The receiver of the last attempt may not know yet that its connection is gone. It
                # notices when it sends its next keepalive, after half of the time limit.
                lock_timeout = self.options.timeout * 3 // 4
            ends = (self.source_end, self.node_end)
            result = transfer(*ends, names, path, staging, self.options, progress, lock_timeout, destination, offer)
            self.results.append(result)
            if result.returncode == 0:
                return
            if self.options.compress and result.source_rsync and not result.source_rsync.zstd:
                raise no_zstd(self.source, result.source_rsync.version)
            if result.unclean:
                with about(adapter):
                    raise unclean_shell(self.source, self.source_end.greeting(self.options.timeout))
            if result.returncode == NOT_FOUND:
                raise self._program_not_found(result, adapter)
            failed.append(result)
            # The connections may hang. The next attempt opens new ones.
            self.close()
            if not result.transient:
                break
        raise DeliveryError.of(
            "",
            f"could not be transferred from {self.source}:{source_dir} to {self.node}:"
            f" {failure_reason(failed, self.options.timeout)}.",
            f"{_first(failed[-1])}The received files were kept; run again to resume. {_UNTOUCHED}",
            adapter,
        )

    def _program_not_found(self, result: TransferResult, adapter: str) -> DeliveryError:
        host, programs = (self.source, "rsync") if result.at_source else (self.node, "rsync or flock")
        return DeliveryError.of(
            host,
            f"did not find {programs} in the search path of commands over this connection: {result.messages}.",
            f"Install the packages rsync and util-linux there, or add their directory to that path (PATH of"
            f" non-interactive shells; secure_path of sudo). {_UNTOUCHED}",
            adapter,
        )

    def close(self) -> None:
        for end in (self.source_end, self.node_end):
            end.close()

    @property
    def received(self) -> int:
        """The bytes that the node has received in all attempts."""
        return sum(result.received for result in self.results)

    @property
    def source_rsync(self) -> str:
        """The version of rsync at the source; empty until the source has reported it."""
        return next((result.source_rsync.version for result in self.results if result.source_rsync), "")

    def summary(self) -> dict[str, t.Any]:
        """What only a relay adds to the result of the task."""
        ends = (self.node_end, self.source_end)
        return {
            "source_rsync": self.source_rsync,
            # The source has named the directories in them.
            "commands": [
                [escaped(word, kept="") for word in (command if end.ssh is None else without_secrets(command))]
                for result in self.results
                for end, command in zip(ends, result.commands)
            ],
        }


@dataclasses.dataclass
class RelayWay:
    """The way ``relay``: rsync at both ends of a session."""

    session: Session
    name: t.ClassVar[str] = RELAY
    given_up: str = ""

    @property
    def received(self) -> int:
        return self.session.received

    def fetch(self, wanted: Wanted, progress: Progress) -> None:
        sizes = {entry.path: entry.size for entry in wanted.manifest.files}
        places = (wanted.directory, wanted.staging)
        self.session.fetch(wanted.manifest.name, wanted.names, *places, progress, wanted.links, sizes)


def _first(last: TransferResult) -> str:
    """What to do before another run, which would end like the last attempt otherwise."""
    if last.returncode == BUSY:
        return "Wait for it to finish, or end it. "
    return "" if last.transient else "Correct this first. "


def unclean_shell(source: str, printed: str) -> DeliveryError:
    """Return the error for a source that prints text before the output of each command."""
    what = f"prints {shown(printed)}" if printed else "prints something"
    return DeliveryError.of(
        source,
        f"{what} before the output of each command, which breaks the protocol of rsync.",
        f"{CLEAN_SHELL} {_UNTOUCHED}",
    )
