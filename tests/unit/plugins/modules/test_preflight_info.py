# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options and results of preflight_info; tests of _preflight test the checks themselves."""

from __future__ import annotations

import os
import pathlib
import pwd
import sys
import time

import pytest

from tests.support.fleet import contents
from tests.support.preflight import BASE, Params, Site

from .conftest import RunModule


@pytest.fixture
def site(tmp_path: pathlib.Path, tiny: pathlib.Path) -> Site:
    return Site(tmp_path, tiny)


def given(params: Params) -> Params:
    return {name: value for name, value in params.items() if value is not None}


def test_preflight_info_of_training_server_returns_manifests(site: Site, run_module: RunModule) -> None:
    before = contents(site.root)
    result = run_module("preflight_info", given(site.source_params()))
    expected = site.node_params()
    assert result.pop("manifests") == expected["manifests"]
    assert result.pop("directories") == expected["source_directories"]
    assert result.pop("tokenizer_classes") == expected["tokenizer_classes"]
    assert abs(result.pop("time") - time.time()) < 60
    assert result.pop("user") == pwd.getpwuid(os.geteuid()).pw_name
    assert result.pop("python") == sys.executable
    assert {tuple(one) for one in result["checks"]} == {("check", "state", "found", "remedy")}
    assert {one["state"] for one in result.pop("checks")} == {"ok"}
    assert result == {"changed": False}
    assert contents(site.root) == before


def test_preflight_info_of_node_returns_bytes_to_download(site: Site, run_module: RunModule) -> None:
    before = contents(site.home)
    result = run_module("preflight_info", given(site.node_params()))
    assert (result["changed"], result["download_bytes"] > 100_000) == (False, True)
    assert {one["state"] for one in result["checks"]} == {"ok"}
    assert contents(site.home) == before


def test_preflight_info_of_node_with_problems_fails_with_all_of_them(site: Site, run_module: RunModule) -> None:
    before = contents(site.home)
    changes = {"store": str(site.home / "no" / "store"), "owner": "no-such-user", "bases": {BASE: {"path": "/absent"}}}
    result = run_module("preflight_info", given(site.node_params(**changes)))
    assert result["failed"]
    assert [one["subject"] for one in result["problems"]] == ["store", "owner and modes", f"base {BASE}"]
    assert all(one["remedy"] for one in result["problems"])
    failed = [one for one in result["checks"] if one["state"] == "failed"]
    assert [one["check"] for one in failed] == ["store", "owner and modes", f"base {BASE}"]
    for one in failed:
        assert f"{one['check']}: {one['found']} {one['remedy']}" in result["msg"]
    assert contents(site.home) == before


def test_preflight_info_in_check_mode_tries_nothing(site: Site, run_module: RunModule) -> None:
    result = run_module("preflight_info", given(site.node_params()), check_mode=True)
    assert {one["check"] for one in result["checks"] if one["state"] == "unknown"} == {"locks", "owner and modes"}


def test_preflight_info_of_node_requires_store_and_python(site: Site, run_module: RunModule) -> None:
    options = {name: value for name, value in given(site.node_params()).items() if name not in ("store", "python")}
    assert run_module("preflight_info", options)["msg"] == "part is node but all of the following are missing: store, python"


def test_preflight_info_with_damaged_manifest_fails_with_its_problem(site: Site, run_module: RunModule) -> None:
    result = run_module("preflight_info", given(site.node_params(manifests=["{}"])))
    assert (result["failed"], result["checks"]) == (True, [])
    assert result["problems"]
