# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is installed: every package has one version and the hashes of its files."""

from __future__ import annotations

import pathlib
import re

import pytest
from packaging.requirements import Requirement

from tests.support.paths import CHECKOUT

REQUIREMENTS = CHECKOUT / "requirements"
ROLE = CHECKOUT / "roles" / "runtime" / "files"
LOCKS = [*sorted((REQUIREMENTS / "locked").glob("*.txt")), *sorted(ROLE.glob("*.txt")), REQUIREMENTS / "torch-cpu.txt"]
HASH = re.compile(r" --hash=(sha256:[0-9a-f]{64})")


def entries(path: pathlib.Path) -> dict[str, list[str]]:
    """The hashes of each requirement of a lock."""
    lines = re.sub(r"\\\n", "", re.sub(r"(?m)^\s*#.*\n", "", path.read_text(encoding="utf-8"))).splitlines()
    return {HASH.split(line)[0].strip(): HASH.findall(line) for line in lines}


def pinned(path: pathlib.Path) -> dict[str, set[str]]:
    """The versions of each package in a lock: several if they depend on the Python."""
    found: dict[str, set[str]] = {}
    for line in entries(path):
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", line
        found.setdefault(requirement.name, set()).add(specifier.version)
    return found


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_lock_states_version_and_hashes_of_every_package(path: pathlib.Path) -> None:
    assert pinned(path)
    assert all(entries(path).values())


def test_locked_torch_has_hashes_of_cuda_and_cpu_builds() -> None:
    (both,) = entries(ROLE / "requirements-torch.txt").values()
    (cpu,) = entries(REQUIREMENTS / "torch-cpu.txt").values()
    assert set(cpu) < set(both)
    (version,) = pinned(ROLE / "requirements-torch.txt")["torch"]
    assert pinned(REQUIREMENTS / "torch-cpu.txt")["torch"] == {f"{version}+cpu"}


def test_locked_peft_environment_is_within_requirements() -> None:
    locked = {name: versions for path in ROLE.glob("*.txt") for name, versions in pinned(path).items()}
    wanted = [line for line in (REQUIREMENTS / "peft.txt").read_text().splitlines() if not line.startswith("#")]
    for requirement in map(Requirement, wanted):
        newest = max(locked[requirement.name], key=lambda version: [int(part) for part in version.split(".")])
        assert newest in requirement.specifier


def test_demo_changes_no_package_of_the_peft_environment() -> None:
    environment, demo = pinned(ROLE / "requirements.txt"), pinned(REQUIREMENTS / "locked" / "demo.txt")
    assert {name for name in demo if name in environment and not demo[name] <= environment[name]} == set()


def test_every_requirements_file_is_locked() -> None:
    sources = {path.stem for path in REQUIREMENTS.glob("*.txt")} - {"torch-cpu", "lint", "demo-base", "peft"}
    assert sources == {path.stem for path in (REQUIREMENTS / "locked").glob("*.txt")} - {"peft-oldest"}


def test_makefile_and_documentation_name_no_second_index() -> None:
    pages = [CHECKOUT / "Makefile", CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"]
    pages += [*(CHECKOUT / "docs").glob("*.md"), *(CHECKOUT / "roles").rglob("*.yml"), *(CHECKOUT / "roles").rglob("*.md")]
    assert [page.name for page in pages if re.search(r"extra.index", page.read_text(encoding="utf-8"), re.IGNORECASE)] == []
