# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Select the files of a directory that belong to the adapter."""

from __future__ import annotations

import dataclasses
import os
import stat
import typing as t

from .._errors import DeliveryError, Problem, about
from .._formats.file_kinds import FETCH_LFS, is_lfs_pointer
from .._names import check_path
from .._text import first, printable
from .declaration import Declaration
from .excluded import Excluded, excluded
from .files import CHAT_TEMPLATE_DIR, CONFIG_FILE, PICKLE_FILE, SAFETENSORS_FILE, is_code, is_tokenizer_file
from .other_formats import adapters_below, format_of

_FOLLOW = (
    "Replace links with the files themselves (cp -rL copies a directory that way), or list {directory} in"
    " link_dirs (variable training_link_dirs) to have links into it followed."
)


@dataclasses.dataclass(frozen=True)
class Selection:
    """The files of a directory that belong to the adapter, and what else there is.

    ``paths`` has the path to read each file at, by its name and in the order of the names. It is
    that of the file itself where the directory has a link.
    """

    paths: dict[str, str]
    excluded: list[Excluded]


def source_directory(models_dir: str, declared: Declaration, link_dirs: t.Sequence[str] = ()) -> str:
    """Return the directory of an adapter at the source, without links in its path.

    The directory of the adapter's name may be a link. Raises DeliveryError if a link in its
    subdirectory leads to anywhere else than into one of ``link_dirs``.
    """
    top = os.path.realpath(os.path.join(models_dir, declared.name))
    expected = os.path.join(top, declared.subdirectory) if declared.subdirectory else top
    found = os.path.realpath(expected)
    if found != expected and not _is_inside(found, link_dirs):
        problem = f"{expected} is reached by a link, which leads to {found}."
        raise DeliveryError.of("", problem, _FOLLOW.format(directory=os.path.dirname(found)), declared.name)
    return found


def tokenizer_above(models_dir: str, declared: Declaration, paths: t.Collection[str]) -> str | None:
    """Return a warning if the tokenizer is in a directory above the adapter's subdirectory.

    PEFT saves an adapter with a name into a subdirectory, but its tokenizer stays above.
    """
    if not declared.subdirectory or any(map(is_tokenizer_file, paths)):
        return None
    above = os.path.join(declared.name, os.path.dirname(declared.subdirectory))
    while above:
        directory = os.path.join(models_dir, above)
        found = sorted(filter(is_tokenizer_file, os.listdir(directory))) if os.path.isdir(directory) else []
        if found:
            return (
                f"adapter {declared.name}: is delivered without the tokenizer in {directory} ({first(found)})."
                f" If serving needs it, copy these files into {declared.subdirectory}."
            )
        above = os.path.dirname(above)
    return None


def select_files(directory: str, declared: Declaration, link_dirs: t.Sequence[str] = ()) -> Selection:
    """Return the files to deliver from ``directory``.

    Links to plain files in one of ``link_dirs`` count as these files. Raises DeliveryError if there
    is no complete adapter.
    """
    try:
        present = _present(directory, declared)
    except FileNotFoundError:
        raise _no_adapter(declared, f"{directory} does not exist.") from None
    except OSError as exc:
        raise _no_adapter(declared, f"{directory} cannot be listed: {exc.strerror}.") from exc
    if not present:
        raise _no_adapter(declared, f"{directory} is empty.")
    weights = next((name for name in (SAFETENSORS_FILE, PICKLE_FILE) if name in present), None)
    if CONFIG_FILE not in present:
        raise _other(declared, directory, present, CONFIG_FILE)
    if weights is None:
        raise _other(declared, directory, present, SAFETENSORS_FILE)
    if weights == PICKLE_FILE and not declared.allow_pickle:
        raise DeliveryError.of(
            "",
            f"{directory} has its weights as {PICKLE_FILE}, a pickle, which can carry code.",
            f"Save it as {SAFETENSORS_FILE} (save_pretrained with safe_serialization=True), or set allow_pickle.",
            declared.name,
        )
    code = [name for name in declared.extra_files if is_code(name)]
    if code:
        raise DeliveryError.of(
            "",
            f"has {first(code)} in extra_files, which is code or can carry code.",
            "Remove it from extra_files: only data is delivered.",
            declared.name,
        )
    wanted = {CONFIG_FILE, weights, CHAT_TEMPLATE_DIR, *declared.extra_files} - {os.path.dirname(path) for path in present}
    names = [name for name in present if name in wanted or is_tokenizer_file(name)]
    with about(declared.name):
        names = [check_path(name) for name in names]
    paths = _resolve(directory, names, declared, link_dirs)
    delivered = {*names, *map(os.path.dirname, names)}
    return Selection(paths, [excluded(directory, name) for name in present if name not in delivered])


