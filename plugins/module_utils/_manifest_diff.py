# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What sets two releases apart, in words: rank, alpha, tensors, tokenizer. For --diff and for reports."""

from __future__ import annotations

import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._manifest import CONFIG_FILE, Manifest


def manifest_diff(before: t.Optional[Manifest], after: t.Optional[Manifest]) -> dict[str, dict[str, t.Any]]:
    """Return C(before) and C(after) as short dictionaries; equal ones for the same release, an empty one for none."""
    described = {"before": _describe(before), "after": _describe(after)}
    if after is not None and (before is None or before.digest != after.digest):
        described["after"].update(_changes(before, after))
    return described


def _describe(manifest: t.Optional[Manifest]) -> dict[str, t.Any]:
    if manifest is None:
        return {}
    return {
        "release": manifest.release,
        "rank": manifest.config.get("r"),
        "alpha": manifest.config.get("lora_alpha"),
    }


def _changes(before: t.Optional[Manifest], after: Manifest) -> dict[str, str]:
    count = len(after.tensors)
    if before is None:
        return {"tensors": f"{count} tensors, all new", "tokenizer": "new" if _other_files(after) else "none"}
    old = {tensor.name: tensor for tensor in before.tensors}
    new = {tensor.name: tensor for tensor in after.tensors}
    changed = sum(old.get(name) != tensor for name, tensor in new.items())
    gone = len(old.keys() - new.keys())
    return {
        "tensors": f"{changed} of {count} tensors changed" + (f", {gone} gone" if gone else ""),
        "tokenizer": "same" if _other_files(before) == _other_files(after) else "changed",
        "config": ", ".join(_changed_keys(before.config, after.config)) or "same",
    }


def _other_files(manifest: Manifest) -> dict[str, str]:
    """Everything but config and weights belongs to the tokenizer."""
    own = {CONFIG_FILE, manifest.weights_file}
    return {entry.path: entry.sha256 for entry in manifest.files if entry.path not in own}


def _changed_keys(before: dict[str, t.Any], after: dict[str, t.Any]) -> list[str]:
    missing = object()
    return sorted(key for key in before.keys() | after.keys() if before.get(key, missing) != after.get(key, missing))
