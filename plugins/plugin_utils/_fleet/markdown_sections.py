# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Splits a Markdown text into headings, bullets and tables, each with its line.

A library such as markdown-it-py is not used: the controller would need it as a dependency to read
this one form of file.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import re

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

_HEADING = re.compile(r"(#{1,6})\s+(.*)")
_BULLET = re.compile(r" *[-*+]\s(.*)")
_WORD = re.compile(r"\w")
_DASHES = re.compile(r":?-+:?")


@dataclasses.dataclass
class Item:
    """A bullet without its marker and emphasis. ``depth`` is 0 for a bullet at the top level."""

    line: int
    depth: int
    text: str

    @property
    def key(self) -> str:
        """The text before the colon as a variable name, without an optional ``lora_`` prefix."""
        before, colon, _after = self.text.partition(":")
        return slug(before).removeprefix("lora_") if colon else ""

    @property
    def value(self) -> str:
        return self.text.partition(":")[2].strip()


@dataclasses.dataclass
class Section:
    """A heading and the content below it up to the next heading of any level."""

    line: int
    level: int
    title: str
    items: list[Item] = dataclasses.field(default_factory=list)
    table: list[tuple[int, list[str]]] = dataclasses.field(default_factory=list)

    @property
    def subject(self) -> str:
        return slug(self.title.partition("(")[0])


class MarkdownReader:
    """Splits one file, whose name is in every error."""

    def __init__(self, file: str) -> None:
        self.file = file

    def error(self, line: int, problem: str, remedy: str) -> DeliveryError:
        return DeliveryError.of(f"{self.file}:{line}", problem, remedy)

    def sections(self, text: str) -> list[Section]:
        """Split a text into its sections. Comments, code blocks and paragraphs are ignored."""
        section = Section(0, 0, "")
        found, above, fence = [section], list[tuple[int, Item]](), (0, "")
        for number, line in enumerate(self._without_comments(text).split("\n"), 1):
            line = line.expandtabs(4).rstrip()
            marker = line.lstrip()[:3]
            if fence[1] or marker in ("```", "~~~"):
                fence = (0, "") if marker == fence[1] else fence if fence[1] else (number, marker)
                continue
            indent = len(line) - len(line.lstrip())
            if heading := _HEADING.match(line):
                section = Section(number, len(heading[1]), plain(heading[2].rstrip("#")))
                found.append(section)
                above = []
            elif (bullet := _BULLET.fullmatch(line)) and _WORD.search(line):
                above = [(level, item) for level, item in above if level < indent]
                item = Item(number, len(above), plain(bullet[1]))
                section.items.append(item)
                above.append((indent, item))
            elif marker.startswith("|"):
                cells = re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))
                section.table.append((number, [plain(cell.replace("\\|", "|")) for cell in cells]))
                above = []
            elif marker and above and indent > above[-1][0]:
                above[-1][1].text += " " + plain(line)
            elif marker:
                above = []
        if fence[1]:
            raise self.error(fence[0], "begins a code block that is never closed.", f"Close it with {fence[1]}.")
        return found

    def rows(self, section: Section) -> c.Iterator[tuple[int, list[Item]]]:
        """Each row of a section's table: its line, and a bullet for each cell that is not empty."""
        if not section.table:
            return
        (first_line, header), *rows = section.table
        if not rows or not all(map(_DASHES.fullmatch, rows.pop(0)[1])):
            raise self.error(first_line, "begins a table without a line '| --- |'.", "Add that line below it.")
        for line, cells in rows:
            if len(cells) != len(header):
                raise self.error(line, f"has {len(cells)} cells instead of {len(header)}.", "Write one for each column.")
            yield line, [Item(line, 0, f"{name}: {cell}") for name, cell in zip(header, cells) if cell]

    def _without_comments(self, text: str) -> str:
        """Replace comments with blank lines: a section that is commented out is not delivered."""
        kept, *commented = text.split("<!--")
        for part in commented:
            comment, end, after = part.partition("-->")
            if not end:
                raise self.error(kept.count("\n") + 1, "begins a comment that is never closed.", "Close it with -->.")
            kept += "\n" * comment.count("\n") + after
        return kept


def headings(text: str) -> list[tuple[int, str]]:
    """The level and the text of each heading, also of those in code blocks and comments."""
    return [(len(match[1]), plain(match[2])) for match in map(_HEADING.match, text.splitlines()) if match]


def plain(text: str) -> str:
    """A text without markup for bold and code, and with single spaces."""
    return " ".join(re.sub(r"\*\*|`", "", text).split())


def slug(text: str) -> str:
    """A text as a variable name."""
    return "_".join(re.findall(r"[^\W_]+", text.lower()))
