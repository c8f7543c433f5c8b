# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Makes a manifest of an adapter directory, and refuses what is not the adapter that the inventory declares."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import stat
import time
import typing as t

from .._errors import DeliveryError, Problem
from .._files import read_json, write_json
from .._formats.safetensors import TensorScan, scan
from .._hashing import sha256_of_all
from .._text import first
from .declared import Declared
from .lora_config import config_problems, read_lora_config
from .manifest import (
    CONFIG_FILE,
    PICKLE_FILE,
    SAFETENSORS_FILE,
    FileEntry,
    Manifest,
    TensorEntry,
)
from .structure import structure_problems
from .tokenizer import (
    CHAT_TEMPLATE,
    TOKENIZER_CONFIG,
    tokenizer_problems,
)

# What a tokenizer may consist of. Which of these exist depends on the model and on the version of transformers that
# wrote them: version 5 writes no special_tokens_map.json and does write chat_template.jinja.
TOKENIZER_FILES = (
    TOKENIZER_CONFIG,
    "tokenizer.json",
    "special_tokens_map.json",
    CHAT_TEMPLATE,
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)

# What a further file may not be: code, or a pickle, which can carry it. Optimizers and arguments of trainers are pickles.
_CODE = (".py", ".pyc", ".so", ".sh", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")

# Of the form of a cache entry; an entry of another form is made anew.
_CACHE_SCHEMA = 2
# Two writes within one tick of the clock of a file system leave the same times: 10 ms at most, with some to spare.
_CLOCK_TICK_NS = 20_000_000

# What a look at a file tells without reading it; the same for two looks when nothing was written in between.
Signature = t.List[t.List[t.Any]]


@dataclasses.dataclass(frozen=True)
class Description:
    """An adapter directory as it was found: its manifest, what did not go into it, and whether bytes were read for it."""

    manifest: Manifest
    left_behind: list[str]
    cached: bool


def cache_entry(cache_dir: str, directory: str) -> str:
    """The path of a directory's cache entry: two directories of the same name have different ones."""
    return os.path.join(cache_dir, hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:32] + ".json")


def describe(directory: str, declared: Declared, versions: dict[str, str], cache: str, remember: bool = True) -> Description:
    """Return the Description of the adapter in C(directory).

    C(versions) are the trainer's library versions as far as they are known. C(cache) is the path of this adapter's cache
    entry, valid while inode, size, mtime_ns and ctime_ns of every file stay the same; it is written if C(remember), unless
    a file has changed so shortly ago that these could stay the same over another change.

    Raises DeliveryError when the directory holds no adapter, holds another one than declared, is damaged, or changes
    while it is looked at.
    """
    with _alone(cache) if remember else contextlib.nullcontext():
        return _describe(directory, declared, versions, cache, remember)


