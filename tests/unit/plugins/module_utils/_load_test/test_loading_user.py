# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The load test as another user: its identity and its temporary read access."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import pwd
import shutil
import stat
import subprocess
import tempfile
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.launch import run_worker
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.loading_user import LoadingUser, check_readable
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import Report, Target
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.permissions import Permissions

from tests.support import tiny_adapters

NAME = "nobody"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def open_path() -> t.Iterator[pathlib.Path]:
    """A directory that every user can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory)
        path.chmod(0o755)
        yield path


@pytest.fixture
def staged(open_path: pathlib.Path) -> pathlib.Path:
    """A staged release as adapter_sync leaves it: accessible to root only."""
    directory = open_path / "staging"
    directory.mkdir(mode=0o700)
    (directory / "adapter_model.safetensors").write_text("the weights", encoding="utf-8")
    (directory / "adapter_model.safetensors").chmod(0o600)
    (directory / "link").symlink_to("/etc/shadow")
    return directory


def permissions_of(path: pathlib.Path) -> tuple[int, int, int]:
    found = path.lstat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


def run(open_path: pathlib.Path, staged: pathlib.Path, script: str) -> str:
    """Run a script in place of the interpreter as user nobody; returns the output in its report."""
    python = open_path / "python"
    python.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    python.chmod(0o755)
    user = LoadingUser.named(NAME)
    target = Target("a", str(staged), "adapter_model.safetensors", "adapter", {}, None, False)
    with user.may_read([str(staged)]):
        outcome = run_worker(str(python), "cpu", [target], 60, "/nonexistent", user=user)
    return outcome.reports["a"].warnings[0]


def result_with(output: str) -> dict[str, t.Any]:
    report = dataclasses.asdict(Report(warnings=[output]))
    return {"reports": {"a": report}, "current": None, "error": None, "seconds": 0}


def report(command: str) -> str:
    """Return shell commands that write a result whose one report has the output of ``command``."""
    result = json.dumps(result_with("%s"))
    return f"""printf '{result}\\n' "$({{ {command}; }} | tr '\\n' ' ')" >&$5"""


@as_root
def test_worker_has_user_and_all_groups(open_path: pathlib.Path, staged: pathlib.Path) -> None:
    known = pwd.getpwnam(NAME)
    groups = " ".join(map(str, os.getgrouplist(NAME, known.pw_gid)))
    assert run(open_path, staged, report("id -u; id -g; id -G")) == f"{known.pw_uid} {known.pw_gid} {groups} "


@as_root
def test_may_read_grants_access_to_staged_files_temporarily(open_path: pathlib.Path, staged: pathlib.Path) -> None:
    weights = staged / "adapter_model.safetensors"
    before = [permissions_of(path) for path in (staged, weights)]
    assert before == [(0o700, 0, 0), (0o600, 0, 0)]
    assert run(open_path, staged, report(f"cat {weights}; touch {weights} {staged}/new 2>&1 | wc -l")) == "the weights2 "
    assert [permissions_of(path) for path in (staged, weights)] == before
    assert pathlib.Path("/etc/shadow").stat().st_gid != pwd.getpwnam(NAME).pw_gid


@as_root
def test_worker_reads_its_program_with_any_umask(open_path: pathlib.Path, staged: pathlib.Path) -> None:
    before = os.umask(0o077)
    try:
        output = run(open_path, staged, report('cat "$3" "$4" > /dev/null && echo read'))
    finally:
        os.umask(before)
    assert output == "read "


@as_root
def test_run_worker_interpreter_not_executable_by_user_is_a_problem(open_path: pathlib.Path) -> None:
    (open_path / "python").write_text("#!/bin/sh\n", encoding="utf-8")
    (open_path / "python").chmod(0o700)
    outcome = run_worker(str(open_path / "python"), "cpu", [], 60, "/nonexistent", user=LoadingUser.named(NAME))
    assert f"cannot be executed by user {NAME}: Permission denied" in str(outcome.problems[0])


@as_root
def test_may_read_keeps_readable_files_unchanged(staged: pathlib.Path) -> None:
    # An active release: its group must keep its access.
    weights, config = staged / "adapter_model.safetensors", staged / "adapter_config.json"
    config.touch()
    for path, mode in ((staged, 0o755), (weights, 0o644), (config, 0o640)):
        path.chmod(mode)
    os.chown(weights, 0, 1)
    before = [permissions_of(path) for path in (staged, weights, config)]
    with LoadingUser.named(NAME).may_read([str(staged)]):
        assert [permissions_of(path) for path in (staged, weights)] == before[:2]
        assert permissions_of(config) == (0o640, 0, pwd.getpwnam(NAME).pw_gid)
    assert [permissions_of(path) for path in (staged, weights, config)] == before


@as_root
def test_may_read_covers_subdirectories(open_path: pathlib.Path, staged: pathlib.Path) -> None:
    template = staged / "templates" / "tool_use.jinja"
    template.parent.mkdir(mode=0o700)
    template.write_text("the template", encoding="utf-8")
    template.chmod(0o600)
    before = [permissions_of(path) for path in (template.parent, template)]
    assert run(open_path, staged, report(f"cat {template}")) == "the template"
    assert [permissions_of(path) for path in (template.parent, template)] == before


@as_root
def test_may_read_ignores_vanished_files(open_path: pathlib.Path, staged: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = LoadingUser.named(NAME)
    with user.may_read([str(open_path / "gone")]):
        pass
    # Another run removes the file during the scan.
    weights, listdir = staged / "adapter_model.safetensors", os.listdir

    def list_and_unlink(path: int) -> list[str]:
        entries = listdir(path)
        weights.unlink()
        return entries

    monkeypatch.setattr(os, "listdir", list_and_unlink)
    with user.may_read([str(staged)]):
        assert permissions_of(staged) == (0o750, 0, user.gid)
    assert permissions_of(staged) == (0o700, 0, 0)


@pytest.fixture
def victim(open_path: pathlib.Path) -> pathlib.Path:
    """A file of root's that nobody else may read."""
    path = open_path / "shadow"
    path.write_text("secret", encoding="utf-8")
    path.chmod(0o600)
    return path


