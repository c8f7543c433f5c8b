# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Print the contents of directories as JSON: a test oracle that shares no code with the collection.

{"DIRECTORY": {
    "files": {PATH: sha256},
    "identity": {PATH: [inode, mtime_ns, ctime_ns]},
    "links": {PATH: target}
}}
"""

import hashlib
import json
import os
import sys


def contents(top):
    files, identity, links = {}, {}, {}
    # A link at the top is followed, as a reader of the directory does; links below are not.
    for directory, names, others in os.walk(os.path.join(top, ""), onerror=_raise):
        for name in [os.curdir, *names, *others]:
            path = os.path.normpath(os.path.join(directory, name))
            status = os.lstat(path)
            key = os.path.relpath(path, top)
            identity[key] = [status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
            if os.path.islink(path):
                links[key] = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as stream:
                    files[key] = hashlib.sha256(stream.read()).hexdigest()
    return {"files": files, "identity": identity, "links": links}


def _raise(error):
    if not isinstance(error, FileNotFoundError):
        raise error


print(json.dumps({top: contents(top) for top in sys.argv[1:]}))
