# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The load test as another user: what its process is, what it may read, and what is left of that afterwards."""

from __future__ import annotations

import json
import os
import pathlib
import pwd
import stat
import tempfile
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test import Target, load_test
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving_user import ServingUser

NAME = "nobody"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def open_path() -> t.Iterator[pathlib.Path]:
    """A directory that every user can pass through, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory)
        path.chmod(0o755)
        yield path


@pytest.fixture
def staged(open_path: pathlib.Path) -> pathlib.Path:
    """A staged release, as adapter_sync leaves it: for root alone."""
    directory = open_path / "staging"
    directory.mkdir(mode=0o700)
    (directory / "adapter_model.safetensors").write_text("the weights", encoding="utf-8")
    (directory / "adapter_model.safetensors").chmod(0o600)
    (directory / "link").symlink_to("/etc/shadow")
    return directory


def look(path: pathlib.Path) -> tuple[int, int, int]:
    found = path.lstat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


def run(open_path: pathlib.Path, staged: pathlib.Path, script: str) -> str:
    """What an interpreter that is this script says in its result when it runs as nobody."""
    python = open_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    python.chmod(0o755)
    user = ServingUser.named(NAME)
    target = Target("a", str(staged), "adapter_model.safetensors", "adapter", {}, None, False)
    with user.may_read([str(staged)]):
        outcome = load_test(str(python), "cpu", [target], 60, "/nonexistent", user=user)
    return str(outcome.reports["a"]["said"])


def report(command: str) -> str:
    """Shell commands that write a result whose one report holds the output of C(command)."""
    result = json.dumps({"adapters": {"a": {"said": "%s"}}, "versions": {}, "current": None, "error": None, "seconds": 0})
    return f"""printf '{result}' "$({{ {command}; }} | tr '\\n' ' ')" > "$5" """


@as_root
def test_the_child_is_that_user_with_all_its_groups(open_path: pathlib.Path, staged: pathlib.Path) -> None:
    known = pwd.getpwnam(NAME)
    groups = " ".join(map(str, os.getgrouplist(NAME, known.pw_gid)))
    assert run(open_path, staged, report("id -u; id -g; id -G")) == f"{known.pw_uid} {known.pw_gid} {groups} "


@as_root
def test_it_reads_what_is_staged_only_as_long_as_it_runs(open_path: pathlib.Path, staged: pathlib.Path) -> None:
    weights = staged / "adapter_model.safetensors"
    before = [look(path) for path in (staged, weights)]
    assert before == [(0o700, 0, 0), (0o600, 0, 0)]
    assert run(open_path, staged, report(f"cat {weights}; touch {weights} {staged}/new 2>&1 | wc -l")) == "the weights2 "
    assert [look(path) for path in (staged, weights)] == before
    assert pathlib.Path("/etc/shadow").stat().st_gid != pwd.getpwnam(NAME).pw_gid


@as_root
def test_it_reads_its_program_whatever_the_umask(open_path: pathlib.Path, staged: pathlib.Path) -> None:
    before = os.umask(0o077)
    try:
        said = run(open_path, staged, report('cat "$3" "$4" > /dev/null && echo read'))
    finally:
        os.umask(before)
    assert said == "read "


@as_root
def test_its_result_is_no_way_to_read_what_it_may_not(open_path: pathlib.Path, staged: pathlib.Path) -> None:
    secret = open_path / "secret"
    secret.write_text(json.dumps({"adapters": {"a": {"said": "secret"}}, "versions": {}}), encoding="utf-8")
    secret.chmod(0o600)
    for trick in (f"ln -s {secret} $5", "mkfifo $5"):
        with pytest.raises(KeyError):
            run(open_path, staged, trick)


@as_root
def test_an_interpreter_that_the_user_may_not_execute(open_path: pathlib.Path) -> None:
    (open_path / "python").write_text("#!/bin/sh\n", encoding="utf-8")
    (open_path / "python").chmod(0o700)
    outcome = load_test(str(open_path / "python"), "cpu", [], 60, "/nonexistent", user=ServingUser.named(NAME))
    assert f"cannot be executed by user {NAME}: Permission denied" in str(outcome.problems[0])


def test_users_that_cannot_be_taken_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeliveryError, match="user no-such-user: is not known on this host"):
        ServingUser.named("no-such-user")
    own = pwd.getpwuid(os.geteuid()).pw_name
    assert not ServingUser.named(own).is_other
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(DeliveryError, match=r"cannot be taken on by user 12345\. Run with become"):
        ServingUser.named(own)