@as_root
@pytest.mark.parametrize("trick", ["symlink", "hard link", "other file"])
def test_may_read_file_exchanged_meanwhile_is_an_error(staged: pathlib.Path, victim: pathlib.Path, trick: str) -> None:
    weights = staged / "adapter_model.safetensors"
    error = pytest.raises(DeliveryError, match=f"{weights}: was exchanged during the load test")
    with error, LoadingUser.named(NAME).may_read([str(staged)]):
        weights.rename(staged / "kept")
        if trick == "symlink":
            weights.symlink_to(victim)
        elif trick == "hard link":
            weights.hardlink_to(victim)
        else:
            victim.rename(weights)
    found = permissions_of(weights if trick == "other file" else victim)
    assert found == (0o600, 0, 0)
    # The rest is taken back all the same.
    assert permissions_of(staged) == (0o700, 0, 0)


@as_root
@pytest.mark.parametrize("mode", [0o600, 0o066])
def test_may_read_in_a_directory_of_another_user_is_refused(staged: pathlib.Path, mode: int) -> None:
    """It could exchange the file for one of root's before the access is taken back."""
    weights = staged / "adapter_model.safetensors"
    for path in (staged, weights):
        os.chown(path, 1, 1)
    weights.chmod(mode)
    before = [permissions_of(path) for path in (staged, weights)]
    error = pytest.raises(DeliveryError, match="belongs to user 1, who could exchange its files")
    with error, LoadingUser.named(NAME).may_read([str(staged)]):
        pass
    assert [permissions_of(path) for path in (staged, weights)] == before


@as_root
def test_may_read_file_with_a_second_name_is_refused(staged: pathlib.Path, victim: pathlib.Path) -> None:
    (staged / "tokenizer.json").hardlink_to(victim)
    error = pytest.raises(DeliveryError, match=r"tokenizer\.json: has 2 hard links")
    with error, LoadingUser.named(NAME).may_read([str(staged)]):
        pass
    assert permissions_of(victim) == (0o600, 0, 0)
    assert permissions_of(staged) == (0o700, 0, 0)


