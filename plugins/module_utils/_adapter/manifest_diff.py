# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The difference between two manifests, for ``--diff`` and for reports. It reads no files."""

from __future__ import annotations

import json
import math
import re
import typing as t

from .._text import cut
from .files import CHAT_TEMPLATE, CONFIG_FILE
from .manifest import Manifest

# Keys of adapter_config.json that are shown under the name of the module option.
_OPTION_NAMES = {"r": "rank", "lora_alpha": "alpha"}
_NOT_SET = "not set"
# What PEFT adds before and after the name of a module, for LoRA layers and for saved modules.
_PARAMETER = re.compile(r"^base_model\.model\.|\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)\b.*$|\.(weight|bias)$")
# Smaller changes are not reported by number: a norm is accurate to about one percent.
_NOISE = 0.05
# The answer of a module with more would not pass the controller's gate.
_MOST_NAMES = 1000
_LONG_CONFIG, _DEEP_CONFIG = 8000, 5


def manifest_diff(before: Manifest | None, after: Manifest | None, complete: bool = False) -> dict[str, dict[str, t.Any]]:
    """Return ``before`` and ``after`` as short dictionaries, as ``--diff`` shows them.

    They are equal for the same release, and empty for None. With ``complete``, they also name the
    tensors and files that changed, up to a thousand of each kind, and do not shorten the values of
    a configuration that is not very long.
    """
    described = {"before": _describe(before), "after": _describe(after)}
    if after is not None and (before is None or before.digest != after.digest):
        described["after"].update(_changes(before, after, complete))
    if before is not None and after is not None:
        keys = _changed(_normalized(before.config), _normalized(after.config)) - _OPTION_NAMES.keys()
        for side, manifest in (("before", before), ("after", after)):
            described[side].update(_config(manifest, keys, complete))
    return described


def _describe(manifest: Manifest | None) -> dict[str, t.Any]:
    if manifest is None:
        return {}
    return {"release": manifest.release, **{name: manifest.config.get(key) for key, name in _OPTION_NAMES.items()}}


def _config(manifest: Manifest, keys: t.Collection[str], complete: bool) -> dict[str, t.Any]:
    config = _normalized(manifest.config)
    values = {key: config.get(key, _NOT_SET) for key in sorted(keys)}
    if not complete or _is_long(json.dumps(values)):
        values = {key: _short(value) for key, value in values.items()}
    return {"config": values} if values else {}


def _normalized(config: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the configuration with sorted lists, because PEFT saves sets of names in any order."""
    return {key: sorted(value, key=str) if isinstance(value, list) else value for key, value in config.items()}


def _is_long(text: str) -> bool:
    """Return whether a JSON text has more values or levels than an answer may have."""
    depth = deepest = 0
    for sign in re.findall(r"[\[\]{}]", text):
        depth += 1 if sign in "[{" else -1
        deepest = max(deepest, depth)
    return len(text) > _LONG_CONFIG or deepest > _DEEP_CONFIG


def _short(value: t.Any) -> t.Any:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return value if cut(text) == text and not _is_long(text) else cut(text)


def _changes(before: Manifest | None, after: Manifest, complete: bool) -> dict[str, t.Any]:
    parts = {"tokenizer": _tokenizer_of, "chat_template": _template_of}
    found = {part: _compared(of(before) if before else {}, of(after)) for part, of in parts.items()}
    if before is None:
        return {"tensors": f"{len(after.tensors)} tensors, all new", **found}
    old = {tensor.name: tensor for tensor in before.tensors}
    new = {tensor.name: tensor for tensor in after.tensors}
    changed = sorted(_changed(old, new) & old.keys() & new.keys())
    added, removed = sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys())
    norms = _norm_changes(before, after)
    words = [f"{len(changed)} of {len(new)} tensors changed"]
    words += [f"{len(names)} {what}" for names, what in ((added, "added"), (removed, "removed")) if names]
    lists = {"tensors_changed": changed, "tensors_added": added, "tensors_removed": removed}
    lists["files_changed"] = sorted(_changed(_sha256s(before), _sha256s(after)))
    named: dict[str, t.Any] = {name: names[:_MOST_NAMES] for name, names in lists.items() if names and complete}
    if norms and complete:
        named["norms"] = {module: _percent(change) for module, change in sorted(norms.items())[:_MOST_NAMES]}
    if norms:
        most = max(norms, key=lambda module: (abs(norms[module]), module))
        significant = abs(norms[most]) >= _NOISE
        change = f"{_percent(norms[most])} in {most}" if significant else f"less than {100 * _NOISE:.0f} % anywhere"
        found = {"largest_change_of_norm": change, **found}
    return {"tensors": ", ".join(words), **found, **named}


def _norm_changes(before: Manifest, after: Manifest) -> dict[str, float]:
    """Return the relative change of each module's norm, for modules in both manifests."""
    old, new = _norms(before), _norms(after)
    return {module: new[module] / old[module] - 1 for module in old.keys() & new.keys() if old[module]}


def _norms(manifest: Manifest) -> dict[str, float]:
    """Return the norm of each module over all of its tensors.

    Modules with a tensor without norm, or whose norm is not finite, are left out.
    """
    squares: dict[str, float] = {}
    for tensor in manifest.tensors:
        module = _PARAMETER.sub("", tensor.name)
        norm = math.nan if tensor.norm is None else tensor.norm
        # A product that is too large is infinite; the power operator would raise OverflowError.
        squares[module] = squares.get(module, 0.0) + norm * norm
    return {module: math.sqrt(square) for module, square in squares.items() if math.isfinite(square)}


def _percent(change: float) -> str:
    return f"{100 * change:+.0f} %"


def _compared(before: dict[str, str], after: dict[str, str]) -> str:
    if before == after:
        return "same" if after else "none"
    return "changed" if before and after else "new" if after else "removed"


def _sha256s(manifest: Manifest) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in manifest.files}


def _tokenizer_of(manifest: Manifest) -> dict[str, str]:
    """Return the hashes of all files but the configuration, the weights and the chat template."""
    own = {CONFIG_FILE, manifest.weights_file, CHAT_TEMPLATE}
    return {path: sha256 for path, sha256 in _sha256s(manifest).items() if path not in own}


def _template_of(manifest: Manifest) -> dict[str, str]:
    return {path: sha256 for path, sha256 in _sha256s(manifest).items() if path == CHAT_TEMPLATE}


def _changed(before: t.Mapping[str, t.Any], after: t.Mapping[str, t.Any]) -> set[str]:
    missing = object()
    return {key for key in before.keys() | after.keys() if before.get(key, missing) != after.get(key, missing)}
