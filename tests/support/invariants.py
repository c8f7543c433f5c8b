# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must hold on a node's disk whatever happened to a run, checked by a witness that shares no code with the collection.

    python3 invariants.py < EXPECTATIONS      prints a JSON list of violations, and ends with 1 when there are any
    python3 invariants.py list DIRECTORY ...  prints a JSON object of listings, as "untouched" wants them

Standard library of Python 3.9 only, one file: it can be sent to any node. EXPECTATIONS is JSON; keys with a "?" may be left
out:

    models_dir, store   where things lie
    code                how the run ended: 0, another exit status, or null when it was killed or the power went
    message?            what a run that failed said
    fsync_failed?       true when the kernel told the run that bytes did not reach the disk
    again?              {"code": 0, "changed": false}: how one more run ended that had nothing to do. With it, the node must
                        be in order, without anything that a fault left
    unseen_readers?     true where the node cannot see who has a directory open: what was replaced may wait in the trash for
                        those who have just begun to read it
    untouched?          {DIRECTORY: listing from before}: must be as before, except NAME in models_dir and in the store
    adapters            {NAME: ...}, for each adapter that the run was about:
        releases        {DIGEST12: {FILE: SHA256}}: every release that this node may know
        wanted          the DIGEST12 that was to become active
        active?         the DIGEST12 that was active before
        before?         {FILE: SHA256} that stood at NAME before; absent when there was nothing
        survives?       [{FILE: SHA256}, ...]: content that must not be lost, such as what was made by hand
        method?            "exchange" (NAME is a plain directory) or "symlink"; either one when absent
        damaged?        [DIGEST12, ...]: releases that were damaged in the store before the run
        modes?          {"file": "0644", "directory": "0755"}, as what is wanted shall have them

The invariants:

    I1   NAME, opened through one directory handle, is one whole release: what stood there before, or what was wanted.
    I2   No byte that was active before, or made by hand, is lost.
    I3   Exit status 0: what was wanted is active, recorded, and whole in the store.
    I4   Another exit status: what stood there before still does, or the message names the release that is active now.
    I5   What is recorded can be read; a run again ends well, then has nothing to do, and nothing is left lying about.
    I6   Nothing else was touched.
    I7   The lock is free.
    I8   What became active has a receipt: it was verified on this node.
    I9   Every release in the store is what its name says, byte by byte, of plain files with no other name.
    I10  A failed fsync is no success.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
import sys
import typing as t

# file name -> sha256, or what it is instead of a plain file
Content = dict[str, str]
_RELEASE = re.compile(r"[0-9a-f]{12}")
# What the store holds of an adapter when no run is in progress, and who may see it.
_IN_ORDER = {"lock", "manifests", "receipts", "releases", "staging", "state.json"}
_MODES = {".": 0o711, "manifests": 0o755, "receipts": 0o755, "releases": 0o755, "staging": 0o711}


def violations(expectations: t.Mapping[str, t.Any]) -> list[str]:
    """Check all invariants; each violation starts with the number of its invariant."""
    found: list[str] = []
    for name, adapter in expectations["adapters"].items():
        found += [f"{invariant} {name}: {what}" for invariant, what in _Adapter(name, adapter, expectations).violations()]
    found += [f"I6 {what}" for what in _touched(expectations)]
    if expectations.get("fsync_failed") and expectations["code"] == 0:
        found.append("I10 a failed fsync was told as a success")
    again = expectations.get("again")
    if again is not None and (again["code"] != 0 or again["changed"]):
        found.append(f"I5 a run again did not end well with nothing to do: {json.dumps(again)}")
    return found


def content_of(directory: str) -> t.Optional[Content]:
    """What is in a directory, read through one handle; None when there is none. A link in the last component is followed."""
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        return {name: _sha256(name, handle) for name in os.listdir(handle)}
    finally:
        os.close(handle)


def listing(top: str) -> dict[str, str]:
    """Everything below a directory that a careless run could change, by relative path."""
    found = {}
    for directory, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            what = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
            if stat.S_ISLNK(status.st_mode):
                what += f" -> {os.readlink(path)}"
            elif stat.S_ISREG(status.st_mode):
                what += f" {_sha256(path)}"
            found[os.path.relpath(path, top)] = what
    return found


