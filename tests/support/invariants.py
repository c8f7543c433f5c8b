# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The invariants of a node's disk after any run, checked by an oracle.

The oracle shares no code with the collection:

    python3 invariants.py < EXPECTATIONS      prints a JSON list of violations; exit status 1 if any
    python3 invariants.py list DIRECTORY ...  prints a JSON object of listings, for "untouched"

One file that needs only the standard library of Python 3.9, so that it can be sent to any node.
EXPECTATIONS is JSON; keys with a "?" are optional:

    models_dir, store   the directories
    code                exit status of the run; null after a kill or a power cut
    message?            error message of a failed run
    fsync_failed?       true if an fsync of the run failed
    again?              {"code": 0, "changed": false}: the end of one more run, which had nothing to
                        do. With it, nothing that a fault left may remain
    unseen_readers?     true if the node cannot see the readers of a directory: displaced ones may
                        stay in the trash for readers that have just opened them
    untouched?          {DIRECTORY: its listing before}: must not change, except NAME in models_dir
                        and in the store
    adapters            {NAME: ...}, for each adapter of the run:
        releases        {DIGEST12: {FILE: SHA256}}: every release that this node may have
        wanted          the DIGEST12 to activate
        active?         the DIGEST12 that was active before
        before?         {FILE: SHA256} of NAME before; absent if there was nothing
        survives?       [{FILE: SHA256}, ...]: content that must not be lost, such as manual changes
        method?         "exchange" (NAME is a plain directory) or "symlink"; either one if absent
        damaged?        [DIGEST12, ...]: releases that were damaged in the store before the run
        modes?          {"file": "0644", "directory": "0755"}: the modes of the wanted release
        serial?         the highest serial that was accepted before; only if signatures are required

The invariants:

    I1   NAME, read through one directory handle, is the old or the wanted release, complete.
    I2   No content that was active before, or that was made manually, is lost.
    I3   Exit status 0: the wanted release is active, recorded, and complete in the store.
    I4   Another exit status: NAME is unchanged, or the message names the active release.
    I5   All records can be read; another run succeeds, the next one has nothing to do, and nothing
         is left over.
    I6   Nothing else was changed.
    I7   The lock is free.
    I8   An activated release has a receipt: it was verified on this node.
    I9   Every release in the store matches its digest, in plain files without further hard links.
    I10  A failed fsync is not a success.
    I11  Where signatures are required, NAME is a release that accepted.json has, and its highest
         serial is not lower than before.
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

# Path of a file -> sha256, or the kind of what is not a plain file, such as an empty directory.
Content = dict[str, str]
_RELEASE = re.compile(r"[0-9a-f]{12}")
# The entries of an adapter's part of the store when no run is in progress, and their modes.
_ENTRIES = {"accepted.json", "lock", "manifests", "receipts", "releases", "staging", "state.json"}
_MODES = {".": 0o711, "manifests": 0o755, "receipts": 0o755, "releases": 0o755, "staging": 0o711}


def violations(expectations: t.Mapping[str, t.Any]) -> list[str]:
    """Return the violations of all invariants; each starts with the number of its invariant."""
    found: list[str] = []
    for name, adapter in expectations["adapters"].items():
        found += [f"{invariant} {name}: {what}" for invariant, what in _Adapter(name, adapter, expectations).violations()]
    found += [f"I6 {what}" for what in _touched(expectations)]
    if expectations.get("fsync_failed") and expectations["code"] == 0:
        found.append("I10 a run with a failed fsync reported success")
    again = expectations.get("again")
    if again is not None and (again["code"] != 0 or again["changed"]):
        found.append(f"I5 another run failed or changed something: {json.dumps(again)}")
    return found


def content_of(directory: str) -> t.Optional[Content]:
    """Return the content of a directory, read through one handle, or None.

    A link in the last component is followed.
    """
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        return _content(handle)
    finally:
        os.close(handle)


