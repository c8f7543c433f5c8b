# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The preflight of a load test, with the real PEFT interpreter or one that claims versions."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import tempfile
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.source import check_source

from tests.support.preflight import BASE, Found, Params, Site

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
VERSIONS = {"python": "3.12.1", "torch": "2.13.0", "safetensors": "0.8.0", "transformers": "5.24.0", "peft": "0.21.2"}


@pytest.fixture
def site(tmp_path: pathlib.Path, tiny: pathlib.Path) -> Site:
    return Site(tmp_path, tiny)


@pytest.fixture
def other_base(site: Site) -> pathlib.Path:
    """A copy of the base with other settings than in training."""
    copy = site.root / "base"
    shutil.copytree(site.base, copy)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}), encoding="utf-8")
    return copy


def interpreter(directory: pathlib.Path, **versions: str | None) -> str:
    """An interpreter that only claims to have these versions."""
    claimed = {name: version for name, version in {**VERSIONS, **versions}.items() if version}
    path = directory / "python"
    # The script that lists unreadable files is really run, by an interpreter of every user.
    real = 'case $3 in *unreadable*) exec /usr/bin/python3 "$@" ;; esac'
    path.write_text(f"#!/bin/sh\n{real}\necho '{json.dumps(claimed)}'\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def check(site: Site, **changes: t.Any) -> Found:
    return site.check_node(probe=False, **changes)


@pytest.mark.slow
def test_check_loading_with_peft_names_versions_device_and_level(site: Site) -> None:
    found = check(site, level="available")
    assert not found.failed()
    assert ", peft " in found.one("PEFT interpreter").found
    device = found.one("device").found
    assert (device.startswith("cpu "), device.endswith(" free")) == (True, True)
    assert found.one("adapter grammar_3b").found.endswith("to be tested at level model")
    assert list(site.scratch.iterdir()) == []


@pytest.mark.slow
def test_check_loading_without_gpu_fails_the_device_only(site: Site) -> None:
    found = check(site, level="adapter", device="cuda:63")
    assert found.failed() == {"device"}
    assert found.one("device").found.startswith("device cuda:63: cannot be used by ")
    assert "set device to cpu" in found.one("device").remedy


@pytest.mark.slow
@pytest.mark.parametrize(("minimum", "state"), [(None, "failed"), ("adapter", "warning")])
def test_check_loading_without_memory_for_base(site: Site, minimum: str | None, state: str) -> None:
    found = check(site, level="model", minimum_level=minimum, memory_limit=700 << 20)
    device = found.one("device")
    assert (device.state, found.failed()) == (state, {"device"} if state == "failed" else set())
    assert "does not fit: it needs 1.0 GiB of memory on cpu, 0.7 GiB are permitted." in device.found


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ({"torch": None, "peft": None}, "has no torch, peft."),
        ({"peft": "0.13.2"}, "has PEFT 0.13.2, which cannot read adapters saved by newer versions."),
    ],
)
def test_check_loading_with_unsuitable_interpreter_fails(site: Site, python: Params, message: str) -> None:
    found = check(site, level="adapter", python=interpreter(site.root, **python))
    assert found.failed() == {"PEFT interpreter"}
    assert found.one("PEFT interpreter").found.endswith(message)
    assert found.one("device").state == "unknown"


def test_check_loading_with_missing_interpreter_fails(site: Site) -> None:
    found = check(site, level="adapter", python="/absent/python")
    assert found.failed() == {"PEFT interpreter"}
    assert found.one("PEFT interpreter").found == "/absent/python: does not exist."


def test_check_loading_with_older_transformers_than_tokenizer_fails(site: Site) -> None:
    path = site.source / "grammar_8b" / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "tokenizer_class": "TokenizersBackend"}), encoding="utf-8")
    path = site.source / "grammar_3b" / "tokenizer_config.json"
    path.write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}), encoding="utf-8")
    bases = {BASE: {"config": json.loads((site.base / "config.json").read_text(encoding="utf-8"))}}
    python = interpreter(site.root, transformers="4.55.0")
    found = check(site, level="adapter", python=python, device="nonsense", bases=bases)
    assert found.failed() == {"device", "adapter grammar_8b"}
    assert "was saved by transformers 5 as TokenizersBackend" in found.one("adapter grammar_8b").found


