# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The identity of a base, used to compare the base on a node with the one used in training.

It is computed without reading all of the base. The name, dtype and shape of every tensor and a
sample of its bytes (4 KiB each at its beginning, middle and end) are hashed in the order of the
names, so that the hash does not depend on how the weights are split into shards. Two bases of the
same shape differ in nearly every tensor, so the sample distinguishes them; it does not detect a few
damaged bytes. This takes milliseconds even for gigabytes of weights, so it needs no cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import typing as t

from .._errors import DeliveryError
from .._formats.safetensors import open_header
from .._text import shown
from .config import PROVIDE_BASE, read_base_json
from .weights import base_weights

SAMPLE = 4096

# Keys of config.json that differ between copies of a base but do not affect what it computes.
_INCIDENTAL = frozenset({"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"})

Identity = t.Dict[str, t.Any]


def identify(path: str) -> Identity:
    """Return the identity of the base at ``path``.

    Its keys are ``config``, ``vocabulary`` (None for a base without a tokenizer), ``weights`` and
    ``tensors`` (their number). Raises DeliveryError when the base is incomplete.
    """
    try:
        shards = base_weights(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise _incomplete(path, f"its index cannot be read: {exc}") from exc
    config = read_base_json(path, "config.json")
    if not isinstance(config, dict):
        raise _incomplete(path, "it has no config.json")
    if not shards:
        raise _incomplete(path, "it has no safetensors weights")
    samples = sorted(sample for shard in shards for sample in _samples(shard))
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(json.dumps(sample).encode())
    return {
        "config": config,
        "vocabulary": _vocabulary(path),
        "weights": digest.hexdigest(),
        "tensors": len(samples),
    }


class Identities:
    """The identities of bases, each computed once however many adapters share it."""

    def __init__(self) -> None:
        self._known: dict[str, Identity] = {}

    def at(self, path: str | None) -> Identity | None:
        """Return the identity of the base at ``path``; None without one. Raises DeliveryError."""
        if not path:
            return None
        if path not in self._known:
            self._known[path] = identify(path)
        return self._known[path]


def _samples(shard: str) -> t.Iterator[tuple[str, str, tuple[int, ...], str]]:
    """Yield name, dtype, shape and the sha256 of the sample of each tensor in a file."""
    # A snapshot in the Hub's cache consists of links.
    with open_header(os.path.realpath(shard)) as (prefix, header, stream):
        for tensor in header.tensors:
            size = tensor.end - tensor.start
            digest = hashlib.sha256()
            for offset in sorted({0, max(0, size // 2 - SAMPLE // 2), max(0, size - SAMPLE)}):
                digest.update(os.pread(stream.fileno(), min(SAMPLE, size - offset), len(prefix) + tensor.start + offset))
            yield tensor.name, tensor.dtype, tensor.shape, digest.hexdigest()


def _vocabulary(path: str) -> str | None:
    """Return the sha256 of all token ids and texts. The file differs between library versions."""
    tokenizer = read_base_json(path, "tokenizer.json")
    try:
        words = tokenizer["model"]["vocab"]
        listed = list(words.items()) if isinstance(words, dict) else [(entry[0], place) for place, entry in enumerate(words)]
        listed += [(added["content"], added["id"]) for added in tokenizer.get("added_tokens") or ()]
    except (KeyError, TypeError, AttributeError, IndexError):
        return None
    lines = [f"{place} {word}" for word, place in sorted(set(listed), key=lambda entry: (entry[1], entry[0]))]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()


def differences(trained: Identity, here: Identity) -> tuple[list[str], list[str]]:
    """Return the differences that make this another base, and those of a mere copy.

    ``trained`` is the identity at training, ``here`` the one on this host.
    """
    wrong = []
    before, now = _comparable(trained["config"]), _comparable(here["config"])
    for key in sorted(before.keys() & now.keys()):
        if before[key] != now[key]:
            wrong.append(f"{key} in its config.json is {shown(now[key])}; in training it was {shown(before[key])}")
    if trained["tensors"] != here["tensors"]:
        wrong.append(f"it has {here['tensors']} tensors; in training it had {trained['tensors']}")
    elif trained["weights"] != here["weights"]:
        wrong.append(f"its weights differ (sample {here['weights'][:12]}; in training {trained['weights'][:12]})")
    notes = []
    if None not in (trained["vocabulary"], here["vocabulary"]) and trained["vocabulary"] != here["vocabulary"]:
        notes.append("The tokenizer of its base has another vocabulary than in training.")
    return wrong, notes


def _comparable(config: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return what a config.json defines, in the same form for all versions of transformers."""
    kept = {key: value for key, value in config.items() if key not in _INCIDENTAL and not key.endswith("_token_id")}
    scaling = {**(kept.pop("rope_scaling", None) or {}), **(kept.pop("rope_parameters", None) or {})}
    theta = scaling.pop("rope_theta", kept.pop("rope_theta", None))
    kind = scaling.pop("rope_type", scaling.pop("type", "default"))
    # The old key of the type, which may be present beside the new one.
    scaling.pop("type", None)
    # Without rope_theta, the default of the model applies, which other versions write explicitly.
    return {**kept, "rope": {"type": kind, **scaling}, **({} if theta is None else {"rope_theta": theta})}


def _incomplete(path: str, why: str) -> DeliveryError:
    return DeliveryError.of(f"base {path}", f"is incomplete: {why}.", PROVIDE_BASE)