def _content(handle: int) -> Content:
    found = {}
    for name in os.listdir(handle):
        if stat.S_ISDIR(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode):
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            try:
                below = _content(inner) or {"": "an empty directory"}
            finally:
                os.close(inner)
            found.update({f"{name}/{path}": sha256 for path, sha256 in below.items()})
        else:
            found[name] = _sha256(name, handle)
    return found


def listing(top: str) -> dict[str, str]:
    """Return all that a faulty run could change below a directory, by relative path."""
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
        self.serial: t.Optional[int] = adapter.get("serial")
        self.code: t.Optional[int] = run["code"]
        self.message: str = run.get("message", "")
        self.finished = run.get("again") is not None
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
            yield "I1", f"NAME is neither the old nor the wanted release, but {_brief(seen)}"
        if now_active and not as_before and self.modes and self._modes_at_name() != self.modes:
            yield "I1", f"NAME has modes {self._modes_at_name()} instead of {self.modes}"
        for content in self._to_survive():
            if not any(self._holds(path, content) for path in self._directories()):
                yield "I2", f"lost: {_brief(content)}"
        if self.code == 0:
            for what in self._incomplete(now_active):
                yield "I3", what
        elif self.code is not None and now_active and not as_before and self.wanted not in self.message:
            yield "I4", f"release {self.wanted} is active now, and the message does not name it: {self.message!r}"
        for what in (*self._unreadable(), *(self._leftovers() if self.finished else ())):
            yield "I5", what
        if not self._lock_is_free():
            yield "I7", "the lock is still held"
        if now_active and not as_before and self._json("receipts", f"{self.wanted}.json") is None:
            yield "I8", f"release {self.wanted} is active without a receipt"
        for release, what in self._invalid_releases():
            yield "I9", f"release {release} {what}"
        for what in () if self.serial is None else self._not_accepted(seen):
            yield "I11", what

    def _modes_at_name(self) -> dict[str, str]:
        """A mode is a wrong one if any file or any directory has one."""
        found = {}
        for kind in ("file", "directory"):
            paths = [path for path in _below(self.served) if os.path.isdir(path) == (kind == "directory")]
            modes = {f"{stat.S_IMODE(os.stat(path).st_mode):04o}" for path in paths}
            found[kind] = sorted(modes, key=lambda mode: mode == self.modes[kind])[0]
        return found

    def _to_survive(self) -> list[Content]:
        known = [] if self.active is None or self.active in self.damaged else [self.releases[self.active]]
        return [*known, *self.survives]

    def _directories(self) -> t.Iterator[str]:
        """Yield the directories whose content counts as kept: those that no later run deletes."""
        for top in (self.served, self.root):
            for directory, directories, _files in os.walk(top):
                deleted = ("trash-", "incoming-", "staging") if self.finished else ("trash-",)
                directories[:] = [name for name in directories if not name.startswith(deleted)]
                yield directory

    def _holds(self, directory: str, content: Content) -> bool:
        found = content_of(directory)
        return found is not None and content.items() <= found.items()

    def _incomplete(self, now_active: bool) -> t.Iterator[str]:
        if not now_active:
            yield f"reported success, but release {self.wanted} is not active"
        if self.method is not None and os.path.islink(self.served) != (self.method == "symlink"):
            yield f"reported success, but the activation method is not {self.method}"
        if content_of(os.path.join(self.root, "releases", self.wanted)) != self.releases[self.wanted]:
            yield f"reported success, but release {self.wanted} is not complete in the store"
        state = self._json("state.json") or {}
        if state.get("active") != self.wanted or state.get("intent") is not None:
            yield f"reported success, but the recorded state is {json.dumps(state)}"
        previous = state.get("previous")
        if previous is not None and not os.path.isdir(os.path.join(self.root, "releases", previous)):
            yield f"reported success, but the previous release {previous} is not in the store"
        if self.active not in (None, self.wanted) and previous != self.active:
            yield f"reported success, but the previous release {self.active} is not recorded"

    def _json(self, *path: str) -> t.Any:
        """Return parsed JSON, or None; I5 reports a file that cannot be read."""
        try:
            with open(os.path.join(self.root, *path), encoding="utf-8") as stream:
                return json.load(stream)
        except (OSError, ValueError):
            return None

    def _unreadable(self) -> t.Iterator[str]:
        recorded: list[tuple[str, ...]] = [("state.json",), ("accepted.json",)]
        for kind in ("manifests", "receipts"):
            directory = os.path.join(self.root, kind)
            names = os.listdir(directory) if os.path.isdir(directory) else []
            recorded += [(kind, name) for name in sorted(names) if name.endswith(".json")]
        for path in recorded:
            if os.path.lexists(os.path.join(self.root, *path)) and not isinstance(self._json(*path), dict):
                yield f"{'/'.join(path)} cannot be read"

    def _leftovers(self) -> t.Iterator[str]:
        for name in sorted(os.listdir(self.root)):
            if name not in _ENTRIES and not name.startswith(self.may_wait):
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

    def _not_accepted(self, seen: t.Optional[Content]) -> t.Iterator[str]:
        record = self._json("accepted.json") or {"serial": 0, "accepted": []}
        if record["serial"] < (self.serial or 0):
            yield f"the highest serial is {record['serial']}, but {self.serial} was accepted before"
        statements = [json.loads(one["statement"]) for one in record["accepted"]]
        accepted = {statement["digest"][:12] for statement in statements}
        if not any(seen == self.releases[release] for release in accepted & {*self.releases}):
            yield f"NAME is {_brief(seen)}; accepted are {', '.join(sorted(accepted))}"
        if max((statement["serial"] for statement in statements), default=0) > record["serial"]:
            yield "a statement has a higher serial than the record"

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

    def _invalid_releases(self) -> t.Iterator[tuple[str, str]]:
        top = os.path.join(self.root, "releases")
        for release in sorted(filter(_RELEASE.fullmatch, os.listdir(top) if os.path.isdir(top) else [])):
            if release in self.damaged and not (release == self.wanted and self.code == 0):
                continue
            path = os.path.join(top, release)
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                yield release, "is not a directory"
            elif _digest12(path) != release:
                yield release, f"has the digest {_digest12(path)}"
            elif any(os.lstat(file).st_nlink > 1 for file in _below(path) if not os.path.isdir(file)):
                yield release, "has a file with further hard links"


