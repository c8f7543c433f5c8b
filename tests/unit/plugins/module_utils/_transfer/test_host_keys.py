# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Host keys where the server does not show them. tests of direct_ssh read them from a real one."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer import host_keys

JOB = {"over_ssh": False, "port": 1, "lease": 30}


@pytest.fixture
def answers(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, t.Any]]:
    """What the program answers, on a machine without keys in the usual files."""
    found: list[dict[str, t.Any]] = []
    monkeypatch.setattr(host_keys, "end_with_controller", lambda lease, end: None)
    monkeypatch.setattr(host_keys, "tell", lambda **answer: found.append(answer))
    monkeypatch.setattr(host_keys, "_FILES", f"{tmp_path}/*.pub")
    return found


def test_host_keys_of_a_server_that_does_not_answer_are_those_of_the_usual_files(
    answers: list[dict[str, t.Any]], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "a.pub").write_text("ssh-ed25519 AAAA root@sbs29\n")
    (tmp_path / "b.pub").write_bytes(b"\xff")
    os.symlink("absent", tmp_path / "c.pub")
    host_keys.main(JOB)
    assert answers == [{"keys": ["ssh-ed25519 AAAA"]}]


def test_host_keys_that_cannot_be_read_are_a_problem(
    answers: list[dict[str, t.Any]], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_keys.main(JOB)
    monkeypatch.setenv("PATH", str(tmp_path))
    host_keys.main(JOB)
    problem = "the host keys of port 1 of 127.0.0.1 cannot be read"
    assert answers == [
        {"problem": f"{problem}: it shows none"},
        {"problem": f"{problem}: ssh-keyscan: No such file or directory"},
    ]
