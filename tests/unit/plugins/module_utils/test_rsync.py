# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._rsync import Rsync


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
