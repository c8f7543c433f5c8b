# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The engines that adapters can be served by, and their clients."""

from __future__ import annotations

import typing as t

from ..._engines.declared import DeclaredEngine
from ..._engines.endpoint import Endpoint
from ..._engines.rules.table import rules_of
from ..contract import ServingEngine
from ..http import READY, Client, read_api_key
from .llama_router import LlamaRouter
from .llama_server import LlamaServer
from .lmdeploy import Lmdeploy
from .mistralrs import Mistralrs
from .own import Own
from .sglang import Sglang
from .tgi import Tgi
from .vllm import Vllm

CLIENTS: tuple[type[ServingEngine], ...] = (Vllm, Sglang, Mistralrs, LlamaServer, LlamaRouter, Lmdeploy, Tgi, Own)


def _llama_cpp(declared: DeclaredEngine, client: Client) -> ServingEngine:
    return LlamaRouter(declared, client) if "preset" in declared.settings else LlamaServer(declared, client)


# By the name of the engine's rules.
_MADE: dict[str, t.Callable[[DeclaredEngine, Client], ServingEngine]] = {
    "llama_cpp": _llama_cpp,
    "lmdeploy": Lmdeploy,
    "mistralrs": Mistralrs,
    "own": Own,
    "sglang": Sglang,
    "tgi": Tgi,
    "vllm": Vllm,
}


def client_of(declared: DeclaredEngine, timeout: float = 120) -> ServingEngine:
    """Return a client of an engine with an endpoint. ``timeout`` is that of a request, in seconds.

    Raises DeliveryError for a bad key file.
    """
    name = rules_of(declared.name).name
    endpoint = t.cast(Endpoint, declared.endpoint)
    key = None if endpoint.api_key_file is None else read_api_key(endpoint.api_key_file)
    ready = str(declared.settings.get("ready", READY))
    return _MADE[name](declared, Client(endpoint.url, key, timeout, ready))