def _touched(expectations: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    ours = []
    for name in expectations["adapters"]:
        ours += [os.path.join(expectations[place], name) for place in ("models_dir", "store")]
        if expectations.get("again") is None:
            ours.append(os.path.join(expectations["models_dir"], f".exchange-probe-{name}"))
    for top, before in expectations.get("untouched", {}).items():
        now = listing(top)
        for path in sorted({*before, *now}):
            full = os.path.join(top, path)
            if before.get(path) != now.get(path) and not any(full == own or full.startswith(f"{own}/") for own in ours):
                yield f"{full} was {before.get(path, 'not there')} and is {now.get(path, 'not there')}"


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
    """Return the name of a release with this content: the first 12 digits of its digest."""
    digest = hashlib.sha256()
    for name, sha256 in sorted((content_of(directory) or {}).items()):
        size = os.lstat(os.path.join(directory, name)).st_size
        digest.update(f"{name}\0{size}\0{sha256}\n".encode())
    return digest.hexdigest()[:12]


def _below(directory: str) -> t.Iterator[str]:
    """Yield a directory, and everything below it."""
    for top, _directories, files in os.walk(directory):
        yield top
        yield from (os.path.join(top, name) for name in files)


def _brief(content: t.Optional[Content]) -> str:
    return "nothing" if content is None else ", ".join(f"{name} {sha256[:12]}" for name, sha256 in sorted(content.items()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["list"]:
        print(json.dumps({directory: listing(directory) for directory in sys.argv[2:]}))
    else:
        result = violations(json.load(sys.stdin))
        print(json.dumps(result, indent=1))
        sys.exit(bool(result))
