# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks one engine about adapters, through its driver. Runs in the engine's own environment.

Called with a driver (a file of ``drivers``) and a job, a JSON file with the fields of ``Job``.
Prints one line of JSON for each question: ``{"question": ..., "answers": [...]}`` or
``{"question": ..., "refused": text}``. Questions are ``base``, ``kind KIND`` and those of the
switching test. Everything else that engines print goes to stderr.

A driver has a function ``open_engine(job)``, which loads the base and returns an object with:

- ``version``;
- ``load(name, directory)`` and ``unload(name)``; whatever this or another function raises is the
  engine's refusal;
- ``fresh()``: removes all adapters and what they may have left;
- ``prompt(name)``: answers to the short prompt with an adapter, or with the base if ``name`` is
  None;
- ``next_token(name)``: answers after the last token of the long prompt, asked as users ask, with
  the engine's caches; missing if the engine cannot choose between loaded adapters;
- ``close()``; missing if nothing has to be ended.

An answer is ``(position, token, log-probability)``: that of this token after the first
``position + 1`` tokens of the prompt. Engines that do not give all of them give some.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import sys
import traceback
import typing as t

Answer = t.Tuple[int, int, float]


class Job(t.NamedTuple):
    """What an engine is asked about.

    ``adapters`` has the directory of each kind; ``switched`` are the two kinds of the switching
    test, or nothing. ``scratch`` is an empty directory, ``kept`` one that the runs with all
    settings of an engine share. ``prompts`` is described in ``kinds``.
    """

    base: str
    adapters: dict[str, str]
    switched: list[str]
    prompts: dict[str, t.Any]
    settings: dict[str, t.Any]
    scratch: str
    kept: str

    @property
    def short(self) -> list[int]:
        return t.cast("list[int]", self.prompts["short"])

    @property
    def long(self) -> list[int]:
        return t.cast("list[int]", self.prompts["long"])

    def config(self, directory: str) -> dict[str, t.Any]:
        """Return the adapter_config.json of an adapter."""
        text = pathlib.Path(directory, "adapter_config.json").read_text(encoding="utf-8")
        return t.cast("dict[str, t.Any]", json.loads(text))


class Asking:
    """The questions to one engine, in order."""

    def __init__(self, engine: t.Any, job: Job, lines: t.TextIO) -> None:
        self.engine, self.job, self.lines = engine, job, lines

    def answer(self, question: str, answers: t.Callable[[], list[Answer]]) -> None:
        try:
            line: dict[str, t.Any] = {"answers": answers()}
        except Exception as exc:  # any: it is the engine's answer
            traceback.print_exc()
            line = {"refused": refusal(exc)}
        self.lines.write(json.dumps({"question": question, **line}) + "\n")

    def all(self) -> None:
        self.answer("base", lambda: self.engine.prompt(None))
        for kind in self.job.adapters:
            self.engine.fresh()
            self.answer(f"kind {kind}", lambda kind=kind: self.kind(kind))
        if hasattr(self.engine, "next_token") and self.job.switched:
            self.engine.fresh()
            self.switching(*self.job.switched)

    def kind(self, kind: str) -> list[Answer]:
        name = f"kind_{kind}"  # torch has functions of the names of some kinds
        self.engine.load(name, self.job.adapters[kind])
        return t.cast("list[Answer]", self.engine.prompt(name))

    def switching(self, first: str, second: str) -> None:
        """Ask the same prompt of adapters in turn: an answer of an earlier one is stale."""
        adapters = self.job.adapters

        def switch() -> list[Answer]:
            self.engine.load("one", adapters[first])
            self.engine.load("two", adapters[second])
            self.engine.next_token("one")
            return t.cast("list[Answer]", self.engine.next_token("two"))

        def unload() -> list[Answer]:
            self.engine.unload("one")
            self.engine.unload("two")
            return t.cast("list[Answer]", self.engine.next_token(None))

        def reuse() -> list[Answer]:
            self.engine.load("name", adapters[first])
            self.engine.next_token("name")
            self.engine.unload("name")
            self.engine.load("name", adapters[second])
            return t.cast("list[Answer]", self.engine.next_token("name"))

        self.answer(f"switch {second}", switch)
        self.answer(f"switch {first}", lambda: self.engine.next_token("one"))
        self.answer("unload base", unload)
        self.answer(f"reuse {second}", reuse)


def refusal(exc: Exception) -> str:
    """Return an engine's message as one line."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return f"{type(exc).__name__}: {' '.join(lines)}"[:300]


def driver(path: str) -> t.Any:
    # Loaded by path: a driver has the name of its engine, as the engine's own package often has.
    spec = importlib.util.spec_from_file_location("driver_of_engine", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    job = Job(**json.loads(pathlib.Path(sys.argv[2]).read_text(encoding="utf-8")))
    try:
        engine = driver(sys.argv[1]).open_engine(job)
    except Exception as exc:  # any: an engine that refuses the base answers every question so
        traceback.print_exc()
        for question in ["base", *(f"kind {kind}" for kind in job.adapters)]:
            lines.write(json.dumps({"question": question, "refused": refusal(exc)}) + "\n")
        return
    try:
        lines.write(json.dumps({"question": "version", "version": engine.version}) + "\n")
        Asking(engine, job, lines).all()
    finally:
        if hasattr(engine, "close"):
            engine.close()


if __name__ == "__main__":
    main()
