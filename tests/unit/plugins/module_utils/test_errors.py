# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import (
    DeliveryError,
    Problem,
    about,
    attributed,
    collected,
)


@pytest.mark.parametrize(
    ("subject", "adapter", "full"),
    [
        ("python3", None, "python3"),
        ("", "a_lora", "adapter a_lora"),
        ("release 0123456789ab", "a_lora", "adapter a_lora, release 0123456789ab"),
        ("/home/models/a_lora/tokenizer.json", "a_lora", "/home/models/a_lora/tokenizer.json"),
        ("base of adapter a_lora", "a_lora", "base of adapter a_lora"),
        # The name is only part of a word.
        ("bias in adapter_config.json", "adapter", "adapter adapter, bias in adapter_config.json"),
        ("lora_alpha in adapter_config.json", "a", "adapter a, lora_alpha in adapter_config.json"),
    ],
)
def test_problem_subject_names_adapter_once(subject: str, adapter: str | None, full: str) -> None:
    problem = Problem(subject, "is damaged.", "Deploy it again.", adapter)
    assert str(problem) == f"{full}: is damaged. Deploy it again."
    assert problem.to_json() == {
        "adapter": adapter,
        "subject": full,
        "problem": "is damaged.",
        "remedy": "Deploy it again.",
    }


def test_problem_without_remedy_ends_after_problem() -> None:
    assert str(Problem("keep", "is 0.", "")) == "keep: is 0."


def test_attributed_keeps_adapter_that_is_set() -> None:
    problems = [Problem("x", "is bad.", ""), Problem("x", "is bad.", "", "other_lora")]
    assert [problem.adapter for problem in attributed("a_lora", problems)] == ["a_lora", "other_lora"]


def test_about_attributes_error_and_keeps_cause() -> None:
    cause = OSError("disk")
    with pytest.raises(DeliveryError) as caught, about("a_lora"):
        raise DeliveryError.of("manifest", "is damaged.") from cause
    assert caught.value.problems == (Problem("manifest", "is damaged.", "", "a_lora"),)
    assert caught.value.__cause__ is cause


def test_about_passes_other_errors_through() -> None:
    with pytest.raises(OSError, match="disk"), about("a_lora"):
        raise OSError("disk")


def test_collected_appends_problems_and_continues() -> None:
    problems = [Problem("python3", "is missing.", "")]
    with collected(problems, "a_lora"):
        raise DeliveryError.of("", "is damaged.")
    with collected(problems, "b_lora"):
        pass
    assert [problem.adapter for problem in problems] == [None, "a_lora"]
