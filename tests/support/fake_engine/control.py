# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controls a fake engine: called by tests, and as the command that restarts an engine.

``python control.py PORT restart`` needs nothing but the standard library.
"""

from __future__ import annotations

import http.client
import json
import sys
import typing as t

# Seconds: more than the control server waits for calls that are held.
_LIMIT = 120


def ask(port: int, method: str, path: str, body: t.Any = None) -> t.Any:
    """Ask the control server of an engine.

    Raises RuntimeError if it refuses, and OSError if it does not answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LIMIT)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise RuntimeError(f"{method} {path}: {answer.status} {text}")
    return json.loads(text)


if __name__ == "__main__":
    ask(int(sys.argv[1]), "POST", f"/{sys.argv[2]}")
