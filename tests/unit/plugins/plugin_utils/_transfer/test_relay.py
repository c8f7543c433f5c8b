# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real transfers by this machine's rsync: between local directories, and over a real ssh server."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import typing as t

import pytest
from ansible.plugins.loader import become_loader, shell_loader
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._rsync import installed_rsync
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.failures import Account
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer import relay, rsync
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.become import Become
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End, transfer
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.rsync import (
    EXCESS,
    FLOOD,
    SLOW,
    Offer,
    TransferOptions,
    TransferResult,
)

from tests.support.sshd import Server
from tests.support.troubleshooting import documented

pytestmark = pytest.mark.skipif(shutil.which("rsync") is None, reason="no rsync on this machine")

LOCAL = End(None)
LIMIT = 60
MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Wrapped(End):
    """An end whose command is started by another program, which makes it fail in some way."""

    wrapper: tuple[str, ...] = ()

    def argv(self, command: t.Any) -> list[str]:
        return [*self.wrapper, *super().argv(command)]


FAILING_SOURCE = """\
import os, subprocess, sys, time
left, failure = int(sys.argv[1]), sys.argv[2]
rsync = subprocess.Popen(sys.argv[3:], stdout=subprocess.PIPE)
while left:
    block = os.read(rsync.stdout.fileno(), min(left, 1 << 16))
    left -= len(block)
    while block:
        block = block[os.write(1, block):]
if failure == "break":
    rsync.kill()
while failure == "keep alive":
    # An empty message of rsync.
    os.write(1, b"\\0\\0\\0\\x31")
    time.sleep(0.1)
while failure == "slow":
    os.write(1, os.read(rsync.stdout.fileno(), 4096))
    time.sleep(0.1)
rsync.wait()
"""


def failing_after(count: int, failure: str) -> Wrapped:
    """A source that breaks, stalls, sends only keepalives or is slow after ``count`` bytes."""
    return Wrapped(None, wrapper=(sys.executable, "-c", FAILING_SOURCE, str(count), failure))


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def staging(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "staging").mkdir(0o700)
    return tmp_path / "staging"


def run_transfer(
    source: pathlib.Path,
    staging: pathlib.Path,
    *names: str,
    at_source: End = LOCAL,
    at_node: End = LOCAL,
    timeout: int = 30,
    lock_timeout: int = 0,
    **kwargs: t.Any,
) -> TransferResult:
    """A transfer with a deadline: after it, its processes are killed and the test fails."""
    progress, offer = kwargs.pop("progress", lambda count: None), kwargs.pop("offer", None)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        before = _children()
        options = TransferOptions(timeout, **kwargs)
        arguments = (names, str(source), str(staging), options, progress, lock_timeout, "", offer)
        running = pool.submit(transfer, at_source, at_node, *arguments)
        try:
            return running.result(LIMIT)
        except concurrent.futures.TimeoutError:
            for child in _children() - before:
                os.kill(child, signal.SIGKILL)
            raise


def _children() -> set[int]:
    found: set[int] = set()
    for task in pathlib.Path("/proc/self/task").iterdir():
        # A thread may end in the meantime.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(int(number) for number in (task / "children").read_text().split())
    return found


def _processes_with(argument: str) -> set[int]:
    """Processes that have exactly this argument, which is unique to a test."""
    found = set()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if argument.encode() in arguments:
            found.add(int(process.name))
    return found


def assert_arrived(source: pathlib.Path, staging: pathlib.Path, *names: str) -> None:
    assert sorted(os.listdir(staging)) == sorted(names)
    for name in names:
        assert (staging / name).read_bytes() == (source / name).read_bytes()


