# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways of a transfer between two local directories, for tests that run over all of them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import sys
import tempfile
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry, Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._ways import COMMAND, DIRECT, DIRECT_SSH, RELAY, SWARM
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.command import CommandWay
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.direct import DirectWay
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.direct_ssh import DirectSshWay
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.rsync import TransferOptions
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.session import RelayWay, Session
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.swarm import SwarmWay
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.ways import Wanted, Way

from tests.support import sshd

LOCAL = End(None)
# A command that continues the files in the staging directory, from those in a directory.
COPY = """\
import json, os, sys
source, listed, staging = sys.argv[1:]
with open(listed) as stream:
    files = json.load(stream)["files"]
for entry in files:
    with open(os.path.join(source, entry["path"]), "rb") as there, open(os.path.join(staging, entry["path"]), "ab") as here:
        there.seek(here.tell())
        here.write(there.read())
"""
COPYING = (sys.executable, "-c", COPY)


@dataclasses.dataclass
class Site:
    """The directory of an adapter at a source, and its staging directory on a node."""

    source: pathlib.Path
    staging: pathlib.Path
    node: End = LOCAL
    timeout: int = 30
    minimum_rate: int = 0
    at_source: End = LOCAL
    tries: int = 1

    @classmethod
    def below(cls, directory: pathlib.Path, **files: bytes) -> Site:
        """An empty staging directory, and a source with the given files.

        In their names, two underscores stand for a slash.
        """
        site = cls(directory / "source", directory / "node" / "staging")
        site.staging.mkdir(parents=True, mode=0o700)
        for name, data in files.items():
            path = name.replace("__", "/")
            (site.source / path).parent.mkdir(parents=True, exist_ok=True)
            (site.source / path).write_bytes(data)
            # As the plan of a transfer makes it.
            (site.staging / path).parent.mkdir(exist_ok=True)
        return site

    @property
    def options(self) -> TransferOptions:
        return TransferOptions(self.timeout, minimum_rate=self.minimum_rate)

    def wanted(self, *names: str, **described: bytes) -> Wanted:
        """The files of these names, by default all of the source, as they are or as described."""
        data = {str(path.relative_to(self.source)): path.read_bytes() for path in self.source.rglob("*") if path.is_file()}
        data.update(described)
        entries = [FileEntry(path, len(of), hashlib.sha256(of).hexdigest()) for path, of in sorted(data.items())]
        manifest = Manifest(name="grammar_lora", files=tuple(entries), tensors=(), config={}, versions={})
        return Wanted(manifest, names or sorted(data), str(self.staging), str(self.source))

    def command(self, *argv: str) -> CommandWay:
        return CommandWay("jw2-1", self.node, sys.executable, argv, self.options)

    def direct(self, **changes: t.Any) -> DirectWay:
        ends = ("sbs29", "jw2-1", self.at_source, self.node, sys.executable, sys.executable)
        way = DirectWay(*ends, "127.0.0.1", (0, 0), self.options, self.tries)
        return dataclasses.replace(way, **changes)

    def direct_ssh(self, server: sshd.Server, keys: pathlib.Path, **changes: t.Any) -> DirectSshWay:
        """Through a server that reads the file of keys."""
        direct = self.direct()
        given = {field.name: getattr(direct, field.name) for field in dataclasses.fields(direct)}
        way = DirectSshWay(**given, login=LOCAL, ssh_port=server.port, authorized_keys=str(keys))
        return dataclasses.replace(way, **changes)

    def swarm(self, directory: pathlib.Path, **changes: t.Any) -> SwarmWay:
        """Workers that share a directory are those of one run."""
        ends = ("sbs29", "jw2-1", self.at_source, self.node, sys.executable, sys.executable, "127.0.0.1", "127.0.0.1")
        way = SwarmWay(*ends, (0, 0), False, str(directory), self.options, self.tries)
        return dataclasses.replace(way, **changes)

    def arrived(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.staging)): path.read_bytes() for path in self.staging.rglob("*") if path.is_file()}


@contextlib.contextmanager
def _relay(site: Site) -> t.Iterator[Way]:
    session = Session("sbs29", "jw2-1", LOCAL, site.node, site.options, 1)
    yield RelayWay(session)
    session.close()


@contextlib.contextmanager
def _command(site: Site) -> t.Iterator[Way]:
    yield site.command(*COPYING, str(site.source), "{files}", "{staging}")
    site.node.close()


@contextlib.contextmanager
def _direct(site: Site) -> t.Iterator[Way]:
    yield site.direct()
    site.node.close()


@contextlib.contextmanager
def _direct_ssh(site: Site) -> t.Iterator[Way]:
    with tempfile.TemporaryDirectory() as directory, sshd.running(pathlib.Path(directory)) as server:
        keys = pathlib.Path(directory, "authorized_keys")
        before = keys.read_bytes()
        yield site.direct_ssh(server, keys)
        site.node.close()
        assert keys.read_bytes() == before


@contextlib.contextmanager
def _swarm(site: Site) -> t.Iterator[Way]:
    with tempfile.TemporaryDirectory() as directory:
        way = site.swarm(pathlib.Path(directory))
        yield way
        way.close()
        site.node.close()


def interpreter(directory: pathlib.Path, script: str) -> str:
    """A script in the place of the Python of an end."""
    path = directory / "interpreter"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


WAYS: dict[str, t.Callable[[Site], t.ContextManager[Way]]] = {
    RELAY: _relay,
    COMMAND: _command,
    DIRECT: _direct,
    DIRECT_SSH: _direct_ssh,
    SWARM: _swarm,
}


def random_bytes(size: int) -> bytes:
    """Bytes that no delta transfer finds anywhere else."""
    return os.urandom(size)
