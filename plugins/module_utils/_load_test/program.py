# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The load test's program: the files of this collection that run in the serving interpreter, written where it runs."""

from __future__ import annotations

import inspect
import os

from .. import _text, _versions
from .._adapter import files
from .._base import remote_code
from .._base import weights as base_weights
from .worker import adapter_level, device, errors, golden_level, levels, main, model_level, weights

# What module_utils is called where the program runs; the files have the same places below it.
_PACKAGE = "delivery_worker"
# Isolated (-I), Python does not look beside the program by itself.
_START = f"""
import os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from {_PACKAGE}.{main.__name__.partition(".module_utils.")[2]} import main
main()
"""
PROGRAM = (
    *(main, levels, weights, adapter_level, model_level, golden_level, errors, device),
    *(files, base_weights, remote_code, _text, _versions),
)


def write_program(directory: str) -> str:
    """Write the program below C(directory); return the path of the script that starts it."""
    for part in PROGRAM:
        path = os.path.join(directory, _PACKAGE, *part.__name__.partition(".module_utils.")[2].split(".")) + ".py"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # A module on a node runs from a zip file, so there is no path to these.
        _write(path, inspect.getsource(part))
    start = os.path.join(directory, "load.py")
    _write(start, _START)
    return start


def _write(path: str, code: str) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(code)
