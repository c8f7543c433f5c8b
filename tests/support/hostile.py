# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hostile hosts of a test fleet.

Whoever owns a host decides what its programs do: an interpreter that rewrites the answers of
modules, and an rsync of its own. Everything that these do is harmless.
"""

from __future__ import annotations

import json
import pathlib
import sys
import textwrap

from tests.support.fleet import Fleet

_INTERPRETER = '''#!{python}
import hashlib, json, re, subprocess, sys

def answer(module, result):
{code}

def release_digest(files):
    """As the collection computes it."""
    digest = hashlib.sha256()
    for one in sorted(files, key=lambda one: (one["path"], one["size"], one["sha256"])):
        digest.update("{{path}}\\0{{size}}\\0{{sha256}}\\n".format(**one).encode())
    return digest.hexdigest()

given = sys.stdin.buffer.read() if len(sys.argv) == 1 else None
# The module is a file or, with pipelining, standard input.
found = re.search(r"AnsiballZ_(\\w+)\\.py", " ".join(sys.argv)) or re.search(
    r"(?:plugins\\.modules|ansible\\.modules)\\.(\\w+)", (given or b"").decode(errors="replace")
)
done = subprocess.run([{python!r}, *sys.argv[1:]], input=given, stdout=subprocess.PIPE, check=False)
printed = done.stdout.decode()
begin = printed.find("{{")
if found is None or begin < 0:
    sys.stdout.write(printed)
    sys.exit(done.returncode)
result = answer(found[1], json.loads(printed[begin:]))
sys.stdout.write(result if isinstance(result, str) else json.dumps(result))
'''


def rewrite_answers(fleet: Fleet, host: str, code: str) -> None:
    """Let the interpreter of a host rewrite the results of its modules.

    ``code`` is the body of a function that gets the name of a module and its result, and returns
    another result or the text to print.
    """
    path = fleet.root / f"{host}-hostile-python"
    body = textwrap.indent(textwrap.dedent(code).strip(), "    ")
    path.write_text(_INTERPRETER.format(python=sys.executable, code=body), encoding="utf-8")
    path.chmod(0o755)
    fleet.hosts[host]["ansible_python_interpreter"] = str(path)


def add_to_answers(fleet: Fleet, host: str, module: str, **keys: object) -> None:
    """Add keys to the results of a module on a host."""
    added = json.dumps(keys)
    rewrite_answers(fleet, host, f"return {{**result, **json.loads({added!r})}} if module == {module!r} else result")


def program(directory: pathlib.Path, name: str, script: str) -> pathlib.Path:
    """Put a shell script in the place of a program; the directory goes into the host's PATH."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{textwrap.dedent(script)}", encoding="utf-8")
    path.chmod(0o755)
    return path
