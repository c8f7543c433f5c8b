# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The progress of a delivery: on a terminal, in a pipe, and after an interruption."""

from __future__ import annotations

import collections.abc as c
import contextlib
import fcntl
import pathlib
import re
import subprocess
import termios

from tests.support.fleet import CLEANER_3B, CLEANER_8B, DESCRIBER_3B, WEIGHTS, Barrier, Fleet
from tests.support.playbooks import CHECKOUT, LIMIT, PLAYBOOK, recording
from tests.support.terminal import Terminal

ENABLED = {"ANSIBLE_CALLBACKS_ENABLED": "fleet_record,lorafleet.delivery.delivery_progress", "TERM": "xterm"}
BUSY = r"describing|checking|hashing|waiting|sending|verifying|loading|activating"


@contextlib.contextmanager
def delivery(fleet: Fleet, terminal: Terminal, *options: str, **environment: str) -> c.Iterator[subprocess.Popen[bytes]]:
    """Run the deploy playbook on a terminal."""
    process = subprocess.Popen(
        [str(PLAYBOOK), "-i", str(fleet.write_inventory()), *options, str(CHECKOUT / "playbooks" / "deploy.yml")],
        env={**recording(fleet.root / "record.jsonl"), **ENABLED, **environment},
        cwd=fleet.root,
        stdin=terminal.program,
        stdout=terminal.program,
        stderr=terminal.program,
        # So that Control-C interrupts it.
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    try:
        terminal.close_program()
        yield process
    finally:
        process.kill()
        process.wait()
        terminal.close()


def shown(terminal: Terminal) -> dict[str, str]:
    """Return the live lines on the screen by node."""
    return {line.split()[0]: line for line in terminal.visible if re.match(rf"j\S+  .*({BUSY})", line)}


def displayed(log: pathlib.Path) -> list[str]:
    """Return all lines that Ansible printed, from its log."""
    text = log.read_text(encoding="utf-8")
    return [line for line in re.sub(r"(?m)^\S+ \S+ p=\d+ u=\S+ n=\S+ \w+\| ", "", text).splitlines() if line.strip()]


def test_progress_on_terminal_shows_a_line_per_node_and_leaves_nothing(fleet: Fleet) -> None:
    # In KiB per second: each transfer lasts for a second or more.
    fleet.hosts["jw2-1"]["agent_transfer_bwlimit"] = "120"
    fleet.hosts["jw3-1"]["agent_transfer_bwlimit"] = "20"
    # The second node starts its transfer only when the first one is about to, and the first one
    # only after the lines of both were seen.
    first, second = (Barrier(fleet, node, "adapter_sync") for node in ("jw2-1", "jw3-1"))
    log = fleet.root / "ansible.log"
    # Fewer rows than the output has lines, and wide enough for each of them.
    terminal = Terminal(200, 12)
    seen: set[str] = set()
    with delivery(fleet, terminal, ANSIBLE_LOG_PATH=str(log)) as process:
        while terminal.read():
            lines = shown(terminal)
            if first.closed and second.closed and all("hashing" in lines.get(node, "") for node in ("jw2-1", "jw3-1")):
                second.open()
            if first.closed and "hashing local files" in lines.get("jw2-1", "") and "% " in lines.get("jw3-1", ""):
                # The last two lines, in order.
                assert terminal.visible[-2:] == [lines["jw2-1"], lines["jw3-1"]]
                first.open()
            seen.update(lines.values())
        assert process.wait(LIMIT) == 0, "\n".join(terminal.everything)
    assert not first.closed
    assert [line.rstrip() for line in terminal.everything if line] == [line.rstrip() for line in displayed(log)]
    assert "PLAY RECAP" in "\n".join(terminal.visible)

    for node, adapter in (("jw2-1", CLEANER_3B), ("jw2-1", CLEANER_8B), ("jw3-1", DESCRIBER_3B)):
        shares = [
            int(found[1])
            for line in seen
            if (found := re.fullmatch(rf"{node}  {adapter} +sending +(\d+)% +\d+\.\d kB/s +(?:\d+:\d\d left)?", line))
        ]
        assert shares, seen
        assert max(shares) <= 100
    assert any(re.fullmatch(r"jw2-1 +hashing local files  \d:\d\d", line) for line in seen), seen


def test_progress_of_interrupted_run_leaves_nothing(fleet: Fleet) -> None:
    barrier = Barrier(fleet, "jw2-1", "adapter_sync")
    log = fleet.root / "ansible.log"
    terminal = Terminal(200, 24)
    # One node, and only once its module waits: an interrupt while Ansible starts a process is lost.
    with delivery(fleet, terminal, "--limit", "jw2", ANSIBLE_LOG_PATH=str(log)) as process:
        while terminal.read():
            if barrier.reached() and "hashing" in shown(terminal).get("jw2-1", ""):
                # Control-C.
                terminal.type("\x03")
                break
        while terminal.read():
            pass
        assert process.wait(LIMIT) != 0
    assert not shown(terminal)
    assert "interrupted" in terminal.everything[-1]
    assert [line.rstrip() for line in terminal.everything if line] == [line.rstrip() for line in displayed(log)]


def test_progress_without_terminal_prints_plain_lines(fleet: Fleet) -> None:
    # An earlier run was killed after this many bytes.
    half = (fleet.source / DESCRIBER_3B / WEIGHTS).read_bytes()[:40_000]
    planned = fleet.deploy("--check", "--limit", "jw3").adapters("jw3-1", "adapter_sync")[DESCRIBER_3B]
    staging = fleet.stored("jw3-1", DESCRIBER_3B) / "staging" / planned["release"]
    staging.mkdir(parents=True)
    (staging / WEIGHTS).write_bytes(half)
    done = fleet.run("deploy", environment=ENABLED)
    assert done.rc == 0, done.output
    written = (fleet.root / "record.log").read_bytes()
    assert b"\r" not in written
    assert b"\x1b" not in written
    lines = written.decode().splitlines()
    sizes = {
        name: sent["downloaded_bytes"]
        for node in ("jw2-1", "jw3-1")
        for name, sent in done.adapters(node, "adapter_sync").items()
    }
    sizes[DESCRIBER_3B] -= len(half)
    for node, adapters in (("jw2-1", (CLEANER_3B, CLEANER_8B)), ("jw3-1", (DESCRIBER_3B,))):
        assert [line for line in lines if line.startswith(f"{node}:")] == [
            f"{node}: describing the adapters",
            f"{node}: checking whether up to date",
            f"{node}: hashing local files",
            *(f"{node}: sending {name}, {sizes[name] / 1000:.1f} kB" for name in adapters),
            f"{node}: verifying",
            f"{node}: loading on cpu",
            f"{node}: activating",
        ]
