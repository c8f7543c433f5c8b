# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The options of a load test: those of adapter_load_test, and of adapter_up_to_date_info."""

from __future__ import annotations

import dataclasses
import os
import re
import typing as t

from .._errors import DeliveryError
from .._levels import LEVELS
from .._store.permissions import permissions_of

if t.TYPE_CHECKING:
    from .loading_user import LoadingUser


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
    user: LoadingUser | None = None
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
        user = node_user(params)
        if user is not None and not user.throw_away:
            from .loading_user import check_readable

            check_readable(user, permissions_of(params))
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{**{name: value for name, value in params.items() if name in names}, "user": user})


def node_user(params: dict[str, t.Any]) -> LoadingUser | None:
    """Return the user that loads adapters with these parameters, None for that of this process.

    Root loads nothing unless that is set. Raises DeliveryError.
    """
    # Level structure needs neither of these files.
    if params["user"]:
        from .loading_user import LoadingUser

        return LoadingUser.named(params["user"])
    if os.geteuid() != 0 or params["level"] == LEVELS[0]:
        return None
    bases = [params["bases"].get(row["base"]) for row in params["adapters"]]
    paths = [base["path"] for base in bases if isinstance(base, dict) and isinstance(base.get("path"), str)]
    from .throw_away import throw_away_user

    return throw_away_user({params["python"], *paths})


def check_device(name: str) -> None:
    """Raises DeliveryError for an invalid device name."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise DeliveryError.of(f"device is {name}", "expected cpu, cuda, or cuda: and a number.")
