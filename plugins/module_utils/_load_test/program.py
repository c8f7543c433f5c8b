# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Write the files of the load test's worker to where the PEFT interpreter runs it."""

from __future__ import annotations

import inspect
import os

from .. import _text, _versions
from .._adapter import files, patterns, tensor_names
from .._base import remote_code
from .._base import weights as base_weights
from .worker import adapter_level, device, errors, golden_level, levels, main, model_level, nvidia, protocol, tokenizer, weights

# The package that replaces module_utils there; the files have the same paths below it.
_PACKAGE = "delivery_worker"
# With -I, Python does not search the script's directory.
_START = f"""
import os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from {_PACKAGE}.{main.__name__.partition(".module_utils.")[2]} import main
main()
"""
PROGRAM = (
    *(main, protocol, levels, weights, tokenizer, adapter_level, model_level, golden_level, errors, device, nvidia),
    *(files, patterns, tensor_names, base_weights, remote_code, _text, _versions),
)


def write_program(directory: str) -> str:
    """Write the worker below ``directory``; returns the path of the script that starts it."""
    for part in PROGRAM:
        path = os.path.join(directory, _PACKAGE, *part.__name__.partition(".module_utils.")[2].split(".")) + ".py"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # On a node the module runs from a zip file, so these files have no path.
        _write(path, inspect.getsource(part))
    start = os.path.join(directory, "load.py")
    _write(start, _START)
    return start


def _write(path: str, code: str) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(code)
