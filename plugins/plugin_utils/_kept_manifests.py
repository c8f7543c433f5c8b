# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Manifests that stay on the controller until the end of a run, and references to them.

The manifest of a large adapter has a hundred kilobytes. Ansible's main process keeps the results of
all nodes, which would be as many copies of it.
"""

from __future__ import annotations

import collections.abc as c
import glob
import hashlib
import os
import re
import tempfile
import urllib.parse

from ansible import constants as C
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import packed
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import first

# Between the path of a manifest and the name of a host that described it.
_BY = ".by."
_REFERENCE = re.compile(r"manifest:([0-9a-f]{64})")


def keep(text: str) -> str:
    """Keep a manifest until the end of the run, and return a reference to it."""
    digest = _digest(text)
    path = _path(digest)
    if not os.path.exists(path):
        # Several workers may keep the same manifest at the same time.
        descriptor, temporary = tempfile.mkstemp(dir=C.DEFAULT_LOCAL_TMP)
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(temporary, path)
    return f"manifest:{digest}"


def record_source(texts: c.Iterable[str], host: str) -> None:
    """Record until the end of the run that a host described these manifests."""
    for text in texts:
        with open(f"{_path(_digest(text))}{_BY}{urllib.parse.quote(host, safe='')}", "w", encoding="utf-8"):
            pass


def check_source(texts: c.Iterable[str], host: str) -> None:
    """Raise DeliveryError for manifests that only other hosts have described in this run."""
    for text in texts:
        path = _path(_digest(text)) + _BY
        hosts = [urllib.parse.unquote(found[len(path) :]) for found in sorted(glob.glob(f"{glob.escape(path)}*"))]
        if hosts and host not in hosts:
            remedy = "Set it to the host that described them."
            raise DeliveryError.of("source", f"is {host}, but {first(hosts)} described the manifests.", remedy)


def text_of(manifest: str) -> str:
    """Return the text of a manifest, which may be given by a reference.

    Raises DeliveryError for a reference of another run.
    """
    reference = _REFERENCE.fullmatch(manifest)
    if reference is None:
        return manifest
    try:
        with open(_path(reference[1]), encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        remedy = "Describe the adapters in the same run, or without by_reference."
        raise DeliveryError.of("manifests", f"refer to {manifest}, which this run has not described.", remedy) from None


def with_texts(arguments: c.Mapping[str, object]) -> dict[str, object]:
    """Return the arguments of a module with the texts of its manifests. Raises DeliveryError."""
    return _with_each(arguments, text_of)


def with_packed(arguments: c.Mapping[str, object]) -> dict[str, object]:
    """Return the arguments of a module as hosts get them: the texts of its manifests are packed."""
    return _with_each(arguments, packed)


def _with_each(arguments: c.Mapping[str, object], change: c.Callable[[str], str]) -> dict[str, object]:
    manifests = arguments["manifests"]
    if not isinstance(manifests, list):
        return dict(arguments)
    return {**arguments, "manifests": [change(one) if isinstance(one, str) else one for one in manifests]}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _path(digest: str) -> str:
    # The directory is private to the run and shared by its workers.
    return os.path.join(C.DEFAULT_LOCAL_TMP, f"manifest.{digest}.json")
