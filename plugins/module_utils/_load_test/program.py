# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Write the files of the load test's worker to where the PEFT interpreter runs it."""

from __future__ import annotations

import inspect
import os
import types

from .. import _text, _versions
from .._adapter import files, patterns, tensor_names
from .._base import remote_code
from .._base import weights as base_weights
from .._linux import prctl
from .worker import (
    adapter_level,
    device,
    errors,
    fold,
    golden_level,
    levels,
    main,
    model_level,
    nvidia,
    original,
    protocol,
    tokenizer,
    weights,
)

# The package that replaces module_utils there; the files have the same paths below it.
_PACKAGE = "delivery_worker"
# With -I, Python does not search the script's directory. The first call keeps others out.
_START = """
import os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from {} import forbid_attaching
forbid_attaching()
from {} import main
main()
"""
PROGRAM = (
    *(main, protocol, levels, weights, tokenizer, adapter_level, model_level, golden_level, errors, device, nvidia),
    *(fold, original, files, patterns, tensor_names, base_weights, remote_code, prctl, _text, _versions),
)


def write_program(directory: str, start: types.ModuleType = main) -> str:
    """Write the worker below ``directory``; returns the path of the script that runs it.

    ``start`` is the file whose ``main`` the script calls.
    """
    for part in PROGRAM:
        path = os.path.join(directory, *_inside(part).split(".")) + ".py"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # On a node the module runs from a zip file, so these files have no path.
        _write(path, inspect.getsource(part))
    script = os.path.join(directory, "load.py")
    _write(script, _START.format(_inside(prctl), _inside(start)))
    return script


def _inside(part: types.ModuleType) -> str:
    """Return the name of a file in the package."""
    return f"{_PACKAGE}.{part.__name__.partition('.module_utils.')[2]}"


def _write(path: str, code: str) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(code)
