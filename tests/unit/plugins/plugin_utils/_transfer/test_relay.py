# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real transfers by the rsync of this machine: between local directories, and over a real ssh server."""

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
import time
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer import relay
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import (
    End,
    Outcome,
    Way,
    client_command,
    server_command,
    transfer,
    why,
)

from tests.support.sshd import Server

pytestmark = pytest.mark.skipif(shutil.which("rsync") is None, reason="no rsync on this machine")

LOCAL = End(None)
LIMIT = 60
MIB = 1 << 20
HOSTILE = [
    f"RSYNC_{name}"
    for name in (
        *("OLD_ARGS", "PROTECT_ARGS", "RSH", "PARTIAL_DIR", "ICONV"),
        *("CHECKSUM_LIST", "COMPRESS_LIST", "MAX_ALLOC"),
    )
]


@dataclasses.dataclass(frozen=True)
class Wrapped(End):
    """An end whose command is started by another, which breaks it in one way or another."""

    wrapper: tuple[str, ...] = ()

    def argv(self, command: t.Any) -> list[str]:
        return [*self.wrapper, *super().argv(command)]


FAILING_SOURCE = """\
import os, subprocess, sys, time
left, then = int(sys.argv[1]), sys.argv[2]
rsync = subprocess.Popen(sys.argv[3:], stdout=subprocess.PIPE)
while left:
    block = os.read(rsync.stdout.fileno(), min(left, 1 << 16))
    left -= len(block)
    while block:
        block = block[os.write(1, block):]
if then == "break":
    rsync.kill()
while then == "keep alive":
    # rsync's message without content.
    os.write(1, b"\\0\\0\\0\\x31")
    time.sleep(0.1)
rsync.wait()
"""


def failing_after(count: int, then: str) -> Wrapped:
    """A source whose connection gives so many bytes, and then breaks, stalls, or says only that it is alive."""
    return Wrapped(None, wrapper=(sys.executable, "-c", FAILING_SOURCE, str(count), then))


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def staging(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "staging").mkdir(0o700)
    return tmp_path / "staging"


def bring(
    source: pathlib.Path,
    staging: pathlib.Path,
    *names: str,
    at_source: End = LOCAL,
    at_node: End = LOCAL,
    timeout: int = 30,
    wait: int = 0,
    **how: t.Any,
) -> Outcome:
    """A transfer that cannot wait for ever: what hangs is killed, and the test fails."""
    progress = how.pop("progress", lambda count: None)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        before = _children()
        way = Way(timeout, **how)
        running = pool.submit(transfer, at_source, at_node, names, str(source), str(staging), way, progress, wait)
        try:
            return running.result(LIMIT)
        except concurrent.futures.TimeoutError:
            for child in _children() - before:
                os.kill(child, signal.SIGKILL)
            raise


def _children() -> set[int]:
    found: set[int] = set()
    for task in pathlib.Path("/proc/self/task").iterdir():
        # A thread may end while it is looked at.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(int(number) for number in (task / "children").read_text().split())
    return found


def _processes_with(argument: str) -> set[int]:
    """Processes that have an argument of that very text, which is unique to a test."""
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


