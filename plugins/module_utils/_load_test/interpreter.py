# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What an interpreter and its host have, without an import there: versions of Python and of the packages, and the GPUs."""

from __future__ import annotations

import glob
import json
import re
import typing as t

from .._errors import DeliveryError
from .child import INSTALL_PEFT, private_directory, run_python

if t.TYPE_CHECKING:
    from .serving_user import ServingUser

PACKAGES = ("torch", "safetensors", "transformers", "peft")
_NVIDIA = "/proc/driver/nvidia"

# Reads what is installed without importing it: torch alone takes seconds.
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


def check_device(name: str) -> None:
    """Raises DeliveryError for what is no name of a device."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise DeliveryError.of(f"device is {name}", "expected cpu, cuda, or cuda: and a number.")


def library_versions(python: str, user: t.Optional[ServingUser] = None) -> dict[str, str]:
    """The versions of an interpreter and of the packages that the load test needs; those not installed are left out.

    Raises DeliveryError when the interpreter cannot be started or is none.
    """
    with private_directory(None, user) as directory:
        child = run_python(python, ["-I", "-c", _LIST_VERSIONS], directory, timeout=60, user=user)
    try:
        found = json.loads(child.output)
        return {str(name): str(version) for name, version in found.items()}
    except (ValueError, AttributeError):
        raise DeliveryError.of(
            python, f"does not work as a Python interpreter: {child.ending}.{child.last_words}", INSTALL_PEFT
        ) from None


def environment(python: str, device: str, user: t.Optional[ServingUser] = None) -> dict[str, t.Any]:
    """What a load test depends on beside the adapter and its base: versions, device, GPU models and driver.

    Raises DeliveryError when the interpreter does not work or lacks a package.
    """
    versions = library_versions(python, user)
    missing = [package for package in PACKAGES if package not in versions]
    if missing:
        raise DeliveryError.of(python, f"has no {', '.join(missing)}.", INSTALL_PEFT)
    found: dict[str, t.Any] = {"versions": versions, "device": device}
    if user is not None and user.is_other:
        found["user"] = user.name
    if device != "cpu":
        found["driver"] = _lines(f"{_NVIDIA}/version", "NVRM version")
        found["gpus"] = [line for path in sorted(glob.glob(f"{_NVIDIA}/gpus/*/information")) for line in _lines(path, "Model")]
    return found


def _lines(path: str, start: str) -> list[str]:
    """The lines of a file that begin with C(start), with single spaces; none where there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return [" ".join(line.split()) for line in stream if line.startswith(start)]
    except OSError:
        return []
