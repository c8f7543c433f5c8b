# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import TRANSFER
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._rsync import Rsync, check_transfer_options, installed_rsync


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("rsync  version 3.5.0  protocol version 32\nCompress list:\n    zstd lz4 zlibx zlib none\n", Rsync("3.5.0", zstd=True)),
        ("rsync  version v3.2.7  protocol version 31\nCompress list:\n    lz4 zlibx zlib none\n", Rsync("3.2.7", zstd=False)),
        ("rsync  version 3.1.3  protocol version 31\nCapabilities:\n    zstd\n", Rsync("3.1.3", zstd=False)),
        ("sh: 1: rsync: not found\n", None),
        ("", None),
    ],
)
def test_rsync_parse_version_output(output: str, expected: Rsync | None) -> None:
    assert Rsync.parse(output) == expected


def test_installed_rsync_outside_of_path_is_error(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeliveryError, match=r"^rsync: is not installed on this host\. Install the package rsync on it\.$"):
        installed_rsync()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'rsync  version 3.4.1  protocol version 32'", Rsync("3.4.1", zstd=False)),
        ("echo 'another program'", Rsync("unknown", zstd=False)),
    ],
)
def test_installed_rsync_returns_its_version(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: Rsync
) -> None:
    install(tmp_path, script)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installed_rsync() == expected


def test_installed_rsync_that_cannot_be_run_is_error(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "echo 'libzstd.so.1: cannot open shared object file' >&2; exit 127")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeliveryError, match=r"rsync: cannot be run: libzstd\.so\.1: cannot open shared object file\."):
        installed_rsync()


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("transfer_tries", 0, "transfer_tries: is 0. Set it to 1 or more."),
        ("transfer_bwlimit", "fast", "transfer_bwlimit: is 'fast', which is not a valid value"),
        ("transfer", "command", "transfer_command: is empty, but transfer is command. Set it to a list"),
        ("transfer", "direct", "transfer_direct_ports: is empty, but transfer is direct. Set it to ports of the source"),
        ("transfer", "swarm", "transfer_swarm_ports: is empty, but transfer is swarm. Set it to ports at which the source"),
        ("transfer_swarm_ports", "8719-8710", "transfer_swarm_ports: is '8719-8710', which is neither a port nor a range"),
        ("transfer_direct_ports", "8709-8700", "transfer_direct_ports: is '8709-8700', which is neither a port nor a range"),
        ("transfer_direct_ports", "0-65535", "transfer_direct_ports: is '0-65535', which is neither"),
        ("transfer_direct_ports", "1-65536", "transfer_direct_ports: is '1-65536', which is neither"),
        ("transfer_direct_ports", "-22", "transfer_direct_ports: is '-22', which is neither"),
        ("transfer_direct_ports", "http", "transfer_direct_ports: is 'http', which is neither"),
        ("transfer_command", ["pull", "{stage}"], "transfer_command: has the placeholder {stage}, which does not exist. Use {"),
        ("transfer_minimum_rate", -1, "transfer_minimum_rate: is -1. Set it to a number of bytes per second, or to 0"),
    ],
)
def test_check_transfer_options_value_that_stops_every_transfer_is_refused(option: str, value: t.Any, problem: str) -> None:
    defaults = {name: spec["default"] for name, spec in TRANSFER.items()}
    check_transfer_options({**defaults, "transfer_minimum_rate": 0})
    with pytest.raises(DeliveryError) as caught:
        check_transfer_options({**defaults, option: value})
    assert str(caught.value).startswith(problem)


def install(directory: pathlib.Path, script: str) -> None:
    """Put a shell script into a directory as its rsync."""
    program = directory / "rsync"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