@as_root
@pytest.mark.slow
def test_worker_unreadable_base_is_a_failure(tmp_path: pathlib.Path, tiny: pathlib.Path) -> None:
    closed = {"directory": ".", "config": "config.json", "weights": "model.safetensors", "index": "model.safetensors.index.json"}
    targets = []
    for name, path in closed.items():
        base = tmp_path / name
        shutil.copytree(tiny / "base", base)
        if name == "index":
            (base / "model.safetensors").rename(base / "model-1.safetensors")
            (base / path).write_text(json.dumps({"weight_map": {"model.norm.weight": "model-1.safetensors"}}), encoding="utf-8")
        (base / path).chmod(0o700 if path == "." else 0o600)
        os.chown(base / path, pwd.getpwnam(NAME).pw_uid, -1)
        targets.append(Target(name, str(tiny / "adapter"), "adapter_model.safetensors", "model", None, str(base), False))
    # The PEFT environment may be accessible to root only, so the user is root without capabilities.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec setpriv --bounding-set=-all {tiny_adapters.PEFT_PYTHON} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    outcome = run_worker(str(python), "cpu", targets, 120, str(tmp_path))
    assert outcome.problems == ()
    for name, path in closed.items():
        (failure,) = outcome.reports[name].failures
        unreadable = tmp_path / name / ("config.json" if path == "." else path)
        assert failure.problem == f"its base cannot be read by user 0: {unreadable}: Permission denied."
        assert failure.remedy.startswith("Give this user read access to all files of the base")


KNOWN = LoadingUser("serving", 1000, 1000, (1000, 2000))


@pytest.mark.parametrize(
    ("permissions", "problem"),
    [
        (Permissions(0o644, 0o755, 0, 0), None),
        (Permissions(0o640, 0o750, 0, 2000), None),
        (Permissions(0o400, 0o500, 1000, 0), None),
        (Permissions(0o640, 0o755, 0, 0), "files of active releases: they get mode 0640, owner 0 and group 0."),
        (Permissions(0o644, 0o750, 0, 0), "directories of active releases: they get mode 0750, owner 0 and group 0."),
        (Permissions(0o644, 0o644, 0, 0), "directories of active releases: they get mode 0644, owner 0 and group 0."),
        # The first matching class of permissions counts.
        (Permissions(0o044, 0o755, 1000, 2000), "files of active releases: they get mode 0044, owner 1000 and group 2000."),
        (Permissions(0o604, 0o755, 0, 1000), "files of active releases: they get mode 0604, owner 0 and group 1000."),
    ],
)
def test_check_readable_compares_mode_owner_and_group(permissions: Permissions, problem: str | None) -> None:
    if problem is None:
        check_readable(KNOWN, permissions)
    else:
        with pytest.raises(DeliveryError, match=f"user serving: cannot read the {problem} .*Correct owner, group"):
            check_readable(KNOWN, permissions)


def test_check_readable_defaults_to_owner_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    check_readable(KNOWN, Permissions(0o600, 0o700))
    monkeypatch.setattr(os, "geteuid", lambda: 3000)
    monkeypatch.setattr(os, "getegid", lambda: 2000)
    check_readable(KNOWN, Permissions(0o640, 0o750))
    with pytest.raises(DeliveryError, match="cannot read the files"):
        check_readable(KNOWN, Permissions(0o600, 0o700))
    check_readable(LoadingUser("root", 0, 0, (0,)), Permissions(0o600, 0o700))


@as_root
@pytest.mark.parametrize("owner", [0, 65534])
@pytest.mark.parametrize("group", [0, 65534])
@pytest.mark.parametrize("mode", [0o400, 0o040, 0o004, 0o044, 0o404, 0o440])
def test_may_agrees_with_the_kernel(open_path: pathlib.Path, owner: int, group: int, mode: int) -> None:
    user = LoadingUser.named(NAME)
    path = open_path / "file"
    path.touch()
    os.chown(path, owner, group)
    path.chmod(mode)
    as_user = {"user": user.uid, "group": user.gid, "extra_groups": user.groups}
    done = subprocess.run(["cat", path], capture_output=True, check=False, **as_user)
    assert user.may(4, mode, owner, group) == (done.returncode == 0)


def test_named_unknown_or_foreign_user_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeliveryError, match="user no-such-user: does not exist on this host"):
        LoadingUser.named("no-such-user")
    own = pwd.getpwuid(os.geteuid()).pw_name
    assert not LoadingUser.named(own).is_other
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(DeliveryError, match=r"user 12345 cannot switch to it\. Run with become"):
        LoadingUser.named(own)
