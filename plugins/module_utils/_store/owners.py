# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Refuse directories that another user could exchange, like StrictModes of sshd.

Whoever owns a directory, or may write to it, can exchange what is in it for a link while a delivery
works there. As root, it could so be made to change any file of the node. So for root, every
directory on the way to the models directory and the store has to belong to root, and nobody else
may write to it. An ordinary user may share these directories with others. In either case, the store
and its directories have to belong to root or the user of the run. The models directory itself may
be anybody's: names in it are used without following links.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
import typing as t

from .._errors import DeliveryError

_MOST_LINKS = 40


def check_way_to_models_dir(models_dir: str) -> None:
    """Raise DeliveryError if root runs and another user could exchange the models directory."""
    place = "Put the models directory, which itself may belong to any user, below directories that only root can change"
    _check_way(models_dir, f"the models directory {models_dir}", f"{place}, and set the option models_dir to it.")


def check_way_to_store(store: str) -> None:
    """Raise DeliveryError if root runs and another user could exchange the store."""
    place = "Set the option store to a place below directories that only root can change"
    _check_way(store, f"the store {store}", f"{place}, on the file system of the models directory.")


def check_owned(directory: str) -> None:
    """Raise DeliveryError if another user could change what is in a directory of the store.

    One that does not exist is in order.
    """
    try:
        status = os.lstat(directory)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise _unknown(directory, exc) from exc
    if stat.S_ISLNK(status.st_mode):
        raise DeliveryError.of(directory, "is a link, which no delivery makes.", "Move it aside and deploy again.")
    who, remedy = _other_owner(status), f"If an earlier run as {_user(status.st_uid)} made it, run as that user again."
    if who is None:
        who, remedy = _other_writers(status), f"If nobody has changed anything in it: chmod go-w {directory}."
    if who is not None:
        remedy += " Otherwise move it aside and deploy again; what is served is not transferred a second time."
        raise DeliveryError.of(directory, f"{who}, who could change what it contains.", remedy)


def _check_way(path: str, what: str, remedy: str) -> None:
    if os.geteuid() != 0:
        return
    try:
        way = [*_way(path)]
    except OSError as exc:
        raise _unknown(path, exc) from exc
    for directory, status, inner in way:
        who, other = _other_owner(status), "give that directory to root"
        # In a sticky directory, users can exchange only what is their own.
        sticky = status.st_mode & stat.S_ISVTX and (inner is None or _is_trusted(inner.st_uid))
        if who is None and not sticky:
            who, other = _other_writers(status), f"take the right to write away: chmod go-w {directory}"
        if who is not None:
            raise DeliveryError.of(directory, f"{who}, who could exchange {what}.", f"{remedy} Or {other}.")


def _unknown(path: str, exc: OSError) -> DeliveryError:
    return DeliveryError.of(exc.filename or path, f"cannot be inspected: {exc.strerror}.", "Run with become.")


def _way(path: str) -> t.Iterator[tuple[str, os.stat_result, os.stat_result | None]]:
    """Yield each directory on the way to ``path``, and the status of the next name in it.

    Links are followed, the last one too. The status is None for a name that does not exist, which
    ends the way. Raises OSError.
    """
    # Not abspath: it takes ".." after a link for the directory that the link is in.
    current, pending, links = "/", os.path.join(os.getcwd(), path).split("/")[::-1], 0
    while pending:
        name = pending.pop()
        if name in ("", "."):
            continue
        if name == "..":
            current = os.path.dirname(current)
            continue
        inner = os.path.join(current, name)
        status: os.stat_result | None = None
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(inner)
        yield current, os.lstat(current), status
        if status is None:
            return
        if not stat.S_ISLNK(status.st_mode):
            current = inner
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = os.readlink(inner)
        current = "/" if os.path.isabs(target) else current
        pending += target.split("/")[::-1]


def _is_trusted(uid: int) -> bool:
    return uid in (0, os.geteuid())


def _other_owner(status: os.stat_result) -> str | None:
    """Return the text of a message about an owner who is neither root nor the user of the run."""
    if _is_trusted(status.st_uid):
        return None
    return f"belongs to {_user(status.st_uid)} (mode {stat.S_IMODE(status.st_mode):04o})"


def _other_writers(status: os.stat_result) -> str | None:
    """Return the text of a message about others who may write to a directory."""
    if status.st_mode & stat.S_IWOTH:
        writers = "every user"
    elif status.st_mode & stat.S_IWGRP and not _is_private_group(status):
        writers = _group(status.st_gid)
    else:
        return None
    owner = _user(status.st_uid)
    return f"belongs to {owner} (mode {stat.S_IMODE(status.st_mode):04o}) and can be written by {writers}"


def _is_private_group(status: os.stat_result) -> bool:
    """Return whether the group of a file has its owner as the only member.

    Where every user has such a group, directories are usually writable for it.
    """
    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    return owner.pw_gid == group.gr_gid and group.gr_name == owner.pw_name and {*group.gr_mem} <= {owner.pw_name}


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return f"group {grp.getgrgid(gid).gr_name}"
    except KeyError:
        return f"group {gid}"
