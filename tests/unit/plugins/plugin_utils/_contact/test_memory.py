# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import resource

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.memory import bounded_memory

MIB = 1 << 20


def test_bounded_memory_ends_with_a_memory_error_and_is_taken_back() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with bounded_memory(64 * MIB):
        assert len(bytearray(16 * MIB)) == 16 * MIB
    with pytest.raises(MemoryError), bounded_memory(64 * MIB):
        bytearray(256 * MIB)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert len(bytearray(256 * MIB)) == 256 * MIB
