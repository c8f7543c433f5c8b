# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Find out whether the user that loads adapters can read files, by opening them as that user."""

from __future__ import annotations

import json
import os
import typing as t

from .._base.weights import base_weights
from .._errors import DeliveryError
from .child import private_directory, run_python
from .loading_user import LoadingUser
from .worker.protocol import Target

_LET_READ = "Give this user read access to all files of the base and to the directories above them."
# For each file that cannot be opened, the first of the directories above it that is closed, or the
# file itself.
_FIND_CLOSED = """
import json, os, sys
def closed(path):
    parts = path.split("/")
    for end in range(2, len(parts)):
        directory = "/".join(parts[:end])
        if not os.access(directory, os.X_OK):
            return directory
    return path
unreadable = {}
for path in json.load(open(sys.argv[1])):
    try:
        open(path, "rb").close()
    except OSError:
        unreadable[path] = closed(path)
print(json.dumps(unreadable))
"""


def base_files(path: str) -> list[str]:
    """Return the files of a base that a load test reads in any case."""
    return [os.path.join(path, "config.json"), *base_weights(path)]


def check_targets_readable(python: str, user: LoadingUser, targets: t.Sequence[Target]) -> None:
    """Raise DeliveryError unless another user can read these adapters and their bases."""
    bases = {target.base_path for target in targets if target.base_path}
    adapters = [os.path.join(target.directory, target.weights_file) for target in targets]
    check_files_readable(python, user, [*adapters, *(file for base in sorted(bases) for file in base_files(base))])


def check_files_readable(python: str, user: LoadingUser, files: t.Sequence[str]) -> None:
    """Raise DeliveryError unless another user can read these files, which exist.

    ``python`` is an interpreter that it can start.
    """
    with private_directory(None, user) as directory:
        request = os.path.join(directory, "files.json")
        with open(request, "w", encoding="utf-8") as stream:
            json.dump(list(files), stream)
        child = run_python(python, ["-I", "-c", _FIND_CLOSED, request], directory, timeout=60, user=user)
    try:
        closed = dict(json.loads(child.stdout))
    except (ValueError, TypeError):
        raise DeliveryError.of(python, f"could not open files: {child.ending}.{child.stderr_tail}", _LET_READ) from None
    for path, where in closed.items():
        at = "" if where == path else f": {where} is closed to it"
        raise DeliveryError.of(path, f"cannot be read by {user}{at}.", user.remedy(_LET_READ))
