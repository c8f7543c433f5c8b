# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rsync command lines, and the reasons given for a failed transfer."""

from __future__ import annotations

import hypothesis
import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.rsync import (
    Offer,
    TransferOptions,
    TransferResult,
    client_command,
    failure_reason,
    server_command,
    within_space,
)
from hypothesis import strategies as st

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


@pytest.mark.parametrize(("largest", "blocks"), [(0, 128), (1 << 16, 128), ((1 << 16) + 1, 129), (350_000_000, 683_594)])
def test_client_command_limits_files_to_the_largest_described_size(largest: int, blocks: int) -> None:
    arguments = client_command(["a"], "/store/lora/staging/0f", TransferOptions(60), offer=Offer(largest, 2 * largest))
    assert arguments[5] == str(blocks)


MIB = 1 << 20
SMALL = {"adapter_config.json": 900, "chat_template.jinja": 4000, "tokenizer_config.json": 50_000}


@pytest.mark.parametrize(
    ("sizes", "transfers"),
    [
        ({"weights": 100 * MIB, "adapter_config.json": 900}, [["weights", "adapter_config.json"]]),
        # A space check for twice 117 MiB does not cover five files of 100 MiB.
        (
            {**SMALL, "weights": 100 * MIB, "tokenizer.json": 17 * MIB},
            [["weights"], ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "adapter_config.json"]],
        ),
        # All of them have the least limit.
        (SMALL, [["tokenizer_config.json", "chat_template.jinja", "adapter_config.json"]]),
        ({"a": 0}, [["a"]]),
    ],
)
def test_within_space_divides_files_only_as_far_as_necessary(sizes: dict[str, int], transfers: list[list[str]]) -> None:
    assert within_space(sizes) == transfers


@hypothesis.given(st.dictionaries(st.text(min_size=1), st.integers(0, 1 << 34), min_size=1, max_size=128))
def test_within_space_of_any_sizes_bounds_what_the_node_writes(sizes: dict[str, int]) -> None:
    transfers = within_space(sizes)
    assert sorted(name for names in transfers for name in names) == sorted(sizes)
    limits = [Offer(max(sizes[name] for name in names), 0).file_blocks * 512 * len(names) for names in transfers]
    # A block and the least limit of 64 KiB for each file.
    assert sum(limits) <= 2 * sum(max(size, 1 << 16) for size in sizes.values()) + 512 * len(sizes)


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