class _Adapter:
    def __init__(self, name: str, adapter: t.Mapping[str, t.Any], run: t.Mapping[str, t.Any]) -> None:
        self.releases: dict[str, Content] = adapter["releases"]
        self.wanted: str = adapter["wanted"]
        self.active: t.Optional[str] = adapter.get("active")
        self.before: t.Optional[Content] = adapter.get("before")
        self.survives: list[Content] = adapter.get("survives", [])
        self.method: t.Optional[str] = adapter.get("method")
        self.damaged: list[str] = adapter.get("damaged", [])
        self.modes: dict[str, str] = adapter.get("modes", {})
        self.code: t.Optional[int] = run["code"]
        self.message: str = run.get("message", "")
        self.in_order = run.get("again") is not None
        self.may_wait: tuple[str, ...] = ("adopted-", "trash-") if run.get("unseen_readers") else ("adopted-",)
        self.served = os.path.join(run["models_dir"], name)
        self.probe = os.path.join(run["models_dir"], f".exchange-probe-{name}")
        self.root = os.path.join(run["store"], name)

    def violations(self) -> t.Iterator[tuple[str, str]]:
        seen = content_of(self.served) if os.path.lexists(self.served) else None
        broken_link = seen is None and os.path.lexists(self.served)
        now_active = seen is not None and seen == self.releases[self.wanted]
        as_before = seen == self.before and not broken_link
        if not now_active and not as_before:
            yield "I1", f"NAME is neither what was wanted nor what stood there before, but {_brief(seen)}"
        if now_active and not as_before and self.modes and self._modes_at_name() != self.modes:
            yield "I1", f"NAME has modes {self._modes_at_name()} instead of {self.modes}"
        for content in self._to_survive():
            if not any(self._holds(path, content) for path in self._directories()):
                yield "I2", f"lost: {_brief(content)}"
        if self.code == 0:
            for what in self._not_done(now_active):
                yield "I3", what
        elif self.code is not None and now_active and not as_before and self.wanted not in self.message:
            yield "I4", f"release {self.wanted} is active now, and the message does not say so: {self.message!r}"
        for what in (*self._unreadable(), *(self._left_lying() if self.in_order else ())):
            yield "I5", what
        if not self._lock_is_free():
            yield "I7", "the lock is still held"
        if now_active and not as_before and self._json("receipts", f"{self.wanted}.json") is None:
            yield "I8", f"release {self.wanted} is active without a receipt"
        for release, what in self._false_releases():
            yield "I9", f"release {release} {what}"

    def _modes_at_name(self) -> dict[str, str]:
        """Of the files, one mode that they do not have in common stands for all."""
        files = {stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(self.served)}
        wrong = [mode for mode in files if f"{mode:04o}" != self.modes["file"]]
        return {"file": f"{(wrong or [*files])[0]:04o}", "directory": f"{stat.S_IMODE(os.stat(self.served).st_mode):04o}"}

    def _to_survive(self) -> list[Content]:
        kept = [] if self.active is None or self.active in self.damaged else [self.releases[self.active]]
        return [*kept, *self.survives]

    def _directories(self) -> t.Iterator[str]:
        """Where content counts as kept: not where a later run deletes it."""
        for top in (self.served, self.root):
            for directory, directories, _files in os.walk(top):
                doomed = ("trash-", "incoming-", "staging") if self.in_order else ("trash-",)
                directories[:] = [name for name in directories if not name.startswith(doomed)]
                yield directory

    def _holds(self, directory: str, content: Content) -> bool:
        found = content_of(directory)
        return found is not None and content.items() <= found.items()

    def _not_done(self, now_active: bool) -> t.Iterator[str]:
        if not now_active:
            yield f"told as done, but release {self.wanted} is not active"
        if self.method is not None and os.path.islink(self.served) != (self.method == "symlink"):
            yield f"told as done, but NAME is not there by {self.method}"
        if content_of(os.path.join(self.root, "releases", self.wanted)) != self.releases[self.wanted]:
            yield f"told as done, but release {self.wanted} is not whole in the store"
        state = self._json("state.json") or {}
        if state.get("active") != self.wanted or state.get("intent") is not None:
            yield f"told as done, but recorded is {json.dumps(state)}"
        previous = state.get("previous")
        if previous is not None and not os.path.isdir(os.path.join(self.root, "releases", previous)):
            yield f"told as done, but the store has not got release {previous}, to which the way back leads"
        if self.active not in (None, self.wanted) and previous != self.active:
            yield f"told as done, but the way back to {self.active} is not recorded"

    def _json(self, *path: str) -> t.Any:
        """None also when it cannot be read, which I5 tells."""
        try:
            with open(os.path.join(self.root, *path), encoding="utf-8") as stream:
                return json.load(stream)
        except (OSError, ValueError):
            return None

    def _unreadable(self) -> t.Iterator[str]:
        recorded = [("state.json",)]
        for kind in ("manifests", "receipts"):
            directory = os.path.join(self.root, kind)
            names = os.listdir(directory) if os.path.isdir(directory) else []
            recorded += [(kind, name) for name in sorted(names) if name.endswith(".json")]
        for path in recorded:
            if os.path.lexists(os.path.join(self.root, *path)) and not isinstance(self._json(*path), dict):
                yield f"{'/'.join(path)} cannot be read"

    def _left_lying(self) -> t.Iterator[str]:
        for name in sorted(os.listdir(self.root)):
            if name not in _IN_ORDER and not name.startswith(self.may_wait):
                yield f"{name} was left in the store"
        for name in sorted(os.listdir(os.path.join(self.root, "staging"))):
            yield f"staging/{name} was left in the store"
        for kind in ("manifests", "receipts"):
            for name in sorted(os.listdir(os.path.join(self.root, kind))):
                if not re.fullmatch(_RELEASE.pattern + r"\.json", name):
                    yield f"{kind}/{name} was left in the store"
        if os.path.lexists(self.probe):
            yield f"{os.path.basename(self.probe)} was left in the models directory"
        for name, mode in _MODES.items():
            found = stat.S_IMODE(os.stat(os.path.join(self.root, name)).st_mode)
            if found != mode:
                yield f"{name} in the store has mode {found:04o} instead of {mode:04o}"

    def _lock_is_free(self) -> bool:
        try:
            descriptor = os.open(os.path.join(self.root, "lock"), os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _false_releases(self) -> t.Iterator[tuple[str, str]]:
        top = os.path.join(self.root, "releases")
        for release in sorted(filter(_RELEASE.fullmatch, os.listdir(top) if os.path.isdir(top) else [])):
            if release in self.damaged and not (release == self.wanted and self.code == 0):
                continue
            path = os.path.join(top, release)
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                yield release, "is no directory"
            elif _digest12(path) != release:
                yield release, f"is not what its name says, but {_digest12(path)}"
            elif any(entry.stat(follow_symlinks=False).st_nlink > 1 for entry in os.scandir(path)):
                yield release, "has a file with another name elsewhere"


def _touched(expectations: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    ours = []
    for name in expectations["adapters"]:
        ours += [os.path.join(expectations[place], name) for place in ("models_dir", "store")]
        if expectations.get("again") is None:
            ours.append(os.path.join(expectations["models_dir"], f".exchange-probe-{name}"))
    for top, before in expectations.get("untouched", {}).items():
        now = listing(top)
        for path in sorted({*before, *now}):
            whole = os.path.join(top, path)
            if before.get(path) != now.get(path) and not any(whole == own or whole.startswith(f"{own}/") for own in ours):
                yield f"{whole} was {before.get(path, 'not there')} and is {now.get(path, 'not there')}"


def _sha256(path: str, handle: t.Optional[int] = None) -> str:
    status = os.lstat(path) if handle is None else os.stat(path, dir_fd=handle, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return f"not a plain file ({stat.filemode(status.st_mode)})"
    digest = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=handle), "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _digest12(directory: str) -> str:
    """The name that a release with this content has: see "digest" in the collection's README."""
    digest = hashlib.sha256()
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        digest.update(f"{name}\0{os.lstat(path).st_size}\0{_sha256(path)}\n".encode())
    return digest.hexdigest()[:12]


def _brief(content: t.Optional[Content]) -> str:
    return "nothing" if content is None else ", ".join(f"{name} {sha256[:12]}" for name, sha256 in sorted(content.items()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["list"]:
        print(json.dumps({directory: listing(directory) for directory in sys.argv[2:]}))
    else:
        result = violations(json.load(sys.stdin))
        print(json.dumps(result, indent=1))
        sys.exit(bool(result))