@contextlib.contextmanager
def _alone(cache: str) -> t.Iterator[None]:
    """Let one process at a time read an adapter: of many nodes that ask for it, the first hashes and the others wait for it."""
    with contextlib.ExitStack() as held:
        # Where nothing can be written, every one reads for itself, which is no reason to deliver nothing.
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(cache), mode=0o700, exist_ok=True)
            lock = held.enter_context(open(f"{cache}.lock", "w", encoding="utf-8"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _describe(directory: str, declared: Declared, versions: dict[str, str], cache: str, remember: bool) -> Description:
    names, left_behind = _travelling(directory, declared)
    started = time.time_ns()
    before = _look(directory, names)
    entry = _cached(cache, before)
    if entry is None:
        hashed = [name for name in names if name != SAFETENSORS_FILE]
        digests = dict(zip(hashed, sha256_of_all([os.path.join(directory, name) for name in hashed])))
        tensors: tuple[TensorScan, ...] = ()
        if SAFETENSORS_FILE in names:
            weights = scan(os.path.join(directory, SAFETENSORS_FILE))
            digests[SAFETENSORS_FILE] = (weights.size, weights.sha256)
            tensors = weights.tensors
        files = tuple(sorted(FileEntry(name, *digests[name]) for name in names))
        config = read_lora_config(os.path.join(directory, CONFIG_FILE))
    else:
        files, tensors, config = entry
    if _look(directory, names) != before:
        raise _changed(directory, declared)
    problems = [*config_problems(config, declared), *tokenizer_problems(directory, names, declared.name)]
    if SAFETENSORS_FILE in names:
        problems += structure_problems(declared.name, tensors, config, declared.base_config)
    if problems:
        raise DeliveryError(*problems)
    if entry is None and remember and all(ctime < started - _CLOCK_TICK_NS for *_seen, ctime in before):
        _write_cache(cache, before, files, tensors, config)
    if "peft_version" in config:
        versions = {"peft": str(config["peft_version"]), **versions}
    manifest = Manifest(
        name=declared.name,
        files=files,
        tensors=tuple(TensorEntry(tensor.name, tensor.dtype, tensor.shape, tensor.sha256, tensor.norm) for tensor in tensors),
        config=config,
        versions=versions,
    )
    return Description(manifest, left_behind, cached=entry is not None)


def _travelling(directory: str, declared: Declared) -> tuple[list[str], list[str]]:
    """Return the names that belong to the adapter and those that stay behind, each sorted."""
    try:
        present = sorted(os.listdir(directory))
    except FileNotFoundError:
        raise _no_adapter(declared, f"{directory} does not exist.") from None
    except OSError as exc:
        raise _no_adapter(declared, f"{directory} cannot be listed: {exc.strerror}.") from exc
    if not present:
        raise _no_adapter(declared, f"{directory} is empty.")
    if CONFIG_FILE not in present:
        raise _no_adapter(declared, f"{directory} has no {CONFIG_FILE}.")
    weights = [name for name in (SAFETENSORS_FILE, PICKLE_FILE) if name in present]
    if not weights:
        raise _no_adapter(declared, f"{directory} has no {SAFETENSORS_FILE}.")
    if len(weights) > 1:
        raise DeliveryError.of(
            declared.name,
            f"{directory} has both {SAFETENSORS_FILE} and {PICKLE_FILE}: which of them is meant cannot be told.",
            f"Remove {PICKLE_FILE}, or move it aside.",
        )
    if weights == [PICKLE_FILE] and not declared.allow_pickle:
        raise DeliveryError.of(
            declared.name,
            f"{directory} has its weights as {PICKLE_FILE}, a pickle, which can carry code.",
            f"Save it as {SAFETENSORS_FILE} (save_pretrained with safe_serialization=True), or set allow_pickle for it.",
        )
    code = [name for name in declared.extra_files if name.lower().endswith(_CODE)]
    if code:
        raise DeliveryError.of(
            declared.name,
            f"shall have {first(code)} with it, which is code or can carry it.",
            "Take it out of extra_files: an adapter is data.",
        )
    travelling = {CONFIG_FILE, *weights, *TOKENIZER_FILES, *declared.extra_files} & set(present)
    problems = []
    for name in sorted(travelling):
        try:
            mode = os.lstat(os.path.join(directory, name)).st_mode
        except FileNotFoundError:
            raise _changed(directory, declared) from None
        if not stat.S_ISREG(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a plain file"
            problems.append(
                Problem(
                    declared.name,
                    f"{os.path.join(directory, name)} is {kind}.",
                    "Put the file itself there (cp -L): links, directories and devices never travel.",
                )
            )
    if problems:
        raise DeliveryError(*problems)
    return sorted(travelling), sorted(set(present) - travelling)


def _no_adapter(declared: Declared, found: str) -> DeliveryError:
    return DeliveryError.of(
        declared.name, found, "Check the name in the inventory and that the training has saved the adapter there."
    )


def _changed(directory: str, declared: Declared) -> DeliveryError:
    return DeliveryError.of(
        declared.name,
        f"changed while it was read: {directory} is still being written.",
        "Wait until the training has ended and run again.",
    )


def _look(directory: str, names: list[str]) -> Signature:
    """What can be seen of the files without reading them."""
    signature: Signature = []
    for name in names:
        try:
            found = os.lstat(os.path.join(directory, name))
        except FileNotFoundError:
            continue
        signature.append([name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns])
    return signature


_Entry = t.Tuple[t.Tuple[FileEntry, ...], t.Tuple[TensorScan, ...], t.Dict[str, t.Any]]


def _cached(cache: str, signature: Signature) -> t.Optional[_Entry]:
    """The cache entry if it is of these very files; anything else is no entry, since it can always be made anew."""
    try:
        entry = read_json(cache)
        if entry["schema"] != _CACHE_SCHEMA or entry["signature"] != signature:
            return None
        files = tuple(FileEntry(**item) for item in entry["files"])
        tensors = tuple(TensorScan(**{**item, "shape": tuple(item["shape"])}) for item in entry["tensors"])
        return files, tensors, entry["config"]
    except (DeliveryError, KeyError, TypeError):
        return None


def _write_cache(
    cache: str,
    signature: Signature,
    files: tuple[FileEntry, ...],
    tensors: tuple[TensorScan, ...],
    config: dict[str, t.Any],
) -> None:
    entry = {
        "schema": _CACHE_SCHEMA,
        "signature": signature,
        "files": [dataclasses.asdict(file) for file in files],
        "tensors": [dataclasses.asdict(tensor) for tensor in tensors],
        "config": config,
    }
    # Without an entry the next run reads the files again.
    with contextlib.suppress(OSError):
        write_json(cache, entry, mode=0o600)
