# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Markdown pages: their links, and that they cover the collection."""

from __future__ import annotations

import pathlib
import re

import pytest
import yaml

from tests.support.paths import CHECKOUT, PLUGINS

PAGES = sorted(path for form in ("*.md", "docs/*.md", "roles/*/README.md") for path in CHECKOUT.glob(form))
README = CHECKOUT / "README.md"
# Galaxy shows README.md without the repository, so its links are absolute.
REPOSITORY = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text(encoding="utf-8"))["repository"] + "/blob/main/"
README_LINES, README_BYTES = 150, 8 * 1024


def prose(page: pathlib.Path) -> str:
    """The text of a page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: pathlib.Path) -> list[str]:
    """The anchors of a page's headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def assert_exists(path: pathlib.Path, fragment: str) -> None:
    assert path.exists(), path
    assert not fragment or fragment in anchors(path), f"{path}#{fragment}"


def targets(page: pathlib.Path) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", prose(page))


def page_id(page: pathlib.Path) -> str:
    return str(page.relative_to(CHECKOUT))


@pytest.mark.parametrize("page", [page for page in PAGES if page != README], ids=page_id)
def test_links_relative_lead_to_files(page: pathlib.Path) -> None:
    for target in targets(page):
        if not re.match("https?:", target):
            path, _hash, fragment = target.partition("#")
            assert_exists(page.parent / path if path else page, fragment)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_into_repository_lead_to_files(page: pathlib.Path) -> None:
    for target in targets(page):
        if target.startswith(REPOSITORY):
            path, _hash, fragment = target[len(REPOSITORY) :].partition("#")
            assert_exists(CHECKOUT / path, fragment)


def test_readme_links_are_absolute() -> None:
    assert [target for target in targets(README) if not target.startswith("https://")] == []


def test_readme_fits_one_page() -> None:
    text = README.read_bytes()
    assert text.count(b"\n") <= README_LINES
    assert len(text) <= README_BYTES


def test_readme_names_every_page() -> None:
    named = set(targets(README))
    assert [page.name for page in CHECKOUT.glob("docs/*.md") if f"{REPOSITORY}docs/{page.name}" not in named] == []


@pytest.mark.parametrize("kind", ["action", "callback", "inventory", "modules"])
def test_readme_names_every_plugin(kind: str) -> None:
    names = {path.stem for path in (PLUGINS / kind).glob("*.py")}
    assert names <= set(re.findall(r"`(\w+)`", prose(README)))


def test_playbooks_page_has_section_for_each_playbook() -> None:
    headings = re.findall(r"^## (\w+)$", (CHECKOUT / "docs" / "playbooks.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(path.stem for path in CHECKOUT.glob("playbooks/*.yml"))


@pytest.mark.parametrize("kind", ["module_utils", "plugin_utils"])
def test_architecture_page_names_every_room(kind: str) -> None:
    rooms = {str(path.parent.relative_to(PLUGINS / kind)) for path in (PLUGINS / kind).glob("_*/**/*.py")}
    named = re.findall(r"^\| `(_[\w/]+)` \|", prose(CHECKOUT / "docs" / "architecture.md"), re.MULTILINE)
    assert rooms - set(named) == set()


def test_security_page_names_tests_that_exist() -> None:
    text = (CHECKOUT / "docs" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+/test_\w+)`", text)
    assert len(named) > 8
    for name in named:
        places = (f"tests/{name}.py", f"tests/unit/plugins/{name}.py", f"tests/unit/plugins/*/{name}.py")
        assert any(list(CHECKOUT.glob(place)) for place in places), name
