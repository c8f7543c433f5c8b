# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks real engines about adapters of all kinds and compares them with PEFT and with the rules.

Prints what each engine made of each kind, and exits with 1 if that contradicts a rule of
``plugins/module_utils/_engines``, which says the same before a delivery.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import typing as t

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / ".collections")]

import numpy  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.rules.table import rules_of  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.verdicts import Engine, verdicts  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError  # noqa: E402

from tests.engines import environments, folded, kinds, matrix  # noqa: E402
from tests.support.manifests import read_manifest  # noqa: E402
from tests.support.tiny_adapters import PEFT_PYTHON  # noqa: E402

HERE = pathlib.Path(__file__).parent
RESULTS = CHECKOUT / ".cache" / "engines" / "results"
ENGINES = sorted(path.stem for path in (HERE / "drivers").glob("*.py"))
# The settings with which an engine is asked, where one way is not enough.
SETTINGS: dict[str, list[dict[str, t.Any]]] = {
    "openvino_genai": [{}, {"alpha": "factor", "prefix_cache": False}],
    "ctranslate2": [{}, {"merged": True}],
    "vllm": [{"max_lora_rank": 32}],
}
# Kinds that an engine is not asked about: its converter takes them, but the engine cannot use them.
LEFT_OUT = {"llama_cpp": {"embeddings"}}
# Engines that cannot read the rotary settings of a base that transformers 5 has saved.
OLDER_BASE = {"mistralrs", "mlx_lm"}
SWITCHING = {"switch": "after a switch", "unload": "after unload", "reuse": "after reuse of a name"}
HOUR = 3600
# One thread: on a busy machine several spend most of their time waiting for each other.
QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}


class Setup(t.NamedTuple):
    """An engine with settings: a column of the matrix."""

    engine: str
    settings: dict[str, t.Any]
    # Whether the base has the keys of older versions of transformers, too.
    older_base: bool = False

    @property
    def title(self) -> str:
        base = ["older base"] if self.older_base else []
        return ", ".join([self.engine, *(f"{key} {value}" for key, value in self.settings.items()), *base])


class Results(t.NamedTuple):
    """What one set-up answered: the version of the engine, and a cell for each row."""

    setup: Setup
    version: str
    cells: dict[str, matrix.Cell]


def setups(engine: str) -> list[Setup]:
    found = [Setup(engine, settings) for settings in SETTINGS.get(engine, [{}])]
    return found + [setup._replace(older_base=True) for setup in found if engine in OLDER_BASE]


class Kinds(t.NamedTuple):
    """The adapters of all kinds, below ``made``, on a base."""

    base: pathlib.Path
    made: pathlib.Path

    def base_of(self, setup: Setup) -> pathlib.Path:
        return self.made / "base" if setup.older_base else self.base

    def asked(self, setup: Setup, only: t.Collection[str]) -> dict[str, pathlib.Path]:
        """Return the adapters that a set-up is asked about."""
        found = {path.name: path for path in sorted((self.made / "adapters").iterdir())}
        if setup.engine in OLDER_BASE and not setup.older_base:
            only = ["plain"]
        left_out = LEFT_OUT.get(setup.engine, set())
        return {name: path for name, path in found.items() if (not only or name in only) and name not in left_out}


