# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.plugins.inventory import detect_range, expand_hostname_range
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._node_names import by_number, listed
from hypothesis import given
from hypothesis import strategies as st


def numbered(prefix: str, numbers: range, suffix: str = "") -> list[str]:
    return [f"{prefix}{number}{suffix}" for number in numbers]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        # A few are as they come.
        (["jw2-2", "jw2-1", "jw2-3"], "jw2-2, jw2-1, jw2-3"),
        (["jw2-1", "jw2-1"], "jw2-1"),
        (numbered("jw2-", range(1, 51)), "jw2-[1:50]"),
        (["jw2-10", "jw2-9", "jw2-8", "jw2-11"], "jw2-[8:11]"),
        (["jw2-1", "jw2-2", "jw2-4", "jw2-5", "jw2-6", "jw3-7"], "jw2-1, jw2-2, jw2-[4:6], jw3-7"),
        ([f"node-{number:03}" for number in range(8, 12)], "node-[008:011]"),
        # As Ansible fills numbers, both ends have one length.
        (["n08", "n09", "n10", "n99", "n100", "n101", "n102"], "n[08:10], n[99:102]"),
        (["n98", "n99", "n100", "n101"], "n[98:101]"),
        (["n1", "n02", "n03", "n04"], "n1, n[02:04]"),
        (numbered("gpu-", range(1, 5), ".rack7"), "gpu-[1:4].rack7"),
        (["r1-n1", "r1-n2", "r1-n3", "r2-n1", "r2-n2", "r2-n3"], "r1-n[1:3], r2-n[1:3]"),
        (["r1-n1", "r2-n1", "r2-n2", "r2-n3"], "r1-n1, r2-n[1:3]"),
        (numbered("192.0.2.", range(9, 13)), "192.0.2.[9:12]"),
        # Names that a range could not say.
        (["a[1]", "a[2]", "a[3]", "a[4]"], "a[1], a[2], a[3], a[4]"),
        (["x", "a", "c", "b"], "a, b, c, x"),
        (["jw-٣", "jw-٤", "jw-٥", "jw-٦"], "jw-٣, jw-٤, jw-٥, jw-٦"),
    ],
)
def test_listed_names_in_a_row_are_ranges(names: list[str], text: str) -> None:
    assert listed(names) == text


PARTS = st.sampled_from(["", "a", "b-", "-", "."])
NUMBERS = st.sampled_from([*map(str, range(13)), "00", "01", "02", "03", "09", "10", "099", "100", "9" * 15, "1" + "0" * 15])
NAMES = st.builds("{}{}{}{}{}".format, PARTS, NUMBERS, PARTS, NUMBERS, PARTS)


@given(st.lists(NAMES, max_size=30))
def test_listed_names_are_what_ansible_makes_of_the_ranges(names: list[str]) -> None:
    found = []
    for text in filter(None, listed(names).split(", ")):
        found += expand_hostname_range(text) if detect_range(text) else [text]
    assert sorted(found) == sorted(set(names))


def test_by_number_sorts_numbers_as_numbers() -> None:
    names = ["node-10", "node-9", "192.0.2.11", "node", "٣-1", "node-1b", "192.0.2.2"]
    assert sorted(names, key=by_number) == ["٣-1", "192.0.2.2", "192.0.2.11", "node", "node-1b", "node-9", "node-10"]
