# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Splitting of Markdown texts. test_fleet_manifest.py reads them as manifests."""

from __future__ import annotations

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.markdown_sections import (
    Item,
    MarkdownReader,
    Section,
    headings,
    slug,
)

TEXT = """\
- **Before:** any heading
# Title: x
<!-- - commented out
-->
- LoRA rank: 16
  - `nested`
    continued
- flat
```
### in a code block
```
A paragraph.
## Table (of values) ##
| A | B |
| --- | :-: |
| 1 | a \\| b |
| 2 | |
"""


def sections(text: str) -> list[Section]:
    return MarkdownReader("file").sections(text)


def test_sections_text_is_split_with_lines_and_depths() -> None:
    before, title, table = sections(TEXT)
    assert (before.level, before.items) == (0, [Item(1, 0, "Before: any heading")])
    assert (title.line, title.level, title.title, title.table) == (2, 1, "Title: x", [])
    assert title.items == [Item(5, 0, "LoRA rank: 16"), Item(6, 1, "nested continued"), Item(8, 0, "flat")]
    assert (table.line, table.level, table.subject, table.items) == (13, 2, "table", [])


def test_item_key_omits_lora_prefix() -> None:
    item = Item(1, 0, "LoRA rank: 16")
    assert (item.key, item.value) == ("rank", "16")
    assert Item(1, 0, "no colon").key == ""


def test_rows_table_yields_bullets_of_filled_cells() -> None:
    rows = list(MarkdownReader("file").rows(sections(TEXT)[2]))
    assert rows == [(16, [Item(16, 0, "A: 1"), Item(16, 0, "B: a | b")]), (17, [Item(17, 0, "A: 2")])]
    assert list(MarkdownReader("file").rows(sections(TEXT)[0])) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n<!-- b", "file:2: begins a comment that is never closed. Close it with -->."),
        ("a\n~~~\nb", "file:2: begins a code block that is never closed. Close it with ~~~."),
        ("| A |\n| 1 |", "file:1: begins a table without a line '| --- |'. Add that line below it."),
        ("| A |\n| --- |\n| 1 | 2 |", "file:3: has 2 cells instead of 1. Write one for each column."),
    ],
)
def test_sections_malformed_text_names_line(text: str, message: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        list(MarkdownReader("file").rows(sections(text)[0]))
    assert str(caught.value) == message


def test_headings_are_plain_texts_with_levels() -> None:
    assert headings("# **A** title\n#no heading\ntext\n### `b` -> c\n") == [(1, "A title"), (3, "b -> c")]


def test_slug_is_variable_name() -> None:
    assert slug("Files to Transfer!") == "files_to_transfer"
