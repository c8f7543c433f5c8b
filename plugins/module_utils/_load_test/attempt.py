# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The test of one case: its facts, its verdict, and the receipt that is written or withdrawn."""

from __future__ import annotations

import dataclasses
import enum
import os
import typing as t

from .._store.paths import make_store
from .._store.receipt import write_receipt
from .case import Case
from .worker.protocol import LoadTestResult


class Verdict(enum.Enum):
    """How a test ended.

    ``OPEN`` means that no test was run, or that memory was insufficient.
    """

    OPEN = "open"
    FROM_RECEIPT = "from receipt"
    PASSED = "passed"
    FAILED = "failed"


@dataclasses.dataclass
class Attempt:
    """The test of one case in this run."""

    case: Case
    result: LoadTestResult = dataclasses.field(default_factory=LoadTestResult)
    verdict: Verdict = Verdict.OPEN

    def to_json(self) -> dict[str, t.Any]:
        """Return the entry of the module's result."""
        return {
            "name": self.case.name,
            "release": self.case.manifest.release,
            "required_level": self.case.required,
            "from_receipt": self.verdict is Verdict.FROM_RECEIPT,
            **self.result.to_json(),
        }

    def write_receipt(self, environment_digest: str | None) -> None:
        """Save the facts as the receipt of the release. Raises DeliveryError."""
        case = self.case
        valid_for = {"environment": environment_digest, "base": case.base_digest, "golden": case.golden_digest}
        try:
            make_store(case.paths)
            write_receipt(case.paths, case.manifest.release, {**self.result.to_json(), **valid_for})
        except OSError as exc:
            problem = f"passed, but its receipt cannot be written: {exc}."
            raise case.error(problem, "Run with become, and check the free space of the store.") from exc

    def withdraw_receipt(self) -> None:
        """Remove an earlier receipt, which would let a failed release pass the next time.

        Raises DeliveryError.
        """
        try:
            os.unlink(self.case.paths.receipt(self.case.manifest.release))
        except OSError as exc:
            problem = f"failed, but its earlier receipt cannot be removed: {exc}."
            raise self.case.error(problem, "Run with become, and mount the store writable.") from exc


def receipts_diff(attempts: list[Attempt], after: t.Callable[[Attempt], str]) -> dict[str, str]:
    """Return the diff of the receipts of these attempts; ``after`` describes the new ones."""

    def text(describe: t.Callable[[Attempt], str]) -> str:
        return "".join(f"{one.case.name} {one.case.manifest.release}: {describe(one)}\n" for one in attempts)

    return {
        "before_header": "receipts",
        "after_header": "receipts",
        "before": text(lambda attempt: describe_receipt(attempt.case.receipt)),
        "after": text(after),
    }


def describe_receipt(receipt: dict[str, t.Any] | None) -> str:
    """Return a receipt, or the facts of one, in a few words."""
    if receipt is None:
        return "not tested"
    packages = " ".join(f"{name} {version}" for name, version in sorted(receipt["versions"].items()))
    return " ".join(filter(None, (f"level {receipt['level']}", receipt.get("device"), receipt.get("device_name"), packages)))
