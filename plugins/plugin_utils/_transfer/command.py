# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.
"""The way ``command``: a command of the site brings the files of an adapter to the node.

The site's inventory names it. It runs on the node as the user that modules run as, once for each
adapter, and can get the files from wherever the site keeps them.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer import channel, command, staged
from ansible_collections.lorafleet.delivery.plugins.module_utils._ways import COMMAND, with_values

from .._contact.forms import Form, Integer, Output, Text
from .arrivals import Arrivals, TooSlow
from .program import Program
from .relay import End
from .rsync import TransferOptions
from .ways import Progress, Wanted

_ANSWERS: dict[str, Form] = {"bytes": Integer(), "problem": Text(1 << 12), "output": Output()}
_KEPT = "What has arrived was kept. The served files were not changed."


@dataclasses.dataclass
class CommandWay:
    """``node`` is the name of the node, ``interpreter`` the Python that modules run with there."""

    node: str
    end: End
    interpreter: str
    command: c.Sequence[str]
    options: TransferOptions
    name: t.ClassVar[str] = COMMAND
    received: int = 0
    given_up: str = ""

    def fetch(self, wanted: Wanted, progress: Progress) -> None:
        manifest = wanted.manifest
        work = f"{wanted.staging}.work"
        listed = {
            "adapter": manifest.name,
            "release": manifest.release,
            "digest": manifest.digest,
            "files": [dataclasses.asdict(entry) for entry in wanted.files],
        }
        values = {**listed, "staging": wanted.staging, "files": f"{work}/{command.FILE_LIST}"}
        job: dict[str, t.Any] = {
            "argv": [with_values(argument, values) for argument in self.command],
            "staging": wanted.staging,
            "work": work,
            "list": listed,
            "known": [entry.path for entry in manifest.files],
        }
        arrivals = Arrivals(wanted, self.options, progress)
        with contextlib.ExitStack() as running:
            try:
                parts = (channel, staged, command)
                program = Program(running, self.end, self.node, self.interpreter, parts, _ANSWERS, self.options.timeout)
                program.begin(**job)
                self._follow(program, arrivals)
            except DeliveryError:
                self.end.close()
                raise

    def _follow(self, program: Program, arrivals: Arrivals) -> None:
        """Wait for the last answer. Raises DeliveryError for a command that failed or is slow."""
        adapter = arrivals.wanted.manifest.name
        try:
            answer = arrivals.follow(program)
        except TooSlow as exc:
            self.given_up = str(exc)
            raise DeliveryError.of(
                f"transfer_command on {self.node}",
                str(exc),
                f"Let it write to the staging directory while it works, or raise transfer_timeout. {_KEPT}",
                adapter,
            ) from exc
        finally:
            self.received += arrivals.bytes
        if answer is None:
            error = program.ended()
            self.given_up = error.problems[0].problem
            raise error
        self._judge(answer, adapter)

    def _judge(self, answer: dict[str, t.Any], adapter: str) -> None:
        problem = answer["problem"]
        if not problem:
            return
        printed = " ".join(answer.get("output", "").split())[-600:]
        raise DeliveryError.of(
            f"transfer_command on {self.node}",
            f"did not bring the files: {problem}{f' ({printed})' if printed else ''}.",
            f"Correct it, or set transfer to relay. {_KEPT}",
            adapter,
        )
