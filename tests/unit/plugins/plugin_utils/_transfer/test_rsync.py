# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rsync command lines, and the reasons given for a failed transfer."""

from __future__ import annotations

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.rsync import (
    Offer,
    TransferOptions,
    TransferResult,
    client_command,
    failure_reason,
    server_command,
)

UNSET = [
    f"RSYNC_{name}"
    for name in (
        *("OLD_ARGS", "PROTECT_ARGS", "RSH", "PARTIAL_DIR", "ICONV"),
        *("CHECKSUM_LIST", "COMPRESS_LIST", "MAX_ALLOC"),
    )
]
CLEAN = ["env", *(word for name in UNSET for word in ("-u", name)), "LC_ALL=C"]


def test_client_command_unsets_variables_and_names_files() -> None:
    arguments = client_command(["a.json", "[b]"], "/store/lora/staging/0f", TransferOptions(60))
    assert arguments[:2] == ["sh", "-c"]
    *options, _rsh, join, first, second, target = arguments[3:]
    assert options == [
        "/store/lora/staging/0f",
        "0",
        "unlimited",
        *CLEAN,
        *("rsync", "--no-whole-file", "--ignore-times", "--blocking-io"),
        *("--no-links", "--no-devices", "--no-specials", "--no-perms", "--chmod=F600", "--no-owner", "--no-group"),
        *("--inplace", "--timeout=60"),
    ]
    assert join.startswith("sh -c ")
    assert (first, second) == ("source:a.json", "source:\\[b]")
    assert target == "/store/lora/staging/0f/"


@pytest.mark.parametrize(("largest", "blocks"), [(0, 2048), (1 << 20, 2048), ((1 << 20) + 1, 2049), (350_000_000, 683_594)])
def test_client_command_limits_files_to_the_largest_described_size(largest: int, blocks: int) -> None:
    arguments = client_command(["a"], "/store/lora/staging/0f", TransferOptions(60), offer=Offer(largest, 2 * largest))
    assert arguments[5] == str(blocks)


@pytest.mark.parametrize(("version", "features"), [("3.5.0", ["-e.LsfxCIvu"]), ("3.2.2", []), ("3.1.3", []), ("unknown", [])])
def test_server_command_has_all_options_and_files(version: str, features: list[str]) -> None:
    command = server_command(["a.json", "-b"], "/home/models/lora", TransferOptions(60, node_rsync=version))
    assert command[: len(CLEAN)] == CLEAN
    server = command[command.index("rsync") :]
    common = ["rsync", "--server", "--sender", *features, "--msgs2stderr", "--inplace", "--timeout=60", "."]
    assert server == [*common, "/home/models/lora/a.json", "/home/models/lora/-b"]


def test_server_command_below_home_directory_has_no_name_that_is_an_option() -> None:
    assert server_command(["a"], "-x", TransferOptions(60))[-2:] == [".", "./-x/a"]


def test_commands_with_limit_and_compression_have_their_options_at_both_ends() -> None:
    plain, limited = TransferOptions(60), TransferOptions(60, "20M", compress=True)
    added = {"--bwlimit=20M", "--compress", "--compress-choice=zstd", "--compress-level=1"}
    for command in (
        lambda options: client_command(["a"], "/store/lora/staging/0f", options),
        lambda options: server_command(["a"], "/home/models/lora", options),
    ):
        assert set(command(limited)) - set(command(plain)) == added


@pytest.mark.parametrize("code", [-9, 137])
def test_transfer_result_of_killed_end_is_transient(code: int) -> None:
    killed = TransferResult(code, 0, "", ([], []))
    assert killed.transient
    assert killed.reason(30) == "rsync ended with signal 9"


def test_failure_reason_distinguishes_own_receiver_from_another_run() -> None:
    stalled, busy = (TransferResult(code, 0, "", ([], [])) for code in (30, 75))
    assert failure_reason([busy], 30) == "another run is still writing to the staging directory"
    timed_out = "no data for 30 seconds, or only rsync keepalives for 300"
    assert failure_reason([busy, stalled], 30) == timed_out
    assert failure_reason([stalled, busy], 30).startswith(
        f"{timed_out}, and the rsync that it started on the node is still running"
    )
