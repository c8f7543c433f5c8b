# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The version of a package in the environment of a Python interpreter, which is not run.

An engine's interpreter takes a second to start, and may belong to another user. The directories of
the installed packages are named after package and version (PyPA, "Recording installed projects"),
so that no file of a package has to be opened.
"""

from __future__ import annotations

import os
import re
import typing as t

from .._files import open_linked

_RECORD = ".dist-info"
_MOST_SETTINGS = 1 << 16
_PYTHON = re.compile(r"python3\.\d+")
# Debian has the packages of pip in local/lib, before its own.
_LIBRARIES = ("local/lib", "lib", "lib64")


def installed_version(python: str, packages: t.Sequence[str]) -> str | None:
    """Return the version of the first of these packages that an interpreter would import.

    None if it is not installed, or if the records of several versions are there.
    """
    names = [_normalized(package) for package in packages]
    for directory in _site_directories(python):
        found: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
        for name, version in _records(directory, names):
            found[name] += (version,)
        versions = next(filter(None, found.values()), ())
        # The first directory that has a package hides it in the others.
        if versions:
            return versions[0] if len(versions) == 1 else None
    return None


def _records(directory: str, names: t.Collection[str]) -> t.Iterator[tuple[str, str]]:
    """Yield the normalized name and the version of those packages that a directory has."""
    for entry in _entries(directory):
        name, _dash, version = entry[: -len(_RECORD)].partition("-")
        # What an interrupted installation leaves has no METADATA.
        if entry.endswith(_RECORD) and _normalized(name) in names and os.path.isfile(os.path.join(directory, entry, "METADATA")):
            yield _normalized(name), version


def _site_directories(python: str) -> t.Iterator[str]:
    """Yield the directories of the packages of an interpreter, in its order."""
    name = os.path.basename(os.path.realpath(python))
    for prefix in _prefixes(python):
        for library in _LIBRARIES:
            top = os.path.join(prefix, library)
            known = [name] if _PYTHON.fullmatch(name) else sorted(filter(_PYTHON.fullmatch, _entries(top)))
            for version in (*known, "python3"):
                yield from (os.path.join(top, version, kind) for kind in ("site-packages", "dist-packages"))


def _prefixes(python: str) -> t.Iterator[str]:
    """Yield where an interpreter is installed: its virtual environment, and what that includes."""
    interpreter = os.path.dirname(os.path.realpath(python))
    # Python looks for the file from the path that it was started by, not from where links lead.
    beside = os.path.dirname(os.path.abspath(python))
    for prefix in (os.path.dirname(beside), beside):
        settings = _venv_settings(prefix)
        if settings is not None:
            yield prefix
            if settings.get("include-system-site-packages", "").lower() != "true":
                return
            # Where the executable is a copy, only this key leads to the interpreter.
            interpreter = settings.get("home") or interpreter
            break
    yield os.path.dirname(os.path.realpath(interpreter))


def _venv_settings(prefix: str) -> dict[str, str] | None:
    try:
        # It may be another user's, and this process root's.
        with open_linked(os.path.join(prefix, "pyvenv.cfg")) as stream:
            lines = stream.read(_MOST_SETTINGS).decode(errors="replace").splitlines()
    except OSError:
        return None
    pairs = (line.partition("=") for line in lines)
    return {key.strip().lower(): value.strip() for key, _equals, value in pairs}


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
