# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Old packages on a node: which are rejected, and which give a warning with its reason."""

from __future__ import annotations

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._advisories import version_problems, version_warnings

GOOD = {"python": "3.11.7", "torch": "2.13.0+cpu", "transformers": "5.23.0", "peft": "0.21.2", "safetensors": "0.8.0"}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"torch": "2.6.0"},
        {"transformers": "4.55.4"},
        {"transformers": "5.3.0"},
        {"peft": "0.20.0"},
        {"safetensors": "0.4.3"},
        {"rsync": "3.5.0"},
    ],
)
def test_advisories_current_versions_have_none(change: dict[str, str]) -> None:
    assert version_warnings("/venv/python", {**GOOD, **change}) == []
    assert version_problems("/venv/python", {**GOOD, **change}) == []


@pytest.mark.parametrize(
    ("package", "version", "reason", "fixed"),
    [
        ("torch", "2.5.1+cu124", "CVE-2025-32434", "2.6"),
        ("transformers", "4.56.0", "CVE-2026-4372", "5.3"),
        ("transformers", "4.57.6", "CVE-2026-4372", "5.3"),
        ("transformers", "5.2.1", "CVE-2026-4372", "5.3"),
        ("peft", "0.19.1", "import any Python module", "0.20"),
        ("safetensors", "0.4.2", "Older versions have not been tested", "0.4.3"),
        ("rsync", "3.2.7", "Unless your distribution has backported the fixes, CVE-2024-12084", "3.4"),
        ("rsync", "3.3.0", "CVE-2024-12084 to CVE-2024-12088", "3.4"),
        ("rsync", "3.4.1", "CVE-2026-70456", "3.5"),
    ],
)
def test_advisories_old_version_gives_warning(package: str, version: str, reason: str, fixed: str) -> None:
    (warning,) = version_warnings("/venv/python", {**GOOD, package: version})
    assert warning.startswith(f"/venv/python has {package} {version}. ")
    assert reason in warning
    assert warning.endswith(f"Install {package} {fixed} or newer.")
    assert version_problems("/venv/python", {**GOOD, package: version}) == []


def test_advisories_too_old_peft_is_rejected() -> None:
    (problem,) = version_problems("/venv/python", {**GOOD, "peft": "0.13.2"})
    assert str(problem).startswith("/venv/python: has PEFT 0.13.2, which cannot read")
    assert version_problems("/venv/python", {**GOOD, "peft": "0.14.0"}) == []


def test_advisories_unparsable_version_counts_as_old() -> None:
    assert "CVE-2025-32434" in version_warnings("python", {"torch": "nightly"})[0]
    assert version_warnings("python", {}) == []
    assert version_problems("python", {}) == []