def test_transfer_named_files_transfers_no_others(source: pathlib.Path, staging: pathlib.Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        (source / name).write_bytes(os.urandom(MIB))
    result = run_transfer(source, staging, "adapter_config.json", "adapter_model.safetensors")
    assert result.returncode == 0
    assert 2 * MIB <= result.received <= 2 * MIB + 65536
    assert not result.stderr
    assert_arrived(source, staging, "adapter_config.json", "adapter_model.safetensors")


def test_transfer_into_subdirectory_keeps_lock_on_staging_directory(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "tool_use.jinja").write_bytes(b"{{ tools }}")
    (staging / "templates").mkdir()
    result = transfer(LOCAL, LOCAL, ["tool_use.jinja"], str(source), str(staging), TransferOptions(30), destination="templates/")
    assert result.returncode == 0
    assert_arrived(source, staging / "templates", "tool_use.jinja")
    assert f"{staging}" in result.commands[0]


def test_transfer_progress_counts_every_byte(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "weights").write_bytes(os.urandom(4 * MIB))
    reported: list[int] = []
    result = run_transfer(source, staging, "weights", progress=reported.append)
    assert len(reported) > 4
    assert sum(reported) == result.received


def test_transfer_empty_file_arrives(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "merges.txt").touch()
    assert run_transfer(source, staging, "merges.txt").returncode == 0
    assert_arrived(source, staging, "merges.txt")


def test_transfer_unusual_file_names_arrive(source: pathlib.Path, staging: pathlib.Path) -> None:
    names = ["a", "0", "a..b", "a-", "a_", "CON", "a" * 128, "x.tar.gz", "source-x", "A.B-c_d"]
    for name in names:
        (source / name).write_text(name)
    assert run_transfer(source, staging, *names).returncode == 0
    assert_arrived(source, staging, *names)


def test_transfer_directories_with_spaces_and_quotes_are_literal(tmp_path: pathlib.Path) -> None:
    source, staging = tmp_path / 'it\'s a $HOME; "source"', tmp_path / "the node's staging"
    source.mkdir()
    staging.mkdir()
    (source / "file").write_bytes(b"bytes")
    assert run_transfer(source, staging, "file").returncode == 0
    assert_arrived(source, staging, "file")


def sparse(path: pathlib.Path, size: int) -> None:
    """Make a file longer than it was described."""
    with open(path, "r+b") as stream:
        stream.truncate(size)


@pytest.mark.parametrize("compress", [False, True])
def test_transfer_longer_file_than_described_ends_at_the_described_size(
    source: pathlib.Path, staging: pathlib.Path, compress: bool
) -> None:
    """With compression, few bytes on the wire are many on the disk."""
    if compress and not installed_rsync().zstd:
        pytest.skip("this machine's rsync has no zstd")
    (source / "weights").write_bytes(b"")
    sparse(source / "weights", 64 << 20)
    result = run_transfer(source, staging, "weights", offer=Offer(4 << 20, 8 << 20), compress=compress)
    assert (result.transient, result.excessive) == (False, True)
    assert result.reason(30).startswith("the source sent more than it had described")
    assert (staging / "weights").stat().st_size <= 8 << 20


def test_transfer_more_bytes_than_described_is_given_up(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "weights").write_bytes(os.urandom(16 << 20))
    result = run_transfer(source, staging, "weights", offer=Offer(64 << 20, 2 << 20))
    assert (result.returncode, result.transient, result.excessive) == (EXCESS, False, True)
    assert result.received <= (4 << 20)


@pytest.mark.parametrize("size", [0, 1, 511, 3 << 20])
def test_transfer_of_exactly_the_described_bytes_succeeds(source: pathlib.Path, staging: pathlib.Path, size: int) -> None:
    (source / "weights").write_bytes(os.urandom(size))
    assert run_transfer(source, staging, "weights", offer=Offer(size, size)).returncode == 0
    assert_arrived(source, staging, "weights")


def test_transfer_partial_file_is_resumed(source: pathlib.Path, staging: pathlib.Path) -> None:
    data = os.urandom(8 * MIB)
    (source / "weights").write_bytes(data)
    (staging / "weights").write_bytes(data[: 5 * MIB])
    result = run_transfer(source, staging, "weights")
    assert result.returncode == 0
    assert_arrived(source, staging, "weights")
    assert 3 * MIB <= result.received <= 1.02 * 3 * MIB


def test_transfer_same_size_and_mtime_replaces_content(source: pathlib.Path, staging: pathlib.Path) -> None:
    # Like an adapter that was trained again.
    for directory, data in ((source, os.urandom(MIB)), (staging, os.urandom(MIB))):
        (directory / "weights").write_bytes(data)
        os.utime(directory / "weights", (1_700_000_000, 1_700_000_000))
    assert run_transfer(source, staging, "weights").returncode == 0
    assert_arrived(source, staging, "weights")


def test_transfer_longer_staged_file_is_truncated(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "weights").write_bytes(b"short")
    (staging / "weights").write_bytes(os.urandom(MIB))
    assert run_transfer(source, staging, "weights").returncode == 0
    assert_arrived(source, staging, "weights")


def test_transfer_after_broken_connection_resumes(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "weights").write_bytes(os.urandom(16 * MIB))
    broken = run_transfer(source, staging, "weights", at_source=failing_after(10 * MIB, "break"))
    assert broken.returncode == 12
    assert broken.transient
    assert broken.reason(30).startswith("the connection between the two ends broke: ")
    begun = (staging / "weights").stat().st_size
    assert 0 < begun < 16 * MIB
    result = run_transfer(source, staging, "weights")
    assert result.returncode == 0
    assert_arrived(source, staging, "weights")
    assert result.received <= 1.02 * (16 * MIB - begun)


def test_transfer_after_killed_receiver_resumes(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "weights").write_bytes(os.urandom(16 * MIB))
    begun = staging / "weights"
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_transfer, source, staging, "weights", at_source=failing_after(10 * MIB, "stall"))
        deadline = time.monotonic() + LIMIT
        while not (begun.exists() and begun.stat().st_size):
            assert time.monotonic() < deadline
        receivers = _processes_with(f"{staging}/")
        client = receivers & _children()
        assert client
        # The client first: it would report the end of the others, and without it they end by
        # themselves.
        for receiver in [*client, *(receivers - client)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(receiver, signal.SIGKILL)
        killed = running.result(LIMIT)
    assert killed.returncode == -signal.SIGKILL
    assert killed.transient
    assert killed.reason(30).startswith("rsync ended with signal 9")
    kept = begun.stat().st_size
    assert 0 < kept < 16 * MIB
    result = run_transfer(source, staging, "weights")
    assert result.returncode == 0
    assert_arrived(source, staging, "weights")
    assert result.received <= 1.02 * (16 * MIB - kept)


KILLED_AT_ONCE = """\
#!{python}
import os, shlex, signal, subprocess, sys
rsh = shlex.split(sys.argv[sys.argv.index("--rsh") + 1])
subprocess.Popen([*rsh, "source"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_transfer_killed_client_ends_source(source: pathlib.Path, staging: pathlib.Path, tmp_path: pathlib.Path) -> None:
    # Killed before it has sent anything, so the source does not know the time limit yet.
    (source / "weights").write_bytes(b"bytes")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rsync").write_text(KILLED_AT_ONCE.format(python=sys.executable))
    (tmp_path / "bin" / "rsync").chmod(0o755)
    node = Wrapped(None, wrapper=("env", f"PATH={tmp_path}/bin:{os.environ['PATH']}"))
    assert run_transfer(source, staging, "weights", at_node=node, timeout=3600).returncode == -signal.SIGKILL


def test_transfer_locked_staging_is_refused(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "weights").write_bytes(b"bytes")
    descriptor = os.open(staging, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        result = run_transfer(source, staging, "weights")
    finally:
        os.close(descriptor)
    assert result.returncode == 75
    assert not result.transient
    # The source complains that its partner has ended. That is not the reason.
    assert result.reason(30) == "another run is still writing to the staging directory"
    assert os.listdir(staging) == []
    assert run_transfer(source, staging, "weights").returncode == 0


def test_transfer_lock_timeout_waits_for_earlier_receiver(
    source: pathlib.Path, staging: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (source / "weights").write_bytes(b"bytes")
    os.mkfifo(tmp_path / "leave")
    # The earlier receiver holds its lock until the new one has started.
    earlier = subprocess.Popen(
        ["flock", str(staging), "sh", "-c", 'echo; cat "$0"', str(tmp_path / "leave")], stdout=subprocess.PIPE
    )
    assert earlier.stdout
    earlier.stdout.readline()
    node = Wrapped(None, wrapper=("sh", "-c", 'echo > "$0"; exec "$@"', str(tmp_path / "leave")))
    assert run_transfer(source, staging, "weights", at_node=node, lock_timeout=LIMIT // 2).returncode == 0
    earlier.communicate()
    assert_arrived(source, staging, "weights")


def test_transfer_silent_source_times_out(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "weights").write_bytes(os.urandom(MIB))
    result = run_transfer(source, staging, "weights", at_source=failing_after(MIB // 2, "stall"), timeout=1)
    assert result.returncode == 30
    assert result.transient
    assert result.reason(1).startswith("no data for 1 seconds")


def test_transfer_keepalives_alone_time_out(source: pathlib.Path, staging: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsync, "_KEEPALIVE_FACTOR", 2)
    (source / "weights").write_bytes(os.urandom(MIB))
    result = run_transfer(source, staging, "weights", at_source=failing_after(MIB // 2, "keep alive"), timeout=2)
    assert result.returncode == 30
    assert "io timeout" not in result.stderr
    assert result.reason(2).startswith("no data for 2 seconds, or only rsync keepalives for 4")


def test_transfer_slower_than_the_minimum_rate_is_given_up(
    source: pathlib.Path, staging: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rsync, "_KEEPALIVE_FACTOR", 1)
    (source / "weights").write_bytes(os.urandom(16 * MIB))
    result = run_transfer(source, staging, "weights", at_source=failing_after(MIB, "slow"), timeout=2, minimum_rate=MIB)
    assert (result.returncode, result.transient) == (SLOW, True)
    assert documented("slow source").match(f"x: {result.reason(2)}.")
    assert 0 < (staging / "weights").stat().st_size < 16 * MIB


@pytest.mark.parametrize("end", ["node", "source"])
def test_transfer_end_that_does_not_exit_times_out(source: pathlib.Path, staging: pathlib.Path, end: str) -> None:
    (source / "weights").write_bytes(b"bytes")
    # It keeps no pipe open, so the other end does not notice.
    stays = Wrapped(None, wrapper=("sh", "-c", '"$@"; exec sleep 3600 < /dev/null > /dev/null', "sh"))
    result = run_transfer(source, staging, "weights", timeout=1, **{f"at_{end}": stays})
    assert result.returncode == 30
    assert result.transient


def test_transfer_without_pipe_capacity_succeeds(
    source: pathlib.Path, staging: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(relay.fcntl, "fcntl", refused)
    (source / "weights").write_bytes(b"bytes")
    assert run_transfer(source, staging, "weights").returncode == 0


@pytest.mark.parametrize("name", ["m[12]", "m?", "m*", "m[1\\]", "m\\1"])
def test_transfer_source_directory_with_wildcards_is_literal(tmp_path: pathlib.Path, staging: pathlib.Path, name: str) -> None:
    for directory in ("m1", name):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "weights").write_text(directory)
    assert run_transfer(tmp_path / name, staging, "weights").returncode == 0
    assert (staging / "weights").read_text() == name


def test_transfer_missing_file_is_named(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "there").write_text("there")
    result = run_transfer(source, staging, "there", "missing")
    assert result.returncode == 23
    assert not result.transient
    assert f'link_stat "{source}/missing" failed' in result.reason(30)
    assert_arrived(source, staging, "there")


def test_transfer_missing_source_directory_is_named(source: pathlib.Path, staging: pathlib.Path) -> None:
    result = run_transfer(source / "missing", staging, "file")
    assert result.returncode == 23
    assert f"{source}/missing" in result.reason(30)


def test_transfer_missing_staging_directory_is_named(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "file").write_text("bytes")
    result = run_transfer(source, staging / "not" / "there", "file")
    assert result.returncode == 11
    assert not result.transient
    assert f"{staging}/not/there" in result.reason(30)


def test_transfer_full_file_system_is_reported(source: pathlib.Path, file_system: t.Callable[[str], pathlib.Path]) -> None:
    (source / "weights").write_bytes(os.urandom(2 * MIB))
    result = run_transfer(source, file_system("size=1m"), "weights")
    assert result.returncode == 11
    assert not result.transient
    assert result.reason(30).startswith("the node's file system has no space or inodes left: ")
    assert "No space left on device" in result.reason(30)


def test_transfer_without_free_inodes_is_reported(source: pathlib.Path, file_system: t.Callable[[str], pathlib.Path]) -> None:
    (source / "weights").write_bytes(b"bytes")
    # The root directory takes the one inode.
    result = run_transfer(source, file_system("nr_inodes=1"), "weights")
    assert result.returncode == 23
    assert not result.transient
    assert result.reason(30).startswith("the node's file system has no space or inodes left: ")


def test_transfer_host_without_rsync_is_reported(source: pathlib.Path, staging: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (source / "file").write_text("bytes")
    (tmp_path / "bin").mkdir()
    for program in ("env", "sh", "cat", "flock"):
        (tmp_path / "bin" / program).symlink_to(str(shutil.which(program)))
    bare = Wrapped(None, wrapper=("env", f"PATH={tmp_path}/bin"))
    for ends in ({"at_node": bare}, {"at_source": bare}):
        result = run_transfer(source, staging, "file", **ends)
        assert result.returncode == 127
        assert (result.source_rsync is None) == result.at_source == (ends.keys() == {"at_source"})
    assert os.listdir(staging) == []


def test_transfer_symlinks_are_neither_sent_nor_followed(
    source: pathlib.Path, staging: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "secret").write_text("secret of the source")
    (tmp_path / "victim").write_text("kept")
    (source / "link").symlink_to(tmp_path / "secret")
    (source / "plain").write_text("bytes")
    (staging / "plain").symlink_to(tmp_path / "victim")
    result = run_transfer(source, staging, "link", "plain")
    assert result.returncode == 0
    assert_arrived(source, staging, "plain")
    assert not (staging / "plain").is_symlink()
    assert (tmp_path / "victim").read_text() == "kept"


def test_transfer_read_only_file_is_staged_writable(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "file").write_text("bytes")
    (source / "file").chmod(0o444)
    assert run_transfer(source, staging, "file").returncode == 0
    assert stat.S_IMODE((staging / "file").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RSYNC_OLD_ARGS", "1"),
        ("RSYNC_PROTECT_ARGS", "0"),
        ("RSYNC_RSH", "false"),
        ("RSYNC_PARTIAL_DIR", ".partial"),
        ("RSYNC_CHECKSUM_LIST", "none-such"),
        ("RSYNC_ICONV", "utf-8,latin1"),
        ("RSYNC_MAX_ALLOC", "nonsense"),
        ("RSYNC_COMPRESS_LIST", "lz4"),
        ("LC_ALL", "de_DE.UTF-8"),
    ],
)
def test_transfer_rsync_variables_of_environment_are_ignored(
    tmp_path: pathlib.Path, staging: pathlib.Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    # With old arguments, a shell at the source would split this name.
    source = tmp_path / "two words"
    source.mkdir()
    (source / "weights").write_bytes(os.urandom(MIB))
    (staging / "weights").write_bytes((source / "weights").read_bytes()[: MIB // 2])
    monkeypatch.setenv(variable, value)
    result = run_transfer(source, staging, "weights", compress=variable == "RSYNC_COMPRESS_LIST")
    assert result.returncode == 0
    assert MIB // 2 <= result.received <= MIB // 2 + 65536
    assert_arrived(source, staging, "weights")


def test_transfer_result_has_commands_of_both_ends(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "file").write_text("bytes")
    at_node, at_source = run_transfer(source, staging, "file", bwlimit="20M").commands
    assert at_node[0] == "sh"
    assert "--bwlimit=20M" in at_node
    assert at_node[-2:] == ["source:file", f"{staging}/"]
    assert at_source[-2:] == [".", f"{source}/file"]


def test_transfer_with_compress_receives_fewer_bytes(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "tokenizer.json").write_bytes(b"".join(b'"token %d": %d,' % (number, number) for number in range(50000)))
    size = (source / "tokenizer.json").stat().st_size
    assert run_transfer(source, staging, "tokenizer.json").received >= size
    (staging / "tokenizer.json").unlink()
    result = run_transfer(source, staging, "tokenizer.json", compress=True)
    assert result.source_rsync is not None
    if not result.source_rsync.zstd:
        pytest.skip("this machine's rsync has no zstd")
    assert result.returncode == 0
    assert result.received < size / 2
    assert_arrived(source, staging, "tokenizer.json")


@pytest.mark.parametrize("remote", [("node",), ("source",), ("source", "node")], ids="+".join)
def test_transfer_over_ssh_resumes(sshd: Server, tmp_path: pathlib.Path, remote: tuple[str, ...]) -> None:
    over_ssh = End(sshd.options())
    source, staging = tmp_path / "it's the source", tmp_path / "the staging"
    source.mkdir()
    staging.mkdir()
    data = os.urandom(4 * MIB)
    (source / "adapter_model.safetensors").write_bytes(data)
    (source / "adapter_config.json").write_bytes(b"{}")
    (staging / "adapter_model.safetensors").write_bytes(data[: 3 * MIB])
    result = run_transfer(
        source,
        staging,
        "adapter_config.json",
        "adapter_model.safetensors",
        at_source=over_ssh if "source" in remote else LOCAL,
        at_node=over_ssh if "node" in remote else LOCAL,
    )
    assert result.returncode == 0, result.stderr
    assert_arrived(source, staging, "adapter_config.json", "adapter_model.safetensors")
    assert MIB <= result.received <= 1.2 * MIB
    assert [command[0] == "ssh" for command in result.commands] == ["node" in remote, "source" in remote]


@dataclasses.dataclass(frozen=True)
class Flooding(End):
    """A host that prints messages without end before its command."""

    def argv(self, command: t.Any) -> list[str]:
        return super().argv(["sh", "-c", 'yes "a message" >&2; exec "$@"', "sh", *command])


@pytest.mark.parametrize("remote", ["node", "source"])
@pytest.mark.parametrize("shared", [False, True], ids=["own connection", "shared connection"])
def test_transfer_messages_without_end_are_given_up(
    sshd: Server, source: pathlib.Path, staging: pathlib.Path, monkeypatch: pytest.MonkeyPatch, remote: str, shared: bool
) -> None:
    monkeypatch.setattr(relay, "_MAX_MESSAGES", MIB)
    size_of, sizes = relay._size, list[int]()
    monkeypatch.setattr(relay, "_size", lambda stream: sizes.append(size_of(stream)) or sizes[-1])
    (source / "weights").write_bytes(b"bytes")
    with tempfile.TemporaryDirectory() as sockets:
        flooding = Flooding(sshd.options(), f"{sockets}/socket" if shared else "none")
        result = run_transfer(source, staging, "weights", **{f"at_{remote}": flooding})
        flooding.close()
    assert (result.returncode, result.transient) == (FLOOD, False)
    assert documented("messages without end").match(f"x: {result.reason(30)}.")
    assert max(sizes) == MIB
    assert len(result.stderr) < MIB


@pytest.mark.parametrize("remote", ["node", "source"])
def test_transfer_changed_host_key_is_refused(
    sshd: Server, source: pathlib.Path, staging: pathlib.Path, tmp_path: pathlib.Path, remote: str
) -> None:
    kind, _key = (sshd.private_key.with_suffix(".pub")).read_text().split()[:2]
    another = (sshd.private_key.with_suffix(".pub")).read_text().split()[1]
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {kind} {another}\n")
    result = _over_ssh_at(remote, sshd, source, staging, tmp_path / "known_hosts", "-o StrictHostKeyChecking=no")
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in result.stderr


@pytest.mark.parametrize("remote", ["node", "source"])
def test_transfer_unknown_host_key_is_refused(
    sshd: Server, source: pathlib.Path, staging: pathlib.Path, tmp_path: pathlib.Path, remote: str
) -> None:
    (tmp_path / "known_hosts").touch()
    result = _over_ssh_at(remote, sshd, source, staging, tmp_path / "known_hosts", "-o StrictHostKeyChecking=accept-new")
    assert "Host key verification failed" in result.reason(30)
    assert (tmp_path / "known_hosts").read_text() == ""


def _over_ssh_at(
    remote: str, sshd: Server, source: pathlib.Path, staging: pathlib.Path, known_hosts: pathlib.Path, weakened: str
) -> TransferResult:
    """A transfer with a wrong host key at one end, where the user's arguments weaken the check."""
    (source / "file").write_text("bytes")
    arguments = f"-F none -o IdentitiesOnly=yes -o UserKnownHostsFile={known_hosts} -o GlobalKnownHostsFile=/dev/null {weakened}"
    over_ssh = End(sshd.options(ssh_common_args=arguments, ssh_args=weakened))
    result = run_transfer(source, staging, "file", **{"at_node" if remote == "node" else "at_source": over_ssh})
    assert result.returncode == 255
    assert result.reason(30).startswith("an ssh connection failed: ")
    assert os.listdir(staging) == []
    return result


FAKE_SUDO = """\
#!/bin/sh
prompt=; while [ $# -gt 1 ]; do test "$1" != -p || prompt=$2; shift; done
echo "Welcome to {host}"; printf %s "$prompt" >&2; read -r word; test "$word" = "password of {host}" || exit 1
eval "$1"
"""


def becoming(directory: pathlib.Path, host: str, password: str = "") -> End:
    """An end whose sudo prints a line and wants the password of its host."""
    program = directory / f"sudo-{host}"
    program.write_text(FAKE_SUDO.format(host=host), encoding="utf-8")
    program.chmod(0o755)
    plugin, shell = become_loader.get("sudo"), shell_loader.get("sh")
    given = {"ansible_become_exe": str(program), "ansible_become_password": password or f"password of {host}"}
    plugin.set_options(var_options=given)
    shell.executable = "/bin/sh"
    return End(None, become=Become(Account(host, "deploy", "root", "sudo"), plugin, shell))


@pytest.mark.parametrize("becomes", [("source",), ("node",), ("source", "node")], ids="+".join)
def test_transfer_with_become_passes_passwords_and_nothing_else(
    source: pathlib.Path, staging: pathlib.Path, tmp_path: pathlib.Path, becomes: tuple[str, ...]
) -> None:
    (source / "weights").write_bytes(os.urandom(4 * MIB))
    (staging / "weights").write_bytes((source / "weights").read_bytes()[: 3 * MIB])
    ends = {f"at_{end}": becoming(tmp_path, end) for end in becomes}
    result = run_transfer(source, staging, "weights", **ends)
    assert (result.returncode, result.stderr) == (0, "")
    assert_arrived(source, staging, "weights")
    assert result.source_rsync is not None
    assert MIB <= result.received <= 1.2 * MIB
    assert "password of" not in str(result)


@pytest.mark.parametrize("refuses", ["source", "node"])
def test_transfer_refused_by_one_of_two_becomes_writes_nothing(
    source: pathlib.Path, staging: pathlib.Path, tmp_path: pathlib.Path, refuses: str
) -> None:
    (source / "weights").write_bytes(b"bytes")
    ends = {f"at_{end}": becoming(tmp_path, end, "wrong" if end == refuses else "") for end in ("source", "node")}
    with pytest.raises(DeliveryError, match=rf"^{refuses}: as user deploy becoming root by sudo, sudo refused the command"):
        run_transfer(source, staging, "weights", **ends)
    assert os.listdir(staging) == []


def test_transfer_with_become_and_killed_source_ends(source: pathlib.Path, staging: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (source / "weights").write_bytes(os.urandom(4 * MIB))
    at_source = becoming(tmp_path, "source")
    assert at_source.become is not None
    broken = failing_after(MIB, "break").wrapper

    class Broken(Become):
        def argv(self, command: t.Any) -> list[str]:
            return super().argv([*broken, *command])

    become = Broken(at_source.become.account, at_source.become.plugin, at_source.become.shell)
    result = run_transfer(source, staging, "weights", at_source=End(None, become=become), at_node=becoming(tmp_path, "node"))
    assert (result.returncode, result.transient) == (12, True)
