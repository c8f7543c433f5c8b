# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._rsync import Rsync, installed_rsync


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


def install(directory: pathlib.Path, script: str) -> None:
    """Put a shell script into a directory as its rsync."""
    program = directory / "rsync"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
