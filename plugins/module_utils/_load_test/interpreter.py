# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The PEFT interpreter of a host: its versions, and the digest of everything a receipt depends on.

Nothing is imported there: torch alone would take seconds.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t

from .._advisories import version_problems, version_warnings
from .._errors import DeliveryError
from .._hashing import digest_of
from .child import INSTALL_PEFT, private_directory, run_python
from .worker import nvidia

if t.TYPE_CHECKING:
    from .loading_user import LoadingUser

PACKAGES = ("torch", "safetensors", "transformers", "peft")

_LIST_VERSIONS = f"""
import importlib.metadata as metadata, json, platform
found = {{"python": platform.python_version()}}
for name in {PACKAGES!r}:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclasses.dataclass(frozen=True)
class Environment:
    """The facts that a load test on this host depends on, besides the adapter and its base.

    ``digest`` covers the versions, the device, the driver, the GPUs and the user. A receipt is
    valid in the environment that it was written in. Without a working interpreter nothing is known.
    """

    digest: str | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)


def read_environment(python: str, device: str, user: LoadingUser | None, warn: t.Callable[[str], None]) -> Environment:
    """Return the environment of an interpreter and warn about vulnerable packages.

    Raises DeliveryError if nothing can be loaded with the interpreter.
    """
    versions = library_versions(python, user)
    missing = [package for package in PACKAGES if package not in versions]
    if missing and user is not None and user.throw_away:
        # Packages that cannot be read look like missing ones.
        raise DeliveryError.of(python, f"has no {', '.join(missing)} that {user} can read.", f"{INSTALL_PEFT} {user.remedy('')}")
    if missing:
        raise DeliveryError.of(python, f"has no {', '.join(missing)}.", INSTALL_PEFT)
    vulnerable = version_problems(python, versions)
    if vulnerable:
        raise DeliveryError(*vulnerable)
    for warning in version_warnings(python, versions):
        warn(warning)
    return Environment(digest_of(facts(versions, device, user)), versions)


def facts(versions: dict[str, str], device: str, user: LoadingUser | None = None) -> dict[str, t.Any]:
    """Return what the digest of an environment covers.

    Any other form would invalidate all receipts.
    """
    found: dict[str, t.Any] = {"versions": versions, "device": device}
    # A throw-away user is another one each time, and proves nothing about the one that serves.
    if user is not None and user.is_other and not user.throw_away:
        found["user"] = user.name
    if device != "cpu":
        found["driver"] = nvidia.driver_lines()
        found["gpus"] = nvidia.gpu_models()
    return found


def library_versions(python: str, user: LoadingUser | None = None) -> dict[str, str]:
    """Return the versions of an interpreter and its packages of ``PACKAGES``, as far as installed.

    Raises DeliveryError if it cannot be started or is no Python.
    """
    with private_directory(None, user) as directory:
        child = run_python(python, ["-I", "-c", _LIST_VERSIONS], directory, timeout=60, user=user)
    try:
        found = json.loads(child.stdout)
        return {str(name): str(version) for name, version in found.items()}
    except (ValueError, AttributeError):
        raise DeliveryError.of(
            python, f"does not work as a Python interpreter: {child.ending}.{child.stderr_tail}", INSTALL_PEFT
        ) from None
