# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The preflight of a load test on a node: everything but loading the adapters."""

from __future__ import annotations

import os
import typing as t

from .._adapter.manifest import Manifest
from .._base.identity import Identities
from .._base.weights import base_weights
from .._errors import DeliveryError
from .._levels import LEVELS, reaches
from .._load_test.access import base_files, check_files_readable
from .._load_test.attempt import Attempt
from .._load_test.case import Case, find_cases
from .._load_test.checks import check_base, check_manifest, check_runtime
from .._load_test.confinement import available_isolation
from .._load_test.interpreter import read_environment
from .._load_test.launch import run_worker
from .._load_test.loading_user import LoadingUser, check_readable
from .._load_test.options import LoadTestOptions, check_device, node_user
from .._load_test.worker.device import loaded_dtype, model_need, shortage
from .._load_test.worker.protocol import OpenedDevice
from .._store.permissions import permissions_of
from .._text import human_bytes
from .checklist import FAILED, OK, WARNING, Checklist
from .host import INTERPRETER, adapter_check, base_check, check_bases, versions_text

USER = "load test user"
DEVICE = "device"

_TIMEOUT = 300


def check_loading(checklist: Checklist, params: dict[str, t.Any], manifests: dict[str, Manifest], scratch: str) -> None:
    """Check what the load test of adapters with these manifests needs."""
    user = _check_user(checklist, params)
    loads = params["level"] != LEVELS[0]
    versions = _check_interpreter(checklist, params, user) if loads else {}
    identities = Identities()
    names = dict.fromkeys(row["base"] for row in params["adapters"])

    def check_readable_by_user(base: dict[str, t.Any]) -> None:
        if versions and user is not None and user.is_other and base.get("path"):
            check_files_readable(params["python"], user, base_files(base["path"]))

    bases = check_bases(checklist, params["bases"], names, identities, check_readable_by_user)
    cases = _find_cases(checklist, params, manifests, bases)
    if loads:
        _check_device(checklist, params, user, cases, scratch)
    else:
        for check in (INTERPRETER, DEVICE):
            checklist.ok(check, f"not needed at level {params['level']}")
    for case in cases:
        _check_case(checklist, case, params, versions, identities)


def _check_user(checklist: Checklist, params: dict[str, t.Any]) -> LoadingUser | None:
    user = None
    with checklist.checking(USER):
        user = node_user(params)
        if user is None:
            return None
        if user.throw_away:
            isolation = ", ".join(available_isolation()) or "nothing: this host permits no namespaces"
            checklist.ok(USER, f"{user}, isolated from {isolation}")
            return user
        try:
            permissions = permissions_of(params)
        except DeliveryError:
            checklist.unknown(USER, f"{user.name}; access to served files not known without valid owner and modes")
            return user
        check_readable(user, permissions)
        checklist.ok(USER, user.name)
    return user


def _check_interpreter(checklist: Checklist, params: dict[str, t.Any], user: LoadingUser | None) -> dict[str, str]:
    """Return the versions of the PEFT interpreter, none if it cannot be used."""
    python = params["python"]
    with checklist.checking(INTERPRETER):
        # Its warnings are made from the same advisories as the check's.
        versions = read_environment(python, params["device"], user, warn=lambda _warning: None).versions
        checklist.versions(INTERPRETER, f"{python}: {versions_text(versions)}", versions)
        return versions
    return {}


def _check_device(
    checklist: Checklist, params: dict[str, t.Any], user: LoadingUser | None, cases: list[Case], scratch: str
) -> None:
    name = params["device"]
    with checklist.checking(DEVICE):
        check_device(name)
        if checklist.failed(INTERPRETER):
            checklist.unknown(DEVICE, f"{name} not tried without the {INTERPRETER}")
            return
        outcome = run_worker(params["python"], name, [], _TIMEOUT, scratch, user, params["memory_limit"])
        if outcome.problems:
            raise DeliveryError(*outcome.problems)
        opened = t.cast(OpenedDevice, outcome.device)
        free = "" if opened.free_bytes is None else f", {human_bytes(opened.free_bytes)} free"
        short = _shortages(opened, cases, params["memory_limit"])
        if not short:
            checklist.ok(DEVICE, f"{' '.join(filter(None, (opened.device, opened.device_name)))}{free}")
        for reason, enough in short.items():
            remedy = f"Free memory on {opened.device}, set another device, or set minimum_level to adapter."
            if enough:
                checklist.add(DEVICE, WARNING, f"{reason} Level adapter is tested instead.")
            else:
                checklist.add(DEVICE, FAILED, reason, remedy)


def _shortages(opened: OpenedDevice, cases: list[Case], limit: int | None) -> dict[str, bool]:
    """Return why bases do not fit, each with whether level adapter is enough for its adapters."""
    found: dict[str, bool] = {}
    dtype = loaded_dtype(opened.device.partition(":")[0])
    loaded = [case for case in cases if reaches(case.required, "model")]
    for path in dict.fromkeys(case.base["path"] for case in loaded):
        of_base = [case for case in loaded if case.base["path"] == path]
        config = of_base[0].base["config"]
        files = sum(os.path.getsize(weights) for weights in base_weights(path))
        adapter = max(entry.size for case in of_base for entry in case.manifest.files if entry.path == case.manifest.weights_file)
        need = model_need(files, str(config.get("dtype") or config.get("torch_dtype")), dtype, adapter)
        reason = shortage(f"the base {path}", need, opened.free_bytes, limit, opened.device)
        if reason:
            found[reason] = all(reaches("adapter", case.minimum) for case in of_base)
    return found


def _find_cases(
    checklist: Checklist, params: dict[str, t.Any], manifests: dict[str, Manifest], bases: dict[str, dict[str, t.Any]]
) -> list[Case]:
    """Return the cases of the described adapters whose base can be used."""
    rows = []
    for row in params["adapters"]:
        if row["name"] in manifests and row["base"] in bases:
            rows.append(row)
        elif row["name"] in manifests:
            checklist.unknown(adapter_check(row["name"]), f"not checked without {base_check(row['base'])}", row["name"])
    options = LoadTestOptions(
        adapters=rows,
        bases=params["bases"],
        manifests=[manifests[row["name"]].to_text() for row in rows],
        models_dir=params["models_dir"],
        store=params["store"],
        python=params["python"],
        device=params["device"],
        level=params["level"],
        minimum_level=params["minimum_level"],
        base_binding=params["base_binding"],
    )
    cases, problems = find_cases(options)
    for problem in problems:
        checklist.fail(adapter_check(str(problem.adapter)), [problem])
    return cases


def _check_case(
    checklist: Checklist, case: Case, params: dict[str, t.Any], versions: dict[str, str], identities: Identities
) -> None:
    """Check what the load test compares before it loads, as far as the manifest shows it."""
    check, attempt = adapter_check(case.name), Attempt(case)
    with checklist.checking(check, case.name):
        check_manifest(case)
    if case.required != LEVELS[0] and versions:
        tokenizer = params["tokenizer_classes"].get(case.name)
        with checklist.checking(check, case.name):
            check_runtime(Attempt(case), {"tokenizer_class": tokenizer}, versions)
    if case.required != LEVELS[0]:
        with checklist.checking(check, case.name):
            check_base(attempt, identities, params["base_binding"] == "enforce")
    if not checklist.failed(check):
        notes = attempt.result.notes
        text = " ".join([f"release {case.manifest.release}, to be tested at level {case.required}.", *notes])
        checklist.add(check, WARNING if notes and case.manifest.base else OK, text.rstrip("."), adapter=case.name)
