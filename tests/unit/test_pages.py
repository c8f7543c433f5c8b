# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pages for people: what they speak of is there, and what is there they speak of."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.support.paths import CHECKOUT

PAGES = sorted(path for form in ("*.md", "docs/*.md", "roles/*/README.md") for path in CHECKOUT.glob(form))


def anchor(heading: str) -> str:
    """The anchor of a heading as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _hash, fragment = target.partition("#")
        aimed = (page.parent / path) if path else page
        assert aimed.exists(), f"{page.name}: {target}"
        if fragment:
            assert fragment in [anchor(heading) for heading in re.findall(r"^#+ (.+)$", aimed.read_text(), re.MULTILINE)], target


def test_every_playbook_has_a_section() -> None:
    headings = re.findall(r"^## (\w+)$", (CHECKOUT / "docs" / "playbooks.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(path.stem for path in CHECKOUT.glob("playbooks/*.yml"))


def test_the_readme_names_every_page() -> None:
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in CHECKOUT.glob("docs/*.md") if f"(docs/{page.name})" not in readme] == []
