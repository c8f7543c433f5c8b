# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""report.html of real runs in a browser: two widths, light and dark, keyboard and print."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.html import as_html
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.reports import NAMES, hostile, load, many, troubled

PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module")
def browser() -> t.Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed on this machine")
    with sync_playwright() as playwright:
        # Chromium has no sandbox for root. The pages are our own.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@contextlib.contextmanager
def opened(
    browser: Browser, directory: pathlib.Path, report: dict[str, t.Any], width: int, scheme: t.Literal["light", "dark"] = "light"
) -> t.Iterator[Page]:
    """Open the page of a report, which must load nothing else and cause no message."""
    path = directory / "report.html"
    path.write_text(as_html(report), encoding="utf-8")
    logged: list[str] = []
    with browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        page.on("console", lambda message: logged.append(message.text))
        page.on("pageerror", lambda error: logged.append(str(error)))
        page.on("request", lambda request: logged.append(request.url))
        page.goto(path.as_uri())
        yield page
    assert logged == [path.as_uri()]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "many nodes"])
def test_page_is_complete_and_accessible(browser: Browser, tmp_path: pathlib.Path, name: str) -> None:
    report = troubled(12) if name == "many nodes" else load(name)
    for width, scheme in ((PHONE, "dark"), (DESKTOP, "light")):
        with opened(browser, tmp_path, report, width, scheme) as page:
            for summary in page.locator("summary").all():
                summary.click()
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
            # Tables scroll, the page does not.
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.slow
def test_page_of_many_nodes_shows_those_that_failed_by_keyboard(browser: Browser, tmp_path: pathlib.Path) -> None:
    with opened(browser, tmp_path, troubled(200), DESKTOP) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.labels[0].innerText").strip() == "all 200 nodes"
        rows, durations = page.locator(".matrix tbody tr:visible"), page.locator(".durations tbody tr:visible")
        assert (rows.count(), durations.count()) == (26, 200)
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.labels[0].innerText").strip() == "failed or different: 50"
        assert (rows.count(), durations.count()) == (25, 50)
        assert page.get_by_text("gpu-097, gpu-197").first.is_visible()
        assert not page.get_by_role("link", name="gpu-098", exact=True).is_visible()
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.labels[0].innerText").strip() == "OK: 150"
        assert page.get_by_role("link", name="gpu-098", exact=True).is_visible()
        # On paper, all of them.
        page.emulate_media(media="print")
        assert rows.count() == 26


def test_page_of_many_nodes_unfolds_the_list_with_a_node_that_a_link_leads_to(browser: Browser, tmp_path: pathlib.Path) -> None:
    with opened(browser, tmp_path, many(200), DESKTOP) as page:
        name = page.locator('[id="node/gpu-123"]')
        assert not name.is_visible()
        page.get_by_role("link", name="gpu-123", exact=True).click()
        page.wait_for_function("id => document.getElementById(id).getBoundingClientRect().top < innerHeight", arg="node/gpu-123")
        assert name.is_visible()


def test_page_works_with_the_keyboard(browser: Browser, tmp_path: pathlib.Path) -> None:
    with opened(browser, tmp_path, load("deployed"), PHONE) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Nodes and adapters"
        page.keyboard.press("Tab")
        link = page.evaluate("document.activeElement.getAttribute('href')")
        page.keyboard.press("Enter")
        assert page.url.endswith(link)
        name = link.removeprefix("#")
        page.wait_for_function("id => document.getElementById(id).getBoundingClientRect().top < 100", arg=name)
        card = page.locator(f'[id="{name}"]')
        card.locator("summary").first.focus()
        page.keyboard.press("Enter")
        assert card.locator("details").first.get_by_role("table").is_visible()


def test_page_states_differ_without_colour(browser: Browser, tmp_path: pathlib.Path) -> None:
    with opened(browser, tmp_path, load("failed"), DESKTOP) as page:
        states = {state.inner_text(): state.locator("svg").inner_html() for state in page.locator(".matrix b").all()}
    assert set(states) == {"skipped", "failed", "activated", "unreachable"}
    assert states["failed"] == states["unreachable"]
    assert len({states[word] for word in ("skipped", "failed", "activated")}) == 3


def test_page_in_print_unfolds_details(browser: Browser, tmp_path: pathlib.Path) -> None:
    report = load("deployed")
    with opened(browser, tmp_path, report, DESKTOP) as page:
        sha256 = page.get_by_text(report["nodes"][0]["adapters"][0]["files"][0]["sha256"]).first
        assert not sha256.is_visible()
        page.emulate_media(media="print")
        assert sha256.is_visible()


def test_page_with_hostile_text_runs_nothing(browser: Browser, tmp_path: pathlib.Path) -> None:
    with opened(browser, tmp_path, hostile(load("deployed")), DESKTOP) as page:
        assert page.evaluate("document.scripts.length + document.images.length") == 0
        assert "taken" not in page.title()
        assert page.get_by_text("onerror=").first.is_visible()
        assert not page.get_by_text("49${7}").count()
