# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ends of a transfer whose rsync does what its owner likes.

``LORAFLEET_TEST_RSYNC`` is the rsync of the source in the tests of a hostile node: another version
than this machine's.
"""

from __future__ import annotations

import collections.abc as c
import os
import pathlib
import re
import shutil
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._rsync import Rsync, installed_rsync
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer import relay, rsync
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End, transfer
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.rsync import TransferOptions, TransferResult
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.session import Session

from tests.support import sshd as sshd_server
from tests.support.fleet import CONFIG, DESCRIBER_3B, WEIGHTS, Fleet, contents, travelling
from tests.support.hostile import program, rewrite_answers
from tests.support.troubleshooting import documented

pytestmark = pytest.mark.skipif(shutil.which("rsync") is None, reason="no rsync on this machine")

RSYNC = os.environ.get("LORAFLEET_TEST_RSYNC") or "rsync"
NAMES = ["weights", "adapter_config.json"]
MARKER = "a-line-of-a-file-that-nobody-offered"


class Hosts:
    """A source that offers two files beside one of its own, and a node."""

    def __init__(self, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._monkeypatch = root, monkeypatch
        self.source, self.staging = root / "source", root / "staging"
        self.adapter = self.source / "adapter"
        self.adapter.mkdir(parents=True)
        self.staging.mkdir()
        for name in NAMES:
            (self.adapter / name).write_bytes(os.urandom(100_000))
        self.private = self.source / "private"
        self.private.write_text(f"{MARKER}\n")
        (self.adapter / "link").symlink_to(self.private)
        self.before = contents(self.source)

    def fetch(self, client: c.Sequence[str], **options: t.Any) -> TransferResult:
        """A transfer with another command in the place of the node's rsync."""
        whole = ["sh", "-c", rsync._CLIENT_SCRIPT, str(self.staging), "0", "unlimited", *rsync._ENV, *client]
        self._monkeypatch.setattr(relay, "client_command", lambda *_arguments: whole)
        bound = rsync.server_command

        def server(*arguments: t.Any) -> list[str]:
            return [RSYNC if word == "rsync" else word for word in bound(*arguments)]

        self._monkeypatch.setattr(relay, "server_command", server)
        return transfer(End(None), End(None), NAMES, str(self.adapter), str(self.staging), TransferOptions(3, **options))

    def assert_nothing_else_happened(self) -> None:
        assert contents(self.source) == self.before
        for path in self.staging.rglob("*"):
            assert path.name in NAMES
            assert path.read_bytes() in ((self.adapter / path.name).read_bytes(), b"")