def test_brings_the_files_that_are_asked_for_and_no_others(source: pathlib.Path, staging: pathlib.Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        (source / name).write_bytes(os.urandom(MIB))
    outcome = bring(source, staging, "adapter_config.json", "adapter_model.safetensors")
    assert outcome.returncode == 0
    assert 2 * MIB <= outcome.received <= 2 * MIB + 65536
    assert not outcome.messages
    assert_arrived(source, staging, "adapter_config.json", "adapter_model.safetensors")


def test_tells_of_every_byte_on_its_way(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "weights").write_bytes(os.urandom(4 * MIB))
    told: list[int] = []
    outcome = bring(source, staging, "weights", progress=told.append)
    assert len(told) > 4
    assert sum(told) == outcome.received


def test_brings_an_empty_file(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "merges.txt").touch()
    assert bring(source, staging, "merges.txt").returncode == 0
    assert_arrived(source, staging, "merges.txt")


def test_odd_yet_valid_names(source: pathlib.Path, staging: pathlib.Path) -> None:
    names = ["a", "0", "a..b", "a-", "a_", "CON", "a" * 128, "x.tar.gz", "source-x", "A.B-c_d"]
    for name in names:
        (source / name).write_text(name)
    assert bring(source, staging, *names).returncode == 0
    assert_arrived(source, staging, *names)


def test_directories_with_spaces_and_quotes(tmp_path: pathlib.Path) -> None:
    source, staging = tmp_path / 'it\'s a $HOME; "source"', tmp_path / "the node's staging"
    source.mkdir()
    staging.mkdir()
    (source / "file").write_bytes(b"bytes")
    assert bring(source, staging, "file").returncode == 0
    assert_arrived(source, staging, "file")


def test_goes_on_where_the_last_one_stopped(source: pathlib.Path, staging: pathlib.Path) -> None:
    data = os.urandom(8 * MIB)
    (source / "weights").write_bytes(data)
    (staging / "weights").write_bytes(data[: 5 * MIB])
    outcome = bring(source, staging, "weights")
    assert outcome.returncode == 0
    assert_arrived(source, staging, "weights")
    assert 3 * MIB <= outcome.received <= 1.02 * 3 * MIB


def test_the_same_size_and_time_does_not_mean_the_same_bytes(source: pathlib.Path, staging: pathlib.Path) -> None:
    # As a retrained adapter is.
    for directory, data in ((source, os.urandom(MIB)), (staging, os.urandom(MIB))):
        (directory / "weights").write_bytes(data)
        os.utime(directory / "weights", (1_700_000_000, 1_700_000_000))
    assert bring(source, staging, "weights").returncode == 0
    assert_arrived(source, staging, "weights")


def test_what_is_too_long_is_cut(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "weights").write_bytes(b"short")
    (staging / "weights").write_bytes(os.urandom(MIB))
    assert bring(source, staging, "weights").returncode == 0
    assert_arrived(source, staging, "weights")


def test_a_broken_connection_is_gone_on_from(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "weights").write_bytes(os.urandom(16 * MIB))
    broken = bring(source, staging, "weights", at_source=failing_after(10 * MIB, "break"))
    assert broken.returncode == 12
    assert broken.passing
    assert broken.reason(30).startswith("the connection between the two ends broke: ")
    begun = (staging / "weights").stat().st_size
    assert 0 < begun < 16 * MIB
    outcome = bring(source, staging, "weights")
    assert outcome.returncode == 0
    assert_arrived(source, staging, "weights")
    assert outcome.received <= 1.02 * (16 * MIB - begun)


def test_a_killed_receiver_is_gone_on_from(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "weights").write_bytes(os.urandom(16 * MIB))
    begun = staging / "weights"
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(bring, source, staging, "weights", at_source=failing_after(10 * MIB, "stall"))
        deadline = time.monotonic() + LIMIT
        while not (begun.exists() and begun.stat().st_size):
            assert time.monotonic() < deadline
        receivers = _processes_with(f"{staging}/")
        client = receivers & _children()
        assert client
        # The client first: it would report what became of the others, and they end by themselves without it.
        for receiver in [*client, *(receivers - client)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(receiver, signal.SIGKILL)
        killed = running.result(LIMIT)
    assert killed.returncode == -signal.SIGKILL
    assert killed.passing
    assert killed.reason(30).startswith("rsync ended with signal 9")
    kept = begun.stat().st_size
    assert 0 < kept < 16 * MIB
    outcome = bring(source, staging, "weights")
    assert outcome.returncode == 0
    assert_arrived(source, staging, "weights")
    assert outcome.received <= 1.02 * (16 * MIB - kept)


KILLED_AT_ONCE = """\
#!{python}
import os, shlex, signal, subprocess, sys
rsh = shlex.split(sys.argv[sys.argv.index("--rsh") + 1])
subprocess.Popen([*rsh, "source"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_source_does_not_wait_for_a_client_that_was_killed(
    source: pathlib.Path, staging: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    # Killed before it has said anything: the source knows of no time limit yet.
    (source / "weights").write_bytes(b"bytes")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rsync").write_text(KILLED_AT_ONCE.format(python=sys.executable))
    (tmp_path / "bin" / "rsync").chmod(0o755)
    node = Wrapped(None, wrapper=("env", f"PATH={tmp_path}/bin:{os.environ['PATH']}"))
    assert bring(source, staging, "weights", at_node=node, timeout=3600).returncode == -signal.SIGKILL


def test_two_receivers_never_write_to_one_directory(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "weights").write_bytes(b"bytes")
    descriptor = os.open(staging, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        outcome = bring(source, staging, "weights")
    finally:
        os.close(descriptor)
    assert outcome.returncode == 75
    assert not outcome.passing
    # The source was asked for nothing, which it complains about; that is not what happened.
    assert outcome.reason(30) == "another run is still writing there"
    assert os.listdir(staging) == []
    assert bring(source, staging, "weights").returncode == 0


def test_another_try_waits_until_an_earlier_receiver_has_left(
    source: pathlib.Path, staging: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (source / "weights").write_bytes(b"bytes")
    os.mkfifo(tmp_path / "leave")
    # The earlier one holds its lock until the other has come.
    earlier = subprocess.Popen(
        ["flock", str(staging), "sh", "-c", 'echo; cat "$0"', str(tmp_path / "leave")], stdout=subprocess.PIPE
    )
    assert earlier.stdout
    earlier.stdout.readline()
    node = Wrapped(None, wrapper=("sh", "-c", 'echo > "$0"; exec "$@"', str(tmp_path / "leave")))
    assert bring(source, staging, "weights", at_node=node, wait=LIMIT // 2).returncode == 0
    earlier.communicate()
    assert_arrived(source, staging, "weights")


@pytest.mark.parametrize("code", [-9, 137])
def test_a_killed_end_is_known_here_and_behind_a_shell(code: int) -> None:
    killed = Outcome(code, 0, "", ([], []))
    assert killed.passing
    assert killed.reason(30) == "rsync ended with signal 9"


def test_a_receiver_of_an_earlier_try_that_does_not_end_is_told_from_another_run() -> None:
    stalled, busy = (Outcome(code, 0, "", ([], [])) for code in (30, 75))
    assert why([busy], 30) == "another run is still writing there"
    stood_still = "no byte came for 30 seconds, or nothing but signs of life for 300"
    assert why([busy, stalled], 30) == stood_still
    assert why([stalled, busy], 30).startswith(f"{stood_still}, and what was started on the node for it still runs")


def test_a_silent_source_is_given_up(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "weights").write_bytes(os.urandom(MIB))
    outcome = bring(source, staging, "weights", at_source=failing_after(MIB // 2, "stall"), timeout=1)
    assert outcome.returncode == 30
    assert outcome.passing
    assert outcome.reason(1).startswith("no byte came for 1 seconds")


def test_signs_of_life_are_no_progress(source: pathlib.Path, staging: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_PATIENCE", 2)
    (source / "weights").write_bytes(os.urandom(MIB))
    outcome = bring(source, staging, "weights", at_source=failing_after(MIB // 2, "keep alive"), timeout=2)
    assert outcome.returncode == 30
    assert "io timeout" not in outcome.messages
    assert outcome.reason(2).startswith("no byte came for 2 seconds, or nothing but signs of life for 4")


@pytest.mark.parametrize("end", ["node", "source"])
def test_an_end_that_stays_when_all_is_done_is_left(source: pathlib.Path, staging: pathlib.Path, end: str) -> None:
    (source / "weights").write_bytes(b"bytes")
    # It keeps nobody's pipe open, so that the other end sees nothing of it.
    stays = Wrapped(None, wrapper=("sh", "-c", '"$@"; exec sleep 3600 < /dev/null > /dev/null', "sh"))
    outcome = bring(source, staging, "weights", timeout=1, **{f"at_{end}": stays})
    assert outcome.returncode == 30
    assert outcome.passing


def test_a_user_who_has_used_up_the_pipes(source: pathlib.Path, staging: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(relay.fcntl, "fcntl", refused)
    (source / "weights").write_bytes(b"bytes")
    assert bring(source, staging, "weights").returncode == 0


@pytest.mark.parametrize("name", ["m[12]", "m?", "m*", "m[1\\]", "m\\1"])
def test_a_source_directory_with_wildcards_is_that_one_alone(tmp_path: pathlib.Path, staging: pathlib.Path, name: str) -> None:
    for directory in ("m1", name):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "weights").write_text(directory)
    assert bring(tmp_path / name, staging, "weights").returncode == 0
    assert (staging / "weights").read_text() == name


def test_a_missing_file_is_named(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "there").write_text("there")
    outcome = bring(source, staging, "there", "missing")
    assert outcome.returncode == 23
    assert not outcome.passing
    assert f'link_stat "{source}/missing" failed' in outcome.reason(30)
    assert_arrived(source, staging, "there")


def test_a_missing_source_directory_is_named(source: pathlib.Path, staging: pathlib.Path) -> None:
    outcome = bring(source / "missing", staging, "file")
    assert outcome.returncode == 23
    assert f"{source}/missing" in outcome.reason(30)


def test_a_missing_staging_directory_is_named(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "file").write_text("bytes")
    outcome = bring(source, staging / "not" / "there", "file")
    assert outcome.returncode == 11
    assert not outcome.passing
    assert f"{staging}/not/there" in outcome.reason(30)


def test_a_full_disk_is_said_to_be_one(source: pathlib.Path, file_system: t.Callable[[str], pathlib.Path]) -> None:
    (source / "weights").write_bytes(os.urandom(2 * MIB))
    outcome = bring(source, file_system("size=1m"), "weights")
    assert outcome.returncode == 11
    assert not outcome.passing
    assert outcome.reason(30).startswith("the node's file system has no space left, or no inodes: ")
    assert "No space left on device" in outcome.reason(30)


def test_no_inodes_are_said_to_be_none(source: pathlib.Path, file_system: t.Callable[[str], pathlib.Path]) -> None:
    (source / "weights").write_bytes(b"bytes")
    # One inode is the file system's own directory.
    outcome = bring(source, file_system("nr_inodes=1"), "weights")
    assert outcome.returncode == 23
    assert not outcome.passing
    assert outcome.reason(30).startswith("the node's file system has no space left, or no inodes: ")


def test_a_host_without_rsync(source: pathlib.Path, staging: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (source / "file").write_text("bytes")
    (tmp_path / "bin").mkdir()
    for program in ("env", "sh", "cat", "flock"):
        (tmp_path / "bin" / program).symlink_to(str(shutil.which(program)))
    bare = Wrapped(None, wrapper=("env", f"PATH={tmp_path}/bin"))
    for ends in ({"at_node": bare}, {"at_source": bare}):
        outcome = bring(source, staging, "file", **ends)
        assert outcome.returncode == 127
        assert (outcome.source is None) == (ends.keys() == {"at_source"})
        assert outcome.reason(30).startswith("there is no rsync, or no flock, on one of the two hosts")
    assert os.listdir(staging) == []


def test_links_never_travel_and_none_is_written_through(
    source: pathlib.Path, staging: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "secret").write_text("secret of the source")
    (tmp_path / "victim").write_text("kept")
    (source / "link").symlink_to(tmp_path / "secret")
    (source / "plain").write_text("bytes")
    (staging / "plain").symlink_to(tmp_path / "victim")
    outcome = bring(source, staging, "link", "plain")
    assert outcome.returncode == 0
    assert_arrived(source, staging, "plain")
    assert not (staging / "plain").is_symlink()
    assert (tmp_path / "victim").read_text() == "kept"


def test_a_read_only_file_stays_writable_while_it_is_staged(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "file").write_text("bytes")
    (source / "file").chmod(0o444)
    assert bring(source, staging, "file").returncode == 0
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
def test_the_environment_changes_nothing(
    tmp_path: pathlib.Path, staging: pathlib.Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    # With old arguments, a shell at the source would take this name apart.
    source = tmp_path / "two words"
    source.mkdir()
    (source / "weights").write_bytes(os.urandom(MIB))
    (staging / "weights").write_bytes((source / "weights").read_bytes()[: MIB // 2])
    monkeypatch.setenv(variable, value)
    outcome = bring(source, staging, "weights", compress=variable == "RSYNC_COMPRESS_LIST")
    assert outcome.returncode == 0
    assert MIB // 2 <= outcome.received <= MIB // 2 + 65536
    assert_arrived(source, staging, "weights")


def test_what_rsync_is_told() -> None:
    clean = ["env", *(word for name in HOSTILE for word in ("-u", name)), "LC_ALL=C"]
    shell, arguments = ["sh", "-c"], client_command(["a.json", "b"], "/home/models/lora", "/store/lora/staging/0f", Way(60))
    assert arguments[:2] == shell
    *options, _rsh, join, first, second, target = arguments[3:]
    assert options == [
        "/store/lora/staging/0f",
        "0",
        *clean,
        *("rsync", "-s", "--inplace", "--no-whole-file", "--ignore-times", "--blocking-io"),
        *("--no-links", "--no-devices", "--no-specials", "--no-perms", "--chmod=F600", "--no-owner", "--no-group"),
        "--timeout=60",
    ]
    assert join.startswith("sh -c ")
    assert (first, second) == ("source:/home/models/lora/a.json", "source:/home/models/lora/b")
    assert target == "/store/lora/staging/0f/"
    assert server_command()[:-8] == clean
    assert server_command()[-4:] == ["rsync", "--server", "--sender", "-s"]
    more = set(client_command(["a.json", "b"], "/home/models/lora", "/store/lora/staging/0f", Way(60, "20M", compress=True)))
    assert more - set(arguments) == {"--bwlimit=20M", "--compress", "--compress-choice=zstd", "--compress-level=1"}


def test_the_commands_are_reported_as_they_were_run(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "file").write_text("bytes")
    at_node, at_source = bring(source, staging, "file", bwlimit="20M").commands
    assert at_node[0] == "sh"
    assert "--bwlimit=20M" in at_node
    assert f"source:{source}/file" in at_node
    assert at_node[-1] == f"{staging}/"
    assert at_source[-4:] == ["rsync", "--server", "--sender", "-s"]


def test_compressed_where_that_is_asked_for(source: pathlib.Path, staging: pathlib.Path) -> None:
    (source / "tokenizer.json").write_bytes(b"".join(b'"token %d": %d,' % (number, number) for number in range(50000)))
    size = (source / "tokenizer.json").stat().st_size
    assert bring(source, staging, "tokenizer.json").received >= size
    (staging / "tokenizer.json").unlink()
    outcome = bring(source, staging, "tokenizer.json", compress=True)
    assert outcome.source is not None
    if not outcome.source.zstd:
        pytest.skip("this machine's rsync has no zstd")
    assert outcome.returncode == 0
    assert outcome.received < size / 2
    assert_arrived(source, staging, "tokenizer.json")


@pytest.mark.parametrize("remote", [("node",), ("source",), ("source", "node")], ids="+".join)
def test_over_ssh(sshd: Server, tmp_path: pathlib.Path, remote: tuple[str, ...]) -> None:
    over_ssh = End(sshd.options())
    source, staging = tmp_path / "it's the source", tmp_path / "the staging"
    source.mkdir()
    staging.mkdir()
    data = os.urandom(4 * MIB)
    (source / "adapter_model.safetensors").write_bytes(data)
    (source / "adapter_config.json").write_bytes(b"{}")
    (staging / "adapter_model.safetensors").write_bytes(data[: 3 * MIB])
    outcome = bring(
        source,
        staging,
        "adapter_config.json",
        "adapter_model.safetensors",
        at_source=over_ssh if "source" in remote else LOCAL,
        at_node=over_ssh if "node" in remote else LOCAL,
    )
    assert outcome.returncode == 0, outcome.messages
    assert_arrived(source, staging, "adapter_config.json", "adapter_model.safetensors")
    assert MIB <= outcome.received <= 1.2 * MIB
    assert [command[0] == "ssh" for command in outcome.commands] == ["node" in remote, "source" in remote]


@pytest.mark.parametrize("remote", ["node", "source"])
def test_a_wrong_host_key_is_refused(
    sshd: Server, source: pathlib.Path, staging: pathlib.Path, tmp_path: pathlib.Path, remote: str
) -> None:
    kind, _key = (sshd.private_key.with_suffix(".pub")).read_text().split()[:2]
    another = (sshd.private_key.with_suffix(".pub")).read_text().split()[1]
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {kind} {another}\n")
    outcome = _over_ssh_at(remote, sshd, source, staging, tmp_path / "known_hosts", "-o StrictHostKeyChecking=no")
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in outcome.messages


@pytest.mark.parametrize("remote", ["node", "source"])
def test_an_unknown_host_key_is_refused(
    sshd: Server, source: pathlib.Path, staging: pathlib.Path, tmp_path: pathlib.Path, remote: str
) -> None:
    (tmp_path / "known_hosts").touch()
    outcome = _over_ssh_at(remote, sshd, source, staging, tmp_path / "known_hosts", "-o StrictHostKeyChecking=accept-new")
    assert "Host key verification failed" in outcome.reason(30)
    assert (tmp_path / "known_hosts").read_text() == ""


def _over_ssh_at(
    remote: str, sshd: Server, source: pathlib.Path, staging: pathlib.Path, known_hosts: pathlib.Path, weakened: str
) -> Outcome:
    """The outcome at an ssh server whose key is not the known one, however much the user weakens the check."""
    (source / "file").write_text("bytes")
    arguments = f"-F none -o IdentitiesOnly=yes -o UserKnownHostsFile={known_hosts} -o GlobalKnownHostsFile=/dev/null {weakened}"
    over_ssh = End(sshd.options(ssh_common_args=arguments, ssh_args=weakened))
    outcome = bring(source, staging, "file", **{"at_node" if remote == "node" else "at_source": over_ssh})
    assert outcome.returncode == 255
    assert outcome.reason(30).startswith("an ssh connection failed: ")
    assert os.listdir(staging) == []
    return outcome
