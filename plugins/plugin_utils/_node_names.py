# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Names of nodes for people: in the order of their numbers, and many of them as ranges."""

from __future__ import annotations

import collections.abc as c
import re

# Up to this many names are listed one by one. A range stands for at least as many.
_FEW = 3
# What has a meaning in a range, so a name that contains it is never part of one.
_RESERVED = re.compile(r"[\[\]:,\s]")


def by_number(name: str) -> list[str | int]:
    """Return a sort key that puts node-2 before node-10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def listed(names: c.Iterable[str]) -> str:
    """Return all of the names, whatever their number.

    More than three are in the order of their numbers, and those in a row are a range as inventory
    files have it: ``jw2-[1:50]``, ``jw3-1``.
    """
    found = list(dict.fromkeys(names))
    if len(found) <= _FEW:
        return ", ".join(found)
    runs: list[list[str]] = []
    # Which part of the names grows in the last run.
    place: int | None = None
    for name in sorted(found, key=by_number):
        run = runs[-1] if runs else []
        step = _step(run[0], run[-1], name) if run else None
        if step is not None and (len(run) == 1 or step == place):
            run.append(name)
            place = step
        elif len(run) == 2 and (step := _step(run[-1], run[-1], name)) is not None:
            # Two are no range, so the second one may begin another.
            runs.append([run.pop(), name])
            place = step
        else:
            runs.append([name])
    return ", ".join(map(_range, runs))


def _range(run: c.Sequence[str]) -> str:
    if len(run) < _FEW:
        return ", ".join(run)
    parts, last = _parts(run[0]), _parts(run[-1])
    [place] = [number for number, pair in enumerate(zip(parts, last)) if pair[0] != pair[1]]
    parts[place] = f"[{parts[place]}:{last[place]}]"
    return "".join(parts)


def _step(start: str, name: str, following: str) -> int | None:
    """Return which part of ``name`` is one less in ``following``, in a range that has a ``start``.

    None if they do not follow each other.
    """
    if _RESERVED.search(name + following):
        return None
    parts, others = _parts(name), _parts(following)
    differing = [number for number, pair in enumerate(zip(parts, others)) if pair[0] != pair[1]]
    if len(parts) != len(others) or len(differing) != 1 or not differing[0] % 2:
        return None
    [place] = differing
    begin, number = _parts(start)[place], parts[place]
    # Ansible fills numbers with zeros to the length of the first one, if that begins with a zero.
    filled = len(begin) > 1 and begin.startswith("0")
    right = others[place] == str(int(number) + 1).zfill(len(begin) if filled else 1)
    return place if right and (not filled or len(others[place]) == len(begin)) else None


def _parts(name: str) -> list[str]:
    """Return texts and numbers in turns, a text first. Larger numbers are texts."""
    return re.split(r"((?<![0-9])[0-9]{1,15}(?![0-9]))", name)