def _present(directory: str, declared: Declaration) -> list[str]:
    """Return what is in a directory, and in its subdirectories that may have files to deliver.

    Raises OSError.
    """
    present = os.listdir(directory)
    for inner in {CHAT_TEMPLATE_DIR, *map(os.path.dirname, declared.extra_files)} & {*present}:
        path = os.path.join(directory, inner)
        if os.path.isdir(path) and not os.path.islink(path):
            present += [os.path.join(inner, name) for name in os.listdir(path)]
    return sorted(present)


def changed(directory: str, declared: Declaration) -> DeliveryError:
    return DeliveryError.of(
        "",
        f"changed while it was read: {directory} is still being written.",
        "Wait until the training has ended, then run again.",
        declared.name,
    )


def _resolve(directory: str, names: list[str], declared: Declaration, link_dirs: t.Sequence[str]) -> dict[str, str]:
    """Return the path of each file.

    Raises DeliveryError for links that may not be followed, for whatever is not a file, and for Git
    LFS pointers.
    """
    problems: list[Problem] = []
    paths: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name in names:
        path = paths[name] = os.path.join(directory, name)
        try:
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                paths[name] = os.path.realpath(path)
                if not _is_inside(paths[name], link_dirs):
                    refused[name] = paths[name]
                    continue
                mode = os.lstat(paths[name]).st_mode
        except FileNotFoundError:
            if os.path.islink(path):
                problem = f"{path} is a symbolic link that leads to nothing."
                problems.append(Problem("", problem, "Copy the adapter again, with the files themselves.", declared.name))
                continue
            raise changed(directory, declared) from None
        if not stat.S_ISREG(mode):
            remedy = "Replace it with a plain file: directories, FIFOs and devices are never delivered."
            problems.append(Problem("", f"{path} is not a plain file.", remedy, declared.name))
    if refused:
        what = f"{os.path.join(directory, next(iter(refused)))} is a symbolic link"
        if len(refused) > 1:
            what = f"{directory} has {len(refused)} symbolic links instead of files: {first(refused)}"
        common = os.path.commonpath([os.path.dirname(path) for path in refused.values()])
        problems.append(Problem("", f"{what}, into {common}.", _FOLLOW.format(directory=common), declared.name))
    if problems:
        raise DeliveryError(*problems)
    pointers = [name for name, path in paths.items() if is_lfs_pointer(path)]
    if pointers:
        what = "is a Git LFS pointer, not the file itself" if len(pointers) == 1 else "are Git LFS pointers, not the files"
        raise DeliveryError.of("", f"{first(pointers)} in {directory} {what}.", FETCH_LFS, declared.name)
    return paths


def _is_inside(path: str, directories: t.Sequence[str]) -> bool:
    """Return whether a path without links is below one of ``directories``."""
    return any(os.path.commonpath([path, top]) == top != path for top in map(os.path.realpath, directories))


def _no_adapter(declared: Declaration, found: str) -> DeliveryError:
    return DeliveryError.of(
        "", found, "Check the name in the inventory and that the training has saved the adapter there.", declared.name
    )


def _other(declared: Declaration, directory: str, present: list[str], missing: str) -> DeliveryError:
    """Return the error for a directory without one of the files that PEFT writes."""
    problem = f"{directory} has no {missing}"
    below = adapters_below(directory)
    if below:
        return DeliveryError.of(
            "",
            f"{problem}, but there are adapters in directories below it: {first(f'{printable(path)}/' for path in below)}.",
            f"Name the one to deliver in the adapter's row, such as 'subdirectory: {printable(below[-1])}'.",
            declared.name,
        )
    known = format_of(present)
    if known is None:
        return _no_adapter(declared, f"{problem}.")
    name, found = known
    return DeliveryError.of("", f"{problem}; {printable(name)} is {found.what}.", found.remedy, declared.name)