def ask(setup: Setup, adapters: Kinds, only: t.Collection[str], kept: pathlib.Path) -> list[dict[str, t.Any]]:
    """Run the driver of an engine and return its lines. Set-ups of one engine share ``kept``."""
    python = environments.installed(setup.engine, PEFT_PYTHON)
    asked = adapters.asked(setup, only)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=environments.CACHE, prefix="asking-") as scratch:
        job = {
            "base": str(adapters.base_of(setup)),
            "adapters": {kind: str(path) for kind, path in asked.items()},
            "switched": kinds.SWITCHED if set(kinds.SWITCHED) <= set(asked) else [],
            "prompts": json.loads((adapters.made / "prompts.json").read_text(encoding="utf-8")),
            "settings": setup.settings,
            "scratch": scratch,
            "kept": str(kept),
        }
        (job_file := pathlib.Path(scratch, "job.json")).write_text(json.dumps(job), encoding="utf-8")
        environment = {**os.environ, **QUIET}
        # -P: drivers have the names of packages, which Python would find in this directory first.
        command = [python, "-P", HERE / "drive.py", HERE / "drivers" / f"{setup.engine}.py", job_file]
        log = RESULTS / f"{setup.title}.log"
        with log.open("w") as stderr:
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=stderr, timeout=2 * HOUR, check=False)
    if done.returncode:
        raise RuntimeError(f"The driver of {setup.title} failed; see {log}:\n{log.read_text(errors='replace')[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def judge(setup: Setup, lines: list[dict[str, t.Any]], adapters: Kinds) -> Results:
    """Compare an engine's answers with PEFT's."""
    answers = {path.name[: -len(".npy")]: path for path in (adapters.made / "answers").glob("*.npy")}
    cells: dict[str, matrix.Cell] = {}
    version = ""
    for line in lines:
        question, _space, kind = line["question"].partition(" ")
        if question == "version":
            version = line["version"]
            continue
        if question in SWITCHING:
            truth, last = numpy.load(answers[f"{kind.rpartition(' ')[2]}.long"]), True
        else:
            # PEFT rejects some damaged files. Then the undamaged adapter is the truth.
            original = kind.removesuffix(folded.SUFFIX) or kinds.BASE
            truth, last = numpy.load(answers.get(original) or answers[kinds.CHANGED[kind]]), False
        cell = matrix.judged(line, lambda position, token, truth=truth, last=last: float(truth[0 if last else position, token]))
        row = SWITCHING.get(question, kind or kinds.BASE)
        # Several questions of the switching test are one row: the worst counts.
        if row not in cells or (cell.distance or 0) > (cells[row].distance or 0):
            cells[row] = cell
    return Results(setup, version, cells)


def contradictions(results: Results, adapters: Kinds) -> list[str]:
    """Return one line for each answer that contradicts the rules."""
    config = json.loads((adapters.base_of(results.setup) / "config.json").read_text(encoding="utf-8"))
    engine, rules = Engine(results.setup.engine, results.version or None, results.setup.settings), rules_of(results.setup.engine)
    found = []
    for kind, directory in adapters.asked(results.setup, list(results.cells)).items():
        (verdict,) = verdicts([engine], read_manifest(directory), config)
        if problem := matrix.contradiction(results.cells[kind], verdict):
            found.append(f"{kind}: {problem}")
    for change, row in SWITCHING.items():
        if row in results.cells and (problem := matrix.stale(results.cells[row], getattr(rules.switching, change))):
            found.append(f"{row}: {problem}")
    return [f"{results.setup.title} {results.version}: {problem}" for problem in found]


def show(all_results: list[Results]) -> None:
    columns = [f"{results.setup.title} {results.version}" for results in all_results]
    rows = {row: None for results in all_results for row in results.cells}
    print(matrix.table(columns, {row: [str(results.cells.get(row, "-")) for results in all_results] for row in rows}))
    for results in all_results:
        for row, cell in results.cells.items():
            if cell.message:
                print(f"{results.setup.title}: {row}: {cell.message}")


def engine_name(text: str) -> str:
    """Return the name of an engine that has a driver, also for an alias."""
    try:
        found = rules_of(text).name
    except DeliveryError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    if found not in ENGINES:
        raise argparse.ArgumentTypeError(f"{found} has no driver. There is one for {', '.join(ENGINES)}.")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", type=engine_name, default=ENGINES, help=f"default: {' '.join(ENGINES)}")
    parser.add_argument("--base", type=pathlib.Path, default=CHECKOUT / ".cache" / "demo" / "base" / "SmolLM2-135M-Instruct")
    parser.add_argument("--kinds", nargs="+", default=[], help="ask only these kinds")
    parser.add_argument("--show", action="store_true", help="show the last answers of all engines, and ask none")
    arguments = parser.parse_args()
    base: pathlib.Path = arguments.base.resolve()
    adapters = Kinds(base, kinds.made(base, PEFT_PYTHON))
    all_results, failed = [], []
    environments.CACHE.mkdir(parents=True, exist_ok=True)
    for engine in arguments.engines:
        with tempfile.TemporaryDirectory(dir=environments.CACHE, prefix="asking-") as kept:
            for setup in setups(engine):
                saved = RESULTS / f"{setup.title}, {base.name}.json"
                try:
                    if not arguments.show:
                        print(f"== Asking {setup.title}", file=sys.stderr, flush=True)
                        saved.unlink(missing_ok=True)
                        lines = ask(setup, adapters, arguments.kinds, pathlib.Path(kept))
                        saved.write_text(json.dumps(lines), encoding="utf-8")
                    if saved.is_file():
                        all_results.append(judge(setup, json.loads(saved.read_text(encoding="utf-8")), adapters))
                except (RuntimeError, subprocess.SubprocessError) as exc:
                    failed.append(str(exc))
    show(all_results)
    contradicted = [problem for results in all_results for problem in contradictions(results, adapters)]
    for problem in failed + contradicted:
        print(problem, file=sys.stderr)
    return 1 if failed + contradicted else 0


if __name__ == "__main__":
    sys.exit(main())
