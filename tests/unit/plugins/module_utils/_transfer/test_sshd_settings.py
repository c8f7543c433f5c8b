# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the program that reads settings of sshd finds out itself. The preflight's tests run it."""

from __future__ import annotations

import os
import pathlib
import pwd
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer import sshd_settings


def run(monkeypatch: pytest.MonkeyPatch, **job: t.Any) -> dict[str, t.Any]:
    answers: list[dict[str, t.Any]] = []
    monkeypatch.setattr(sshd_settings, "tell", lambda **answer: answers.append(answer))
    monkeypatch.setattr(sshd_settings, "end_with_controller", lambda lease, end: None)
    sshd_settings.main({"lease": 30, **job})
    [answer] = answers
    return answer


def test_sshd_settings_need_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run(monkeypatch) == {"problem": "only root can let sshd evaluate its settings"}


def test_sshd_settings_without_sshd_are_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sshd_settings, "_ELSEWHERE", "")
    monkeypatch.setattr(sshd_settings, "_running", list)
    monkeypatch.setenv("PATH", str(tmp_path))
    job = {"user": pwd.getpwuid(os.getuid()).pw_name, "node": "", "address": "127.0.0.1", "port": 22, "authorized_keys": "~/k"}
    assert run(monkeypatch, **job)["problem"].startswith("sshd does not evaluate its settings: [Errno 2]")


@pytest.mark.parametrize(
    ("title", "command"),
    [
        ("sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups", "/usr/sbin/sshd -D"),
        ("/usr/sbin/sshd -D -f /etc/other", "/usr/sbin/sshd -D -f /etc/other"),
        ("sshd: root@notty", None),
        ("sshd-session: root [priv]", None),
    ],
)
def test_sshd_settings_recognize_the_listening_sshd(title: str, command: str | None) -> None:
    found = sshd_settings._LISTENER.fullmatch(title)
    assert (found and found[1]) == command


def test_sshd_settings_keep_the_words_of_the_running_sshd_that_change_them() -> None:
    words = ["-D", "-e", "-f", "/etc/other", "-oUseDNS=no", "-o", "Port 2222", "-h", "/key"]
    assert sshd_settings._without_others(words) == words[2:]


def test_sshd_settings_of_paths_have_the_values_of_placeholders() -> None:
    account = pwd.struct_passwd(("lora", "x", 1000, 1000, "", "/home/lora", "/bin/sh"))
    paths = [sshd_settings._expanded(path, account) for path in (".ssh/keys", "/keys/%u-%U%%", "%h/keys")]
    assert paths == ["/home/lora/.ssh/keys", "/keys/lora-1000%", "/home/lora/keys"]


def test_sshd_settings_name_what_others_may_write_to(tmp_path: pathlib.Path) -> None:
    user = pwd.getpwuid(os.getuid())
    account = pwd.struct_passwd((user.pw_name, "x", user.pw_uid, user.pw_gid, "", str(tmp_path), "/bin/sh"))
    keys = tmp_path / ".ssh" / "keys"
    keys.parent.mkdir(mode=0o700)
    keys.touch(mode=0o600)
    assert sshd_settings._loose(str(keys), account) == ""
    keys.parent.chmod(0o770)
    assert sshd_settings._loose(str(keys), account) == str(keys.parent)
