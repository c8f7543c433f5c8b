# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Swap the active release again and again, while the user C(serving) opens NAME and hashes what is in it, and print what he saw.

Arguments: models directory, store, name, way of activation, number of swaps.
"""

import collections
import hashlib
import json
import multiprocessing
import os
import pwd
import sys

from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.permissions import Permissions
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import Options, Request
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.transaction import carry_out


def version(path):
    """What a server would load: everything behind one opening of the directory."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return {name: hash_at(directory, name) for name in os.listdir(directory)}
    finally:
        os.close(directory)


def hash_at(directory, name):
    with open(os.open(name, os.O_RDONLY, dir_fd=directory), "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def read(path, known, stop, saw):
    os.setuid(pwd.getpwnam("serving").pw_uid)
    versions, torn = collections.Counter(), []
    while True:
        # Once more after the last swap.
        last = stop.is_set()
        try:
            found = version(path)
        except OSError as exc:
            found = str(exc)
        if found in known:
            versions[known.index(found)] += 1
        else:
            torn.append(found)
        if last or len(torn) > 5:
            break
    saw.put((versions, torn))


def main():
    models_dir, store, name, way, swaps = sys.argv[1:]
    paths = AdapterPaths(models_dir, store, name)
    options = Options(
        level="structure", activation=way, keep=3, permissions=Permissions(0o644, 0o755, None, None), run="lab", lock_timeout=10
    )
    releases = os.path.join(store, name, "releases")
    known = [version(os.path.join(releases, release)) for release in os.listdir(releases)]
    stop, saw = multiprocessing.Event(), multiprocessing.Queue()
    reader = multiprocessing.Process(target=read, args=(paths.live, known, stop, saw))
    reader.start()
    for _swap in range(int(swaps)):
        carry_out([Request(paths, release=None)], options, False, [])
    stop.set()
    versions, torn = saw.get(timeout=60)
    reader.join()
    print(json.dumps({"versions": versions, "torn": torn}))


main()
