# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command of the site that brings the files: its arguments, limits, errors and end."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._ways import PLACEHOLDERS
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer import program, rsync

from tests.support.paths import CHECKOUT
from tests.support.processes import is_running, wait_for
from tests.support.ways import COPYING, Site

LIMIT = 30
# Names itself and a child, and waits for ever.
WAITING = 'sleep 1000 & echo $$ $! > "$0/pids.new"; mv "$0/pids.new" "$0/pids"; wait'


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Site:
    return Site.below(tmp_path, config=b"{}", weights=os.urandom(1000), templates__tool=b"a template")


def fetch(site: Site, *argv: str) -> None:
    site.command(*argv).fetch(site.wanted(), lambda count: None)


def refused(site: Site, *argv: str) -> str:
    with pytest.raises(DeliveryError) as failed:
        fetch(site, *argv)
    return str(failed.value)


def sh(script: str, site: Site) -> tuple[str, ...]:
    """A command that copies the files as well, to the directory $0, after the script."""
    return ("sh", "-c", f'{script}; cp -r "$1"/. "$0"', "{staging}", str(site.source))


def test_command_gets_every_placeholder_and_the_list_of_missing_files(site: Site, tmp_path: pathlib.Path) -> None:
    script = 'cp "$0" "$1/list.json"; printf "%s\\n" "$@" "$PWD" "$TMPDIR" > "$1/args"; cp -r "$2"/. "$3"'
    wanted = site.wanted("weights", "templates/tool")
    placeholders = [f"{{{name}}}" for name in PLACEHOLDERS]
    argv = ("sh", "-c", script, "{files}", str(tmp_path), str(site.source), "{staging}", "{literal", '{"a": 1}', *placeholders)
    site.command(*argv).fetch(wanted, lambda count: None)
    manifest, work = wanted.manifest, f"{site.staging}.work"
    assert (tmp_path / "args").read_text().splitlines() == [
        *(str(tmp_path), str(site.source), str(site.staging), "{literal", '{"a": 1}'),
        *("grammar_lora", manifest.digest, f"{work}/files.json", manifest.release, str(site.staging), work, work),
    ]
    assert json.loads((tmp_path / "list.json").read_text()) == {
        "adapter": "grammar_lora",
        "release": manifest.release,
        "digest": manifest.digest,
        "files": [dataclasses.asdict(entry) for entry in wanted.files],
    }
    assert not pathlib.Path(work).exists()


def test_command_leaves_nothing_else_in_the_staging_directory(site: Site, tmp_path: pathlib.Path) -> None:
    script = 'mkdir -p "$0/.cache/deep" "$0/templates"; : > "$0/.cache/deep/file"; ln -s / "$0/link"; : > "$0/templates/other"'
    fetch(site, *sh(script, site))
    assert sorted(site.arrived()) == ["config", "templates/tool", "weights"]
    assert sorted(os.listdir(site.staging)) == ["config", "templates", "weights"]
    # What a killed run has left is not in the way of the next one.
    pathlib.Path(f"{site.staging}.work").mkdir()
    fetch(site, *sh(":", site))
    assert os.listdir(site.staging.parent) == ["staging"]


def test_command_that_replaces_a_subdirectory_by_a_link_deletes_nothing_elsewhere(site: Site, tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("kept")
    script = f'rmdir "$0/templates"; ln -s {tmp_path}/elsewhere "$0/templates"; exit 0'
    assert "templates/tool is missing" in refused(site, "sh", "-c", f'cp "$1"/* "$0"; {script}', "{staging}", str(site.source))
    assert os.listdir(tmp_path / "elsewhere") == ["kept"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'no such tag'; echo 'gave up' >&2; exit 3", r"it ended with status 3 \(no such tag gave up\)\."),
        ("kill -9 $$", r"it was ended by signal 9\."),
        ('echo x > "$0/weights"; exit 0', r"config is missing after it\."),
        ('cp "$1/weights" "$0/config"; exit 0', r"config is another file than the manifest describes\."),
        ('head -c 1000 /dev/zero > "$0/weights"', r"weights is another file than the manifest describes\."),
        ('ln "$1/weights" "$0/weights"', r"weights is no plain file of its own that belongs to this user\."),
        ('ln -s "$1/weights" "$0/weights"', r"weights is no plain file of its own that belongs to this user\."),
        ('head -c 10 "$1/weights" > "$0/weights"', r"weights has 10 of 1000 bytes\."),
        ("ulimit -f; exit 1", r"it ended with status 1 \([0-9]+\)\."),
        ("yes '{}' | head -c 1000000; exit 1", r"it ended with status 1 \([{} ]{500,600}\)\."),
    ],
)
def test_command_that_fails_names_what_is_wrong(site: Site, script: str, message: str) -> None:
    before = f'cp "$1/config" "$0"; mkdir -p "$0/templates"; cp "$1/templates/tool" "$0/templates"; {script}'
    argv = ("sh", "-c", script if "config" in message or "exit" in script else before, "{staging}", str(site.source))
    text = refused(site, *argv)
    start = "adapter grammar_lora, transfer_command on jw2-1: did not bring the files: "
    assert re.match(re.escape(start) + message, text), text
    assert len(text) < 1500


def test_command_that_does_not_exist_is_refused(site: Site) -> None:
    assert "absent-program cannot be run: No such file or directory." in refused(site, "absent-program")


@pytest.mark.parametrize("where", ["{staging}/weights", "more"])
def test_command_that_writes_too_much_is_ended(site: Site, where: str) -> None:
    """The second one writes to its working directory."""
    text = refused(site, "sh", "-c", 'while :; do cat /dev/zero; done >> "$0"', where)
    assert "it wrote more than the files of the adapter" in text
    assert not os.path.exists(f"{site.staging}.work")


