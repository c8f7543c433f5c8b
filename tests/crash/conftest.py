# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the crash tests, and a summary of their faults."""

from __future__ import annotations

import collections
import os
import pathlib
import tempfile
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._linux import open_files

from tests.crash import traced
from tests.crash.patched_os import PatchedOs
from tests.support import releases

Count = t.Callable[[str, int], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-faults", action="store_true", help="let every call of every scenario fail (takes minutes longer)")


@pytest.fixture(autouse=True)
def template(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every release has a file in a subdirectory."""
    monkeypatch.setitem(releases.FURTHER, releases.TEMPLATE, b"{{ tools }}")


@pytest.fixture
def strace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the test where strace is unavailable.

    The transaction runs without threads and sees no other processes, so that its calls have fixed
    numbers.
    """
    reason = traced.why_not()
    if reason:
        pytest.skip(reason)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)

    def listdir(path: t.Any = ".") -> list[str]:
        return [str(os.getpid())] if path == "/proc" else os.listdir(path)

    monkeypatch.setattr(open_files, "os", PatchedOs(listdir=listdir))


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """A directory, in memory if possible, where fsync is fast and a kill leaves the same state."""
    memory = pathlib.Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as name:
        directory = pathlib.Path(name, "node")
        directory.mkdir()
        yield directory


@pytest.fixture
def count(record_property: t.Callable[[str, object], None]) -> Count:
    """Count faults by kind for the summary."""

    def add(kind: str, number: int) -> None:
        record_property("faults", (kind, number))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the number of faults: a test without any would pass too."""
    total: collections.Counter[str] = collections.Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "faults" and report.when == "call":
                    total[value[0]] += value[1]
    for kind, number in sorted(total.items()):
        terminalreporter.write_line(f"{number:6} {kind}")
