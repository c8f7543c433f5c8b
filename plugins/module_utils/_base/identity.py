# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Which base a directory holds, told without reading all of it, so that a node's can be compared with the trainer's.

Of every tensor the name, dtype, shape and a sample of its bytes (4 KiB each at its beginning, middle and end) go into one
sha256, in the order of names: the same for the same weights in other shards. Two bases of one shape differ in nearly every
tensor, so the sample tells them apart; a few damaged bytes it does not see. It costs some milliseconds for gigabytes,
needs no cache, and is the same work on every host.
"""

from __future__ import annotations

import hashlib
import json
import os
import typing as t

from .._errors import DeliveryError
from .._formats.safetensors import open_header
from .._text import shown
from .config import BRING_BASE, read_base_json
from .weights import base_weights

SAMPLE = 4096

# Keys of config.json that differ between copies of one base and change nothing that the model computes.
_INCIDENTAL = frozenset({"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"})

Identity = t.Dict[str, t.Any]


def identify(path: str) -> Identity:
    """The identity of the base at C(path): C(config), C(vocabulary), C(weights), C(tensors) (how many).

    C(vocabulary) is null for a base without a tokenizer. Raises DeliveryError when the base is not whole.
    """
    try:
        shards = base_weights(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise _not_whole(path, f"its index cannot be read: {exc}") from exc
    config = read_base_json(path, "config.json")
    if not isinstance(config, dict):
        raise _not_whole(path, "it has no config.json")
    if not shards:
        raise _not_whole(path, "it has no safetensors weights")
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
    """The identities of the bases of one call, each found out once however many adapters share it."""

    def __init__(self) -> None:
        self._known: dict[str, Identity] = {}

    def at(self, path: t.Optional[str]) -> t.Optional[Identity]:
        """The identity of the base at C(path), or None without a path. Raises DeliveryError as C(identify) does."""
        if not path:
            return None
        if path not in self._known:
            self._known[path] = identify(path)
        return self._known[path]


def _samples(shard: str) -> t.Iterator[tuple[str, str, tuple[int, ...], str]]:
    """Name, dtype, shape and the sha256 of the sample of each tensor in a file."""
    # A snapshot in the cache of the Hub consists of links.
    with open_header(os.path.realpath(shard)) as (prefix, header, stream):
        for tensor in header.tensors:
            size = tensor.end - tensor.start
            digest = hashlib.sha256()
            for offset in sorted({0, max(0, size // 2 - SAMPLE // 2), max(0, size - SAMPLE)}):
                digest.update(os.pread(stream.fileno(), min(SAMPLE, size - offset), len(prefix) + tensor.start + offset))
            yield tensor.name, tensor.dtype, tensor.shape, digest.hexdigest()


def _vocabulary(path: str) -> t.Optional[str]:
    """sha256 of which text each token id stands for; the file itself differs with the version that wrote it."""
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
    """In what the base here is another than the one trained on, and in what it merely is another copy of it."""
    wrong = []
    before, now = _comparable(trained["config"]), _comparable(here["config"])
    for key in sorted(before.keys() & now.keys()):
        if before[key] != now[key]:
            wrong.append(f"{key} in its config.json is {shown(now[key])}, it was {shown(before[key])} in the training")
    if trained["tensors"] != here["tensors"]:
        wrong.append(f"it has {here['tensors']} tensors, it had {trained['tensors']} in the training")
    elif trained["weights"] != here["weights"]:
        wrong.append(f"its weights are others (sample {here['weights'][:12]}, {trained['weights'][:12]} in the training)")
    notes = []
    if None not in (trained["vocabulary"], here["vocabulary"]) and trained["vocabulary"] != here["vocabulary"]:
        notes.append("The tokenizer of its base has another vocabulary than in the training.")
    return wrong, notes


def _comparable(config: dict[str, t.Any]) -> dict[str, t.Any]:
    """What a config.json says of the computation, in one spelling whatever version of transformers wrote it."""
    kept = {key: value for key, value in config.items() if key not in _INCIDENTAL and not key.endswith("_token_id")}
    scaling = {**(kept.pop("rope_scaling", None) or {}), **(kept.pop("rope_parameters", None) or {})}
    theta = scaling.pop("rope_theta", kept.pop("rope_theta", None))
    kind = scaling.pop("rope_type", scaling.pop("type", "default"))
    # Another spelling of the type that the new one is written beside.
    scaling.pop("type", None)
    # Without a theta it is the default of the model, which another version writes out.
    return {**kept, "rope": {"type": kind, **scaling}, **({} if theta is None else {"rope_theta": theta})}


def _not_whole(path: str, why: str) -> DeliveryError:
    return DeliveryError.of(f"base {path}", f"is not whole: {why}.", BRING_BASE)