def test_command_that_writes_many_files_is_ended(site: Site) -> None:
    script = 'n=0; while :; do n=$((n + 1)); head -c 4000000 /dev/zero > "$0/$n"; done'
    assert "it wrote more than the files of the adapter." in refused(site, "sh", "-c", script, "{staging}")


def test_command_that_brings_nothing_for_long_is_ended_and_not_tried_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsync, "_KEEPALIVE_FACTOR", 2)
    site = dataclasses.replace(site, timeout=1)
    way = site.command("sh", "-c", WAITING, str(site.staging))
    with pytest.raises(DeliveryError, match=r"brought fewer than 1 bytes in 2 seconds and was ended\. Let it write"):
        way.fetch(site.wanted(), lambda count: None)
    assert way.given_up.startswith("brought fewer")
    pids = [int(pid) for pid in (site.staging / "pids").read_text().split()]
    wait_for(lambda: not any(map(is_running, pids)))


def test_command_leaves_no_process_behind_when_it_ends(site: Site) -> None:
    fetch(site, *sh('sleep 1000 & echo $! > "$1/pid"; mv "$1/pid" "${1%/source}/pid"', site))
    pid = int((site.source.parent / "pid").read_text())
    wait_for(lambda: not is_running(pid))


# Runs a command in a process of its own, which can be killed as a worker of Ansible.
RUN = """\
import pathlib, sys
from tests.support.ways import Site
site = Site(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
site.command(*sys.argv[3:]).fetch(site.wanted(), lambda count: None)
"""


def children(pid: int) -> list[int]:
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("victim", ["controller", "program"])
def test_command_ends_when_its_controller_or_its_program_is_killed(site: Site, victim: str) -> None:
    argv = [sys.executable, "-c", RUN, str(site.source), str(site.staging)]
    path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
    running = subprocess.Popen([*argv, "sh", "-c", WAITING, str(site.staging)], stderr=subprocess.PIPE, text=True, env=path)
    try:
        wait_for((site.staging / "pids").exists)
        pids = [int(pid) for pid in (site.staging / "pids").read_text().split()]
        [at_node] = children(running.pid)
        os.kill(running.pid if victim == "controller" else at_node, signal.SIGKILL)
        if victim == "program":
            assert "ended its part of the transfer before its end" in running.communicate(timeout=LIMIT)[1]
        else:
            running.communicate(timeout=LIMIT)
        wait_for(lambda: not any(map(is_running, [at_node, *pids])))
    finally:
        running.kill()
        running.communicate(timeout=LIMIT)


# Is killed when the command has started, and before it knows that.
KILLED_AT_START = """\
import os, pathlib, signal, subprocess, sys, time
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer import command

staging, *argv = sys.argv[1:]

class Started(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        while not os.path.exists(f"{staging}/pids"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

command.subprocess.Popen = Started
job = {"argv": [*argv, staging], "staging": staging, "work": f"{staging}.work", "list": {"files": []}, "known": [], "lease": 60}
command.main(job)
"""


def test_command_ends_though_its_program_is_killed_as_it_starts(site: Site) -> None:
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", KILLED_AT_START, str(site.staging), "sh", "-c", WAITING]
    done = subprocess.run(argv, env=path, timeout=LIMIT, check=False)
    assert done.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in (site.staging / "pids").read_text().split()]
    wait_for(lambda: not any(map(is_running, pids)))


def test_command_ends_when_its_controller_is_silent(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_SIGN_INTERVAL", 1000)
    monkeypatch.setattr(program, "lease", lambda timeout: 0.5)
    assert "ended its part of the transfer before its end" in refused(site, "sh", "-c", WAITING, str(site.staging))


# A node whose interpreter answers something else than the program does.
HOSTILE = """\
#!/bin/sh
echo; echo "-- begin --"; read job
{script}
"""


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo '[1]'; cat", "gave an answer of another form"),
        ("echo no json; cat", "gave an answer of another form"),
        ("""echo '{"bytes": "many"}'; cat""", "gave an answer of another form"),
        ("head -c 1000000 /dev/zero; cat", "gave an answer that is too long"),
        ("exit 5", "ended its part of the transfer before its end"),
        (r"""echo '{"problem": "\\u001b[2Jgone", "output": ""}'; cat""", r"did not bring the files: \\x1b\[2Jgone"),
    ],
)
def test_command_with_answers_of_another_form_fails(site: Site, tmp_path: pathlib.Path, script: str, message: str) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text(HOSTILE.replace("{script}", script))
    interpreter.chmod(0o755)
    way = dataclasses.replace(site.command("true"), interpreter=str(interpreter))
    with pytest.raises(DeliveryError, match=message):
        way.fetch(site.wanted(), lambda count: None)


def test_command_of_a_node_that_reports_more_bytes_than_there_are_counts_what_can_arrive(
    site: Site, tmp_path: pathlib.Path
) -> None:
    interpreter = tmp_path / "python"
    answers = 'echo \'{"bytes": 99999999999}\'; echo \'{"bytes": -5}\'; echo \'{"problem": "", "output": ""}\''
    interpreter.write_text(HOSTILE.replace("{script}", answers))
    interpreter.chmod(0o755)
    way = dataclasses.replace(site.command("true"), interpreter=str(interpreter))
    way.fetch(site.wanted(), lambda count: None)
    assert way.received == 2 * sum(entry.size for entry in site.wanted().files)


def test_command_on_a_node_without_the_interpreter_is_refused(site: Site) -> None:
    way = dataclasses.replace(site.command(*COPYING), interpreter="/absent/python")
    with pytest.raises(DeliveryError, match="jw2-1"):
        way.fetch(site.wanted(), lambda count: None)
