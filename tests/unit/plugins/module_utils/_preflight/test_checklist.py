# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The entries of a preflight's checklist."""

from __future__ import annotations

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.checklist import Checklist


def test_checking_adds_each_problem_and_continues() -> None:
    checklist = Checklist()
    with checklist.checking("store"):
        raise DeliveryError(Problem("/srv", "is full.", "Free it."), Problem("store", "is old.", "Renew it."))
    with checklist.checking("rsync"):
        checklist.ok("rsync", "3.5.0")
    assert checklist.to_json() == [
        {"check": "store", "state": "failed", "found": "/srv: is full.", "remedy": "Free it."},
        # A subject that is the check itself is not repeated.
        {"check": "store", "state": "failed", "found": "is old.", "remedy": "Renew it."},
        {"check": "rsync", "state": "ok", "found": "3.5.0", "remedy": ""},
    ]
    assert [str(problem) for problem in checklist.problems()] == [
        "store: /srv: is full. Free it.",
        "store: is old. Renew it.",
    ]
    assert (checklist.failed(), checklist.failed("store"), checklist.failed("rsync")) == (True, True, False)


def test_checking_adds_os_error_with_its_path() -> None:
    checklist = Checklist()
    with checklist.checking("store"):
        raise PermissionError(13, "Permission denied", "/srv/store")
    (found,) = checklist.checks
    assert (found.state, found.found) == ("failed", "/srv/store: Permission denied.")
    assert found.remedy


def test_problem_of_adapter_names_it_once() -> None:
    checklist = Checklist()
    with checklist.checking("adapter a", "a"):
        raise DeliveryError.of("lora_alpha in adapter_config.json", "is 64.", "Correct it.", "a")
    (problem,) = checklist.problems()
    assert problem.to_json() == {
        "adapter": "a",
        "subject": "adapter a",
        "problem": "lora_alpha in adapter_config.json: is 64.",
        "remedy": "Correct it.",
    }


def test_versions_with_advisory_is_a_warning_and_does_not_fail() -> None:
    checklist = Checklist()
    checklist.versions("rsync", "3.2.7", {"rsync": "3.2.7"})
    (found,) = checklist.checks
    assert (found.check, found.state, found.remedy) == ("rsync", "warning", "Install rsync 3.4 or newer.")
    assert "CVE-2024-12084" in found.found
    assert not checklist.failed()
