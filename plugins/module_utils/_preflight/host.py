# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What a preflight checks on training servers and nodes alike."""

from __future__ import annotations

import platform
import subprocess
import sys
import typing as t

from .._base.config import with_config
from .._base.identity import Identities
from .._errors import DeliveryError
from .._rsync import installed_rsync, no_zstd
from .._text import escaped, shown
from .._ways import RELAY, SWARM, ways_of
from .checklist import Checklist

ANSIBLE_PYTHON = "Ansible's Python"
RSYNC = "rsync"
LIBTORRENT = "libtorrent"
_INSTALL_LIBTORRENT = (
    "Install libtorrent for it (Debian's python3-libtorrent, or libtorrent from PyPI), or set"
    " agent_transfer_swarm_python (agent_training_swarm_python) to a Python that has it."
)
MODELS_DIR = "models directory"
INTERPRETER = "PEFT interpreter"


def check_python(checklist: Checklist) -> None:
    """Add the Python that modules run in. Ansible has started it already."""
    checklist.ok(ANSIBLE_PYTHON, f"{platform.python_version()}, {sys.executable}")


def check_rsync(checklist: Checklist, params: t.Mapping[str, t.Any]) -> None:
    """Add the rsync, unless nothing is relayed."""
    if RELAY not in ways_of(params):
        return
    with checklist.checking(RSYNC):
        rsync = installed_rsync()
        if params["transfer_compress"] and not rsync.zstd:
            raise no_zstd(RSYNC, rsync.version)
        checklist.versions(RSYNC, rsync.version, {RSYNC: rsync.version})


def check_libtorrent(checklist: Checklist, params: t.Mapping[str, t.Any], python: str) -> None:
    """Add libtorrent if nothing but a swarm is permitted. By default, Ansible's Python has it."""
    if ways_of(params) != [SWARM]:
        return
    with checklist.checking(LIBTORRENT):
        argv = [python or sys.executable, "-I", "-c", "import libtorrent; print(libtorrent.__version__)"]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        except OSError as exc:
            raise DeliveryError.of(argv[0], f"cannot be run: {exc.strerror}.", _INSTALL_LIBTORRENT) from exc
        if done.returncode:
            why = shown(done.stderr.strip().rpartition("\n")[2])
            raise DeliveryError.of(LIBTORRENT, f"cannot be imported by {argv[0]}: {why}.", _INSTALL_LIBTORRENT)
        checklist.ok(LIBTORRENT, escaped(done.stdout.strip(), kept=""))


def check_bases(
    checklist: Checklist,
    bases: t.Mapping[str, t.Any],
    names: t.Iterable[str],
    identities: Identities | None,
    check_more: t.Callable[[dict[str, t.Any]], None] = lambda base: None,
) -> dict[str, dict[str, t.Any]]:
    """Check the named bases and return those that can be used, in the form of ``with_config``.

    Without ``identities``, only their entries and config.json are read. ``check_more`` gets each of
    these bases, and raises DeliveryError for what is wrong with it.
    """
    usable = {}
    for name in names:
        check = base_check(name)
        with checklist.checking(check):
            base = with_config({name: bases.get(name)})[name]
            identity = identities and identities.at(base.get("path"))
            check_more(base)
            usable[name] = base
            if identity:
                checklist.ok(check, f"{base['path']}, {identity['tensors']} tensors")
            elif base.get("path"):
                checklist.ok(check, base["path"])
            elif base["config"]:
                checklist.ok(check, "has no path here, only a config")
            else:
                checklist.ok(check, "has neither path nor config here")
    return usable


def base_check(name: str) -> str:
    return f"base {name}"


def adapter_check(name: str) -> str:
    return f"adapter {name}"


def versions_text(versions: t.Mapping[str, str]) -> str:
    """Return the versions of an interpreter and its packages on one line."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())
