# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The active releases of a node, what differs from their manifests, and a summary. Reads only."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import typing as t

from ._adapter.files import CONFIG_FILE
from ._adapter.manifest import Manifest
from ._engines.words import line_of
from ._errors import DeliveryError
from ._golden.golden import golden_of
from ._levels import reaches
from ._signing.words import expiry_note, signature_line
from ._store.active import Active, inspect_active
from ._store.compare import CHANGED, EXTRA, LOWER, Difference, differences
from ._store.owners import check_way_to_store
from ._store.paths import STATE_FILE, AdapterPaths, check_owners
from ._store.permissions import Permissions

_MOST_OTHERS = 1000


def release_info(
    models_dir: str,
    store: str,
    names: t.Sequence[str],
    expected: t.Collection[str],
    required_level: str,
    permissions: Permissions | None,
    judge: t.Callable[[Manifest], list[dict[str, t.Any]]] | None = None,
    inspect_signed: t.Callable[[AdapterPaths, Manifest], tuple[dict[str, t.Any], str]] | None = None,
) -> dict[str, t.Any]:
    """Return the active release of each adapter, as module adapter_release_info returns it.

    With ``permissions``, hash every file and compare modes and owners. Without, compare names and
    sizes only. ``judge`` returns the verdicts of the node's engines on a release, if the engines
    are known. ``inspect_signed`` is ``Acceptance.inspect`` on a node that trusts signers. Raises
    DeliveryError where the store or the models directory may not be read.
    """
    try:
        all_paths = {name: AdapterPaths(models_dir, store, name) for name in names}
        found = {name: _inspect(paths, required_level, permissions) for name, paths in all_paths.items()}
        signed: dict[str, dict[str, t.Any] | None] = dict.fromkeys(names)
        for name, active in found.items():
            if inspect_signed is not None and active.manifest is not None:
                signed[name], found[name] = _inspect_signed(inspect_signed, all_paths[name], active, active.manifest)
        others = unexpected(models_dir, store, expected)
    except OSError as exc:
        raise DeliveryError.of(str(exc.filename), f"cannot be read: {exc.strerror}.", "Run with become.") from exc
    lines = {name: [difference.line() for difference in active.wrong] for name, active in found.items()}
    engines = {name: judge(active.manifest) if judge and active.manifest else [] for name, active in found.items()}
    summary = {
        name: [*summary_of(active, signed[name]), *map(line_of, engines[name]), *lines[name]] for name, active in found.items()
    }
    summary.update({name: [Difference(EXTRA, "", "not expected on this node").line()] for name in others})
    return {
        "adapters": [
            {"name": name, **active.to_json(), "signed": signed[name], "engines": engines[name], "differences": lines[name]}
            for name, active in found.items()
        ],
        "active": [name for name, active in found.items() if active.release],
        "differences": [f"{name}: {line}" for name in names for line in lines[name]],
        "others": others,
        "summary": summary,
    }


def _inspect(paths: AdapterPaths, required_level: str, permissions: Permissions | None) -> Active:
    """Inspect one adapter. A damaged record is a difference: it must not hide other adapters."""
    try:
        found = inspect_active(paths)
    except DeliveryError as exc:
        return Active(wrong=(Difference(CHANGED, "", str(exc)),))
    wrong = [*found.wrong]
    if permissions is not None:
        try:
            check_way_to_store(paths.store)
            check_owners(paths)
        except DeliveryError as exc:
            wrong.append(Difference(CHANGED, "", str(exc)))
    level = found.receipt and found.receipt["level"]
    if level and not reaches(level, required_level):
        wrong.append(Difference(LOWER, "", f"verified at level {level}, level {required_level} is required"))
    if found.manifest is not None:
        for directory in found.directories:
            if permissions is None:
                differing = differences(directory, found.manifest, content=False)
            else:
                wanted = permissions if directory == paths.served else permissions.of_store()
                differing = wanted.differences(directory, found.manifest)
            wrong += [difference.below(directory) for difference in differing]
    return dataclasses.replace(found, wrong=tuple(wrong))


def _inspect_signed(
    inspect: t.Callable[[AdapterPaths, Manifest], tuple[dict[str, t.Any], str]],
    paths: AdapterPaths,
    active: Active,
    manifest: Manifest,
) -> tuple[dict[str, t.Any] | None, Active]:
    """Return by whom an active release is signed. That it is not accepted is a difference."""
    signed = None
    try:
        signed, problem = inspect(paths, manifest)
    except DeliveryError as exc:
        problem = str(exc)
    wrong = (Difference(CHANGED, "", f"release {active.release} {problem}"),) if problem else ()
    return signed, dataclasses.replace(active, wrong=(*active.wrong, *wrong))


def summary_of(found: Active, signed: dict[str, t.Any] | None = None) -> list[str]:
    """Describe an active release in a few lines."""
    lines = []
    made_of = found.manifest and found.manifest.made_of
    if found.release is not None:
        folded = f", folded from {made_of.release}" if made_of else ""
        lines.append(f"release {found.release}{folded} active" + (f" since {found.since}" if found.since else ""))
    if found.receipt is not None:
        device = " ".join(str(found.receipt[key]) for key in ("device", "device_name") if found.receipt.get(key))
        place = f" on {device}" if device else ""
        lines.append(f"level {found.receipt['level']}{place} verified {found.receipt.get('at')}")
        if found.receipt.get("distances"):
            lines.append(f"golden distance {found.receipt['distances']['on']:.3f}{_permitted(found)}")
    notes = (signature_line(signed), expiry_note(signed, datetime.datetime.now(tz=datetime.timezone.utc)))
    lines += filter(None, notes)
    if found.previous is not None:
        lines.append(f"previous release {found.previous}")
    return lines


def _permitted(found: Active) -> str:
    """Return the distance that the golden permits, if the manifest has a golden."""
    with contextlib.suppress(DeliveryError):
        if found.manifest is not None:
            return f", permitted {golden_of(found.manifest).permitted['on']:.3f}"
    return ""


def unexpected(models_dir: str, store: str, expected: t.Collection[str]) -> list[str]:
    """Return the adapters in the models directory or the store that are not among ``expected``.

    At most ``_MOST_OTHERS``: anybody may own the models directory.
    """
    marks = ((models_dir, CONFIG_FILE), (store, STATE_FILE))
    names = {
        name
        for directory, mark in marks
        if os.path.isdir(directory)
        for name in os.listdir(directory)
        if name not in expected and os.path.lexists(os.path.join(directory, name, mark))
    }
    return sorted(names)[:_MOST_OTHERS]
