# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The options of a load test: those of adapter_load_test, and of adapter_up_to_date_info."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._errors import DeliveryError
from .._store.permissions import permissions_of
from .serving_user import ServingUser, check_readable


@dataclasses.dataclass(frozen=True)
class LoadTestOptions:
    """The options of a load test, named like the module's options.

    adapter_up_to_date_info has only those without a default, and ``user``.
    """

    adapters: list[dict[str, t.Any]]
    bases: dict[str, t.Any]
    manifests: list[str] | None
    models_dir: str
    store: str
    python: str
    device: str
    level: str
    minimum_level: str | None
    base_binding: str
    user: ServingUser | None = None
    memory_limit: int | None = None
    timeout: int = 900
    force: bool = False
    record: bool = True

    @classmethod
    def from_params(cls, params: dict[str, t.Any]) -> LoadTestOptions:
        """Build the options from a module's parameters.

        Raises DeliveryError if they cannot work.
        """
        check_device(params["device"])
        user = ServingUser.named(params["user"]) if params["user"] else None
        if user is not None:
            check_readable(user, permissions_of(params))
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{**{name: value for name, value in params.items() if name in names}, "user": user})


def check_device(name: str) -> None:
    """Raises DeliveryError for an invalid device name."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise DeliveryError.of(f"device is {name}", "expected cpu, cuda, or cuda: and a number.")
