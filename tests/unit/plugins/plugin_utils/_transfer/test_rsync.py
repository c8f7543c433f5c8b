# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rsync command lines, and the reasons given for a failed transfer."""

from __future__ import annotations

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.rsync import (
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


def test_client_command_unsets_variables_and_requests_named_files() -> None:
    arguments = client_command(["a.json", "b"], "/home/models/lora", "/store/lora/staging/0f", TransferOptions(60))
    assert arguments[:2] == ["sh", "-c"]
    *options, _rsh, join, first, second, target = arguments[3:]
    assert options == [
        "/store/lora/staging/0f",
        "0",
        *CLEAN,
        *("rsync", "-s", "--inplace", "--no-whole-file", "--ignore-times", "--blocking-io"),
        *("--no-links", "--no-devices", "--no-specials", "--no-perms", "--chmod=F600", "--no-owner", "--no-group"),
        "--timeout=60",
    ]
    assert join.startswith("sh -c ")
    assert (first, second) == ("source:/home/models/lora/a.json", "source:/home/models/lora/b")
    assert target == "/store/lora/staging/0f/"


def test_server_command_unsets_variables_and_runs_sender() -> None:
    assert server_command()[:-8] == CLEAN
    assert server_command()[-4:] == ["rsync", "--server", "--sender", "-s"]


def test_client_command_with_limit_and_compression_adds_their_options() -> None:
    plain, limited = (
        set(client_command(["a.json", "b"], "/home/models/lora", "/store/lora/staging/0f", options))
        for options in (TransferOptions(60), TransferOptions(60, "20M", compress=True))
    )
    assert limited - plain == {"--bwlimit=20M", "--compress", "--compress-choice=zstd", "--compress-level=1"}


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