@pytest.fixture
def hosts(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    return Hosts(tmp_path, monkeypatch)


# What the node's end says to its "remote shell", and so to nobody.
ASKING: dict[str, list[str]] = {
    "another file": ["source:{private}"],
    "another file, by the protected way": ["-s", "source:{private}"],
    "another file beside those offered": ["source:weights", "source:{private}"],
    "what a link leads to": ["--copy-links", "source:{adapter}/link"],
    "a whole tree": ["-r", "-M-r", "source:{source}/"],
    "a list of files": ["--files-from=:{private}", "source:{source}/"],
    "the removal of the files": ["--remove-source-files", "source:weights"],
    "a log file": ["-M--log-file={source}/made", "-M--log-file-format=made", "source:weights"],
    "a log file, by the protected way": ["-s", "-M--log-file={source}/made", "source:weights"],
    "lines appended to a file": ["-M--log-file={private}", "-M--log-file-format=made", "source:weights"],
    "devices": ["-M--copy-devices", "source:/dev/null"],
    "receiving instead of sending": ["-M--no-sender", "source:weights"],
    "a daemon": ["-M--daemon", "source:weights"],
    "a batch file": ["-M--write-batch={source}/batch", "source:weights"],
    "filter rules of a file": ["-M--filter=merge {private}", "source:weights"],
    "more debugging": ["-vvv", "-M--debug=ALL", "source:weights"],
}


@pytest.mark.parametrize("asking", ASKING)
def test_source_does_nothing_that_the_nodes_end_asks_for(hosts: Hosts, asking: str) -> None:
    places = {"source": hosts.source, "adapter": hosts.adapter, "private": hosts.private}
    words = [word.format(**places) for word in ASKING[asking]]
    hosts.fetch(["rsync", "--blocking-io", "--inplace", "--timeout=3", "--rsh", rsync._JOIN, *words, f"{hosts.staging}/"])
    hosts.assert_nothing_else_happened()


# A client of its own: says the version of the protocol, sends filter rules and records the answer.
CLIENT = """
import os, struct, sys
version, rule, muxed, record = int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3] == "muxed", sys.argv[4]
body = struct.pack("<I", len(rule)) + rule + struct.pack("<I", 0)
head = struct.pack("<I", 7 << 24 | len(body)) if muxed else b""
os.write(4, struct.pack("<I", version) + head + body)
os.close(4)
with open(record, "wb") as stream:
    while block := os.read(3, 1 << 16):
        stream.write(block)
"""


@pytest.mark.parametrize(("version", "muxed"), [(31, True), (30, True), (29, False)])
@pytest.mark.parametrize("rule", [". {private}", "merge {private}", ".w {private}", ": private"])
def test_source_sends_no_line_of_a_file_that_is_named_as_filter(hosts: Hosts, version: int, muxed: bool, rule: str) -> None:
    record = hosts.root / "record"
    arguments = [str(version), rule.format(private=hosts.private), "muxed" if muxed else "plain", str(record)]
    # Messages go to standard output as rsync's do.
    hosts.fetch([sys.executable, "-c", CLIENT, *arguments])
    assert record.exists()
    assert MARKER.encode() not in record.read_bytes()
    hosts.assert_nothing_else_happened()


@pytest.mark.parametrize("options", [{}, {"compress": True}, {"bwlimit": "10M"}, {"node_rsync": "3.5.0"}])
def test_honest_nodes_end_resumes_and_gets_its_files(hosts: Hosts, options: dict[str, t.Any]) -> None:
    found = Rsync.parse(subprocess.run([RSYNC, "--version"], check=True, capture_output=True, text=True).stdout)
    if "compress" in options and not (found and found.zstd):
        pytest.skip(f"{RSYNC} cannot compress with zstd")
    whole = (hosts.adapter / "weights").read_bytes()
    (hosts.staging / "weights").write_bytes(whole[:60_000])
    command = rsync.client_command(NAMES, str(hosts.staging), TransferOptions(10, **options))
    result = hosts.fetch(command[command.index("rsync") :], **options)
    assert result.returncode == 0, result.stderr
    assert contents(hosts.staging) == {name: (hosts.adapter / name).read_bytes() for name in NAMES}
    assert result.received < 150_000


def test_server_command_is_what_the_client_would_ask_for(tmp_path: pathlib.Path) -> None:
    """Both ends of rsync must agree about options that change the protocol."""
    shell = program(tmp_path / "bin", "shell", 'printf "%s\\n" "$@" > "$(dirname "$0")/asked"; exit 1\n')
    version = subprocess.run(["rsync", "--version"], check=True, capture_output=True, text=True).stdout.split()[2]
    options = TransferOptions(60, "1M", compress=True, node_rsync=version)
    command = rsync.client_command(["a"], str(tmp_path), options)
    words = command[command.index("rsync") :]
    words[words.index("--rsh") + 1] = str(shell)
    subprocess.run(words, check=False, capture_output=True)
    asked = set((tmp_path / "bin" / "asked").read_text().split())
    bound = rsync.server_command(["a"], "/models", options)
    given = set(bound[bound.index("rsync") :])
    # The client says -I, which only it needs, and its features in one word.
    [features] = {word for word in asked if word.startswith("-Ie")}
    assert f"-{features[2:]}" in given
    # It has turned the limit into KiB.
    assert asked - given == {"source", features, "--bwlimit=1024", "a"}
    assert given - asked == {f"-{features[2:]}", "--msgs2stderr", "--bwlimit=1M", "--compress", "/models/a"}


def test_hostile_rsync_of_a_node_gets_nothing_but_its_adapter(fleet: Fleet, tmp_path: pathlib.Path) -> None:
    lacking = sshd_server.lacking()
    if lacking:
        pytest.skip(lacking)
    private, loot = tmp_path / "private", tmp_path / "loot"
    private.write_text(MARKER)
    loot.mkdir()
    real = shutil.which("rsync")
    program(
        tmp_path / "bin",
        "rsync",
        f"""
        case "$*" in *--server*|--version) exec {real} "$@" ;; esac
        while test "$1" != --rsh; do shift; done
        exec {real} -s --blocking-io --timeout=5 -M--log-file={tmp_path}/made --rsh "$2" source:{private} {loot}/
        """,
    )
    directory = tmp_path / "sshd"
    directory.mkdir()
    with sshd_server.running(directory, f"SetEnv PATH={tmp_path / 'bin'}:/usr/bin:/bin") as server:
        fleet.hosts["jw3-1"].update(server.variables())
        done = fleet.run("deploy")
    assert done.rc == 2, done.output
    assert done.failures("jw2-1") == [], done.output
    assert contents(fleet.served("jw2-1", "llama32_3b_grammar_lora")) == travelling(fleet.source / "llama32_3b_grammar_lora")
    assert MARKER not in str(contents(loot))
    assert not (tmp_path / "made").exists()


# The source's rsync: the real one, which sends something else than it was asked for.
SENDING: dict[str, str] = {
    "another file": 'set -- "$@" {other}/evil.py',
    "other bytes": 'for last; do :; done; set -- "$@"; cp {other}/evil.py "$last"',
}


@pytest.mark.parametrize("sending", SENDING)
def test_source_that_sends_something_else_is_refused(fleet: Fleet, tmp_path: pathlib.Path, sending: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "evil.py").write_text("harmless")
    real = shutil.which("rsync")
    lie = SENDING[sending].format(other=other)
    script = f'case "$*" in *--server*) {lie} ;; esac\nexec {real} "$@"\n'
    path = program(tmp_path / "bin", "rsync", script)
    done = fleet.run("deploy", "--limit", "jw3-1", environment={"PATH": f"{path.parent}:{os.environ['PATH']}"})
    assert done.rc == 2, done.output
    assert not fleet.served("jw3-1", DESCRIBER_3B).exists()
    assert fleet.reported("jw3-1", DESCRIBER_3B)["verified"] is False


@pytest.mark.parametrize(
    ("name", "size", "compress", "problem"),
    [
        # Files of zeros: with compression, hardly anything of them is on the wire.
        (WEIGHTS, 1 << 30, False, documented("more bytes than described")),
        (WEIGHTS, 1 << 30, True, documented("more bytes than described")),
        # Within the limit that other files of the transfer need.
        (CONFIG, 40_000, False, re.compile("the received files do not match the manifest: changed  adapter_config.json")),
    ],
)
def test_source_that_sends_longer_files_fills_no_disk(
    fleet: Fleet, name: str, size: int, compress: bool, problem: re.Pattern[str]
) -> None:
    offered = fleet.source / DESCRIBER_3B
    described = {path.name: path.stat().st_size for path in offered.iterdir()}
    lengthen = f"import os; os.truncate({str(offered / name)!r}, {size})"
    rewrite_answers(fleet, "sbs29", f'if module == "adapter_info":\n    {lengthen}\nreturn result')
    done = fleet.run("deploy", "--limit", "jw3-1", "-e", f"agent_transfer_compress={compress}")
    [message] = done.failures("jw3-1")
    assert problem.search(message), message
    staged = list((fleet.stored("jw3-1", DESCRIBER_3B) / "staging").glob("*/*"))
    assert all(path.stat().st_size <= described[path.name] for path in staged), staged


@pytest.mark.parametrize("compress", [False, True])
def test_source_with_longer_files_than_described_takes_no_more_space_than_was_checked(
    tmp_path: pathlib.Path, compress: bool
) -> None:
    """Each file is as long as the longest one of an adapter, so none is too long by itself."""
    if compress and not installed_rsync().zstd:
        pytest.skip("this machine's rsync has no zstd")
    mib = 1 << 20
    described = {"weights": 64 * mib, "tokenizer.json": 8 * mib, **{f"file-{number}": 1000 for number in range(10)}}
    source, staging = tmp_path / "source", tmp_path / "staging"
    for directory in (source, staging):
        directory.mkdir()
    for name in described:
        with (source / name).open("wb") as stream:
            stream.truncate(described["weights"])
    session = Session("sbs29", "jw2-1", End(None), End(None), TransferOptions(30, compress=compress), 1)
    with pytest.raises(DeliveryError, match="the source sent more than it had described"):
        session.fetch("a", list(described), str(source), str(staging), sizes=described)
    assert sum(path.stat().st_size for path in staging.iterdir()) <= 2 * sum(described.values())


def test_node_that_asks_for_files_of_no_manifest_is_refused(fleet: Fleet) -> None:
    (fleet.source / DESCRIBER_3B / "notes.txt").write_text(MARKER)
    change = 'result["adapters"][0]["downloaded"].append("notes.txt")'
    rewrite_answers(fleet, "jw3-1", f'if module == "adapter_sync":\n    {change}\nreturn result')
    done = fleet.run("deploy", "--limit", "jw3-1")
    [message] = done.failures("jw3-1")
    assert documented("request for other files").fullmatch(message), message
    assert not list(fleet.root.glob("jw3-1/**/notes.txt"))


def test_node_does_not_choose_the_time_limits_of_the_run(fleet: Fleet) -> None:
    limits = {"transfer_timeout": 10**9, "transfer_bwlimit": "1", "transfer_tries": 10**9, "transfer_compress": True}
    change = f'result["options"] = {limits!r}'
    rewrite_answers(fleet, "jw3-1", f'if module == "adapter_sync":\n    {change}\nreturn result')
    done = fleet.run("deploy", "--limit", "jw3-1")
    assert done.rc == 0, done.output
    commands = str(done.of("jw3-1", "adapter_sync")["commands"])
    assert "--timeout=60" in commands
    assert "--bwlimit" not in commands
    assert fleet.served("jw3-1", DESCRIBER_3B).joinpath(WEIGHTS).exists()


def test_manifests_of_one_training_server_are_not_fetched_from_another(
    fleet: Fleet, run_elsewhere: c.Callable[..., t.Any]
) -> None:
    fleet.members["training"].append("sbs30")
    fleet.hosts["sbs30"] = {}
    text = """
    - hosts: jw3-1
      gather_facts: false
      tasks:
        - lorafleet.delivery.adapter_info:
            adapters: "{{ agent_adapters }}"
            bases: "{{ agent_bases }}"
            models_dir: "{{ hostvars.sbs29.training_models_dir }}"
            cache_dir: "{{ hostvars.sbs29.training_cache_dir }}"
          delegate_to: sbs29
          register: described
        - lorafleet.delivery.adapter_sync:
            adapters: "{{ agent_adapters }}"
            bases: "{{ agent_bases }}"
            manifests: "{{ described.manifests }}"
            source: sbs30
            source_models_dir: "{{ hostvars.sbs29.training_models_dir }}"
            source_directories: "{{ described.directories }}"
            models_dir: "{{ agent_models_dir }}"
            store: "{{ agent_store }}"
    """
    done = run_elsewhere(text)
    [message] = done.failures("jw3-1")
    assert documented("manifests of another host").fullmatch(message), message
    assert run_elsewhere(text.replace("source: sbs30", "source: sbs29")).rc == 0