@pytest.mark.parametrize("level", ["structure", "model"])
def test_check_loading_with_missing_base_fails(site: Site, level: str) -> None:
    found = check(site, level=level, bases={BASE: {"path": "/absent"}}, python="/absent/python")
    assert f"base {BASE}" in found.failed()
    assert found.one(f"base {BASE}").remedy
    assert found.one("adapter grammar_3b").state == "unknown"


def test_check_loading_at_level_model_without_path_fails_each_adapter(site: Site) -> None:
    found = check(site, level="model", bases={}, python=interpreter(site.root), device="nonsense")
    assert found.failed() == {"device", "adapter grammar_3b", "adapter grammar_8b"}
    assert "has no path on this host" in found.one("adapter grammar_3b").found
    assert found.one(f"base {BASE}").found == "has neither path nor config here"


def test_check_loading_with_base_of_other_shape_fails_each_adapter(site: Site) -> None:
    config = json.loads((site.base / "config.json").read_text(encoding="utf-8"))
    found = check(site, bases={BASE: {"config": {**config, "hidden_size": 128}}})
    assert found.failed() == {"adapter grammar_3b", "adapter grammar_8b"}
    assert "with a wrong shape" in found.one("adapter grammar_3b").found


def test_check_loading_without_alias_of_base_fails_the_adapter(site: Site) -> None:
    path = site.source / "grammar_3b" / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "base_model_name_or_path": "another/name"}), encoding="utf-8")
    named = {BASE: {"path": str(site.base), "aliases": ["another/name"]}}
    assert not check(site, bases=named, **described(site, named)).failed()
    found = check(site, **described(site, named))
    assert found.failed() == {"adapter grammar_3b"}
    assert found.one("adapter grammar_3b").found.startswith("base_model_name_or_path in adapter_config.json")


def described(site: Site, bases: Params) -> Params:
    """Return the manifests from a training server that has these bases."""
    source = check_source(site.source_params(bases=bases), str(site.scratch))
    return {"manifests": [manifest.to_text() for manifest in source.manifests], "source_checks": source.checklist.to_json()}


def test_check_loading_at_level_golden_without_golden_fails_each_adapter(site: Site) -> None:
    found = check(site, level="golden", python=interpreter(site.root), device="nonsense")
    assert found.failed() == {"device", "adapter grammar_3b", "adapter grammar_8b"}
    assert "has no golden" in found.one("adapter grammar_3b").found


@pytest.mark.parametrize(("binding", "state"), [("enforce", "failed"), ("report", "warning")])
def test_check_loading_on_another_base_than_in_training(site: Site, other_base: pathlib.Path, binding: str, state: str) -> None:
    python = interpreter(site.root)
    bases = {BASE: {"path": str(other_base)}}
    found = check(site, level="model", python=python, device="nonsense", bases=bases, base_binding=binding)
    verdict = found.one("adapter grammar_3b")
    assert verdict.state == state
    assert f"was trained on another base than the one at {other_base}: rms_norm_eps" in verdict.found


def test_check_loading_with_unknown_user_still_asks_the_interpreter(site: Site) -> None:
    found = check(site, level="adapter", user="no-such-user", python="/absent/python")
    assert found.failed() == {"load test user", "PEFT interpreter"}


@as_root
def test_check_loading_by_user_who_cannot_read_fails(tiny: pathlib.Path) -> None:
    # A directory that every user can reach, unlike pytest's.
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        root.chmod(0o755)
        site = Site(root, tiny)
        closed = root / "base"
        shutil.copytree(site.base, closed)
        (closed / "model.safetensors").chmod(0o600)
        found = check(
            site,
            level="model",
            user="nobody",
            file_mode="0600",
            bases={BASE: {"path": str(closed)}},
            python=interpreter(root),
            device="nonsense",
        )
        assert found.failed() == {"load test user", "device", f"base {BASE}"}
        assert "cannot read the files of active releases" in found.one("load test user").found
        assert found.one(f"base {BASE}").found == f"{closed / 'model.safetensors'}: cannot be read by user nobody."
