# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Recognizes files that are not what their name says by their first bytes."""

from __future__ import annotations

import os
import typing as t

from .._files import open_regular

_LFS_BEGINNING = b"version https://git-lfs"
# The format limits a pointer to this size.
_LFS_LIMIT = 1024

FETCH_LFS = "Run 'git lfs pull' in the directory it was cloned to."


class FileKind(t.NamedTuple):
    """A kind of file: the end of a sentence that begins with its name, and the remedy."""

    what: str
    remedy: str


_AS_SAFETENSORS = "Save the adapter as safetensors (safe_serialization=True)."
_KINDS: tuple[tuple[tuple[bytes, ...], FileKind], ...] = (
    ((_LFS_BEGINNING,), FileKind("is a Git LFS pointer, not the file itself", FETCH_LFS)),
    (
        (b"<!doctype html", b"<html"),
        FileKind(
            "is an HTML page, probably the error page of a download",
            "Download the file again and check what the server returned.",
        ),
    ),
    (
        (b"pk\x03\x04",),
        FileKind("is a zip archive, probably a pickle that torch.save wrote", _AS_SAFETENSORS),
    ),
    (
        (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        FileKind("is a pickle", _AS_SAFETENSORS),
    ),
)


def kind_of(head: bytes) -> FileKind | None:
    """Return the kind that the first bytes of a file show, None if they show none of those."""
    head = head[:64].lstrip().lower()
    return next((kind for beginnings, kind in _KINDS if head.startswith(beginnings)), None)


def is_lfs_pointer(path: str) -> bool:
    """Return whether a file is a Git LFS pointer. Raises DeliveryError as ``open_regular`` does."""
    with open_regular(path) as stream:
        if os.fstat(stream.fileno()).st_size > _LFS_LIMIT:
            return False
        return stream.read(len(_LFS_BEGINNING)) == _LFS_BEGINNING
