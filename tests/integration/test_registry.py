# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program of docs/transfer.md brings an adapter from a real OCI registry (docker-registry)."""

from __future__ import annotations

import hashlib
import http.client
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import typing as t
import urllib.parse

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

from tests.support.paths import DOCS
from tests.support.sshd import free_port
from tests.support.ways import Site

REGISTRY = shutil.which("docker-registry")
pytestmark = pytest.mark.skipif(REGISTRY is None, reason="no docker-registry on this machine")

LIMIT = 30
CONFIG = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {directory}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


class Registry:
    """A running registry with one repository."""

    def __init__(self, port: int) -> None:
        self.port, self.repository = port, f"http://127.0.0.1:{port}/v2/adapters"

    def asked(self, method: str, path: str, body: bytes = b"") -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        connection.request(method, path, body, {"Content-Type": "application/octet-stream"})
        answer = connection.getresponse()
        answer.read()
        return answer

    def is_ready(self) -> bool:
        try:
            return self.asked("GET", "/v2/").status == 200
        except OSError:
            return False

    def push(self, data: bytes) -> None:
        begun = urllib.parse.urlsplit(self.asked("POST", "/v2/adapters/blobs/uploads/").headers["Location"])
        done = self.asked("PUT", f"{begun.path}?{begun.query}&digest=sha256:{hashlib.sha256(data).hexdigest()}", data)
        assert done.status == 201


@pytest.fixture
def registry(tmp_path: pathlib.Path) -> t.Iterator[Registry]:
    made = Registry(free_port())
    config = tmp_path / "registry.yml"
    config.write_text(CONFIG.format(directory=tmp_path / "registry", port=made.port), encoding="utf-8")
    process = subprocess.Popen([str(REGISTRY), "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + LIMIT
        while not made.is_ready():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        yield made
    finally:
        process.kill()
        process.wait(LIMIT)


@pytest.fixture
def fetch_blobs(tmp_path: pathlib.Path) -> str:
    """The program of the documentation."""
    [program] = re.findall(r"```python\n(#!.*?)```", (DOCS / "transfer.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "fetch-blobs").write_text(program, encoding="utf-8")
    return str(tmp_path / "fetch-blobs")


def test_command_of_the_documentation_brings_and_resumes_files_of_a_registry(
    registry: Registry, fetch_blobs: str, tmp_path: pathlib.Path
) -> None:
    site = Site.below(tmp_path, config=b"{}", weights=os.urandom(3 << 20), empty=b"", templates__tool=b"a template")
    wanted = site.wanted()
    way = site.command(sys.executable, fetch_blobs, registry.repository, "{files}", "{staging}")
    with pytest.raises(DeliveryError, match="HTTP Error 404: Not Found"):
        way.fetch(wanted, lambda count: None)
    for entry in wanted.files:
        registry.push((site.source / entry.path).read_bytes())
    (site.staging / "weights").write_bytes((site.source / "weights").read_bytes()[: 2 << 20])
    counts: list[int] = []
    way.fetch(wanted, counts.append)
    assert site.arrived() == {entry.path: (site.source / entry.path).read_bytes() for entry in wanted.files}
    assert sum(counts) == (1 << 20) + len(b"{}a template")
