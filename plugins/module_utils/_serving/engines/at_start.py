# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What the clients of engines share that get their adapters at their start only.

Their options are in the file of the desired state, which the unit or the command of the site reads.
"""

from __future__ import annotations

import typing as t

from ..._engines.declared import DeclaredEngine
from ..._engines.endpoint import Endpoint
from ..commands import restart
from ..contract import ServingEngine, Unsupported
from ..http import Client

_NO_CALL = "gets its adapters at its start only"


class AtStart(ServingEngine):
    restarts = True

    def __init__(self, declared: DeclaredEngine, client: Client) -> None:
        self._client = client
        self._version = declared.version
        self._endpoint = t.cast(Endpoint, declared.endpoint)
        # Its url needs the key.
        self._command = t.cast("str | list[str]", self._endpoint.restart)

    def load(self, name: str, directory: str) -> None:
        raise Unsupported(_NO_CALL)

    def unload(self, name: str) -> None:
        raise Unsupported(_NO_CALL)

    def switch(self, name: str, directory: str) -> None:
        raise Unsupported(_NO_CALL)

    def restart(self, adapters: t.Sequence[tuple[str, str]]) -> None:
        restart(self._command, self._endpoint.start_timeout)

    def wait_until_idle(self, name: str, seconds: float) -> bool:
        return False
