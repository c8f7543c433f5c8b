# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults between hosts, injected on the lab: in each run, every node has another fault.

After each fault the oracle of tests/support/invariants.py inspects every node, the message names
the remedy, and the other nodes are delivered. Once the fault is fixed, a plain run delivers all
nodes. Faults that need no second host are in tests/integration/test_bad_input.py.
"""

from __future__ import annotations

import datetime
import os
import pathlib
import re
import signal
import stat

import pytest

from tests.lab.host import command
from tests.lab.lab import EXTRA, EXTRA_SIZE, NODES, ROOT, SOURCE, Lab, first_of, second_of
from tests.support.fleet import WEIGHTS

# There is one lab: one worker runs all its tests.
pytestmark = pytest.mark.xdist_group("lab")

CLEANER, DESCRIBER, PARAPHRASER = NODES
UNTOUCHED = "The served files were not changed."
FULL = "the node's file system has no space or inodes left"
RESUME = f"The received files were kept; run again to resume. {UNTOUCHED}"
NOT_AS_DESCRIBED = "the received files do not match the manifest:"


def flip(path: pathlib.Path, offset: int) -> None:
    """Flip one bit of a file."""
    with path.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ 1]))


def test_link_down__hung_receiver__source_truncated(lab: Lab) -> None:
    cleaner, describer, paraphraser = (lab.hosts[node] for node in NODES)
    offered = {node: lab.enlarge(node) for node in NODES}
    whole = offered[PARAPHRASER].read_bytes()

    def hang(_staged: pathlib.Path) -> None:
        describer.signal(signal.SIGSTOP, describer.processes("rsync"))

    def truncate(_staged: pathlib.Path) -> None:
        os.truncate(offered[PARAPHRASER], EXTRA_SIZE // 2)
        paraphraser.restore_bandwidth()

    run = lab.start("deploy", "-e", "agent_transfer_timeout=5", environment={"ANSIBLE_TIMEOUT": "2"})
    lab.when(
        run,
        lab.receiving(CLEANER, lambda _staged: cleaner.link("down")),
        lab.receiving(DESCRIBER, hang),
        lab.receiving(PARAPHRASER, truncate),
    )
    done = run.wait()
    lab.check(
        done,
        {
            CLEANER: (first_of(CLEANER), f"not be transferred from {SOURCE}:", f"to {CLEANER}: an ssh connection failed", RESUME),
            DESCRIBER: (first_of(DESCRIBER), f"not be transferred from {SOURCE}:", "no data for 5 seconds", RESUME),
            PARAPHRASER: (first_of(PARAPHRASER), "is missing or truncated at the source", f'{EXTRA}": No data available', RESUME),
        },
    )

    cleaner.link("up")
    # The connections that Ansible keeps open would take a while to recover.
    cleaner.cut()
    describer.signal(signal.SIGCONT, describer.processes("rsync"))
    for host in (cleaner, describer):
        host.restore_bandwidth()
    offered[PARAPHRASER].write_bytes(whole)
    lab.wait_until_idle()
    lab.check_convergence()


def test_receiver_killed__source_changed__bit_flipped_in_staging(lab: Lab) -> None:
    offered = {node: lab.enlarge(node) for node in NODES}

    def kill(_staged: pathlib.Path) -> None:
        receivers = lab.hosts[CLEANER].processes("rsync")
        assert receivers
        lab.hosts[CLEANER].signal(signal.SIGKILL, receivers)
        lab.hosts[CLEANER].restore_bandwidth()

    def change(_staged: pathlib.Path) -> None:
        # A part that was not sent yet: rsync sends what it reads and reports no error.
        flip(offered[DESCRIBER], EXTRA_SIZE - 1)
        lab.hosts[DESCRIBER].restore_bandwidth()

    def damage(staged: pathlib.Path) -> None:
        flip(staged / WEIGHTS, (staged / WEIGHTS).stat().st_size - 1)
        lab.hosts[PARAPHRASER].restore_bandwidth()

    run = lab.start("deploy")
    lab.when(run, lab.receiving(CLEANER, kill), lab.receiving(DESCRIBER, change), lab.receiving(PARAPHRASER, damage))
    done = run.wait()
    lab.check(
        done,
        {
            # The run itself resumed the transfer.
            CLEANER: None,
            DESCRIBER: (first_of(DESCRIBER), NOT_AS_DESCRIBED, f"changed  {EXTRA}", "run again", UNTOUCHED),
            PARAPHRASER: (first_of(PARAPHRASER), NOT_AS_DESCRIBED, f"changed  {WEIGHTS}", "run again", UNTOUCHED),
        },
    )
    lab.check_convergence()


def test_disk_full__inodes_full__extra_and_missing_file_in_staging(lab: Lab) -> None:
    cleaner, describer, paraphraser = (lab.hosts[node] for node in NODES)
    cleaner.mount("size=160m")
    describer.mount("size=256m,nr_inodes=300")
    for node in NODES:
        lab.enlarge(node)
    lab.record_state()

    def fill(_staged: pathlib.Path) -> None:
        cleaner.fill()
        cleaner.restore_bandwidth()

    def use_up(_staged: pathlib.Path) -> None:
        describer.use_up_inodes()
        describer.restore_bandwidth()

    def confuse(staged: pathlib.Path) -> None:
        (staged / "notes.txt").write_text("mine")
        (staged / WEIGHTS).unlink()
        paraphraser.restore_bandwidth()

    run = lab.start("deploy")
    lab.when(run, lab.receiving(CLEANER, fill), lab.receiving(DESCRIBER, use_up), lab.receiving(PARAPHRASER, confuse))
    done = run.wait()
    for host in (cleaner, describer):
        host.make_room()
    lab.check(
        done,
        {
            CLEANER: (first_of(CLEANER), f"to {CLEANER}: {FULL}", RESUME),
            DESCRIBER: (f"to {DESCRIBER}: {FULL}", RESUME),
            PARAPHRASER: (first_of(PARAPHRASER), f"missing  {WEIGHTS}", "extra    notes.txt", "run again", UNTOUCHED),
        },
    )
    lab.check_convergence()


def test_lock_holder_stopped__node_lost__disk_full_in_activation(lab: Lab) -> None:
    cleaner, describer, paraphraser = (lab.hosts[node] for node in NODES)
    paraphraser.mount("size=160m")
    lab.enlarge(PARAPHRASER)
    paraphraser.restore_bandwidth()
    lab.record_state()
    holders: list[int] = []
    with lab.barrier(CLEANER) as barrier_of_cleaner, lab.barrier(DESCRIBER), lab.barrier(PARAPHRASER) as barrier_of_paraphraser:

        def stop(module: int) -> None:
            cleaner.signal(signal.SIGSTOP, [module])
            holders.append(module)

        def fill(_module: int) -> None:
            # Enough for small files.
            paraphraser.fill(left=1 << 20)
            barrier_of_paraphraser.close()

        run = lab.start("deploy")
        lab.when(
            run,
            lab.at_barrier(CLEANER, stop),
            lab.at_barrier(DESCRIBER, lambda _module: describer.power_off()),
            lab.at_barrier(PARAPHRASER, fill),
        )
        second = lab.start("deploy", "--limit", CLEANER, name="second").wait()
        barrier_of_cleaner.close()
        cleaner.signal(signal.SIGCONT, holders)
        done = run.wait()
    describer.start()
    lab.when(None, (f"{DESCRIBER} is up", describer.answers, lambda _found: None))
    paraphraser.make_room()
    [message] = second.failures(CLEANER)
    for part in (
        f"{second_of(CLEANER)}: is being changed by another run: Deploy to the nodes by",
        "Wait for it to finish, or end that",
    ):
        assert part in message
    lab.check(
        done,
        {
            CLEANER: None,
            # Ansible's own message.
            DESCRIBER: ("ssh",),
            PARAPHRASER: (first_of(PARAPHRASER), "activation failed: No space left on device", "run again"),
        },
    )
    lab.check_convergence()


def test_controller_killed_in_transfer_and_in_activation(lab: Lab) -> None:
    """One module survives and completes, another is killed too, and a receiver loses its peer."""
    describer, paraphraser = lab.hosts[DESCRIBER], lab.hosts[PARAPHRASER]
    lab.enlarge(DESCRIBER)

    def hold(_staged: pathlib.Path) -> None:
        describer.signal(signal.SIGSTOP, describer.processes("rsync"))
        describer.restore_bandwidth()

    transferring = lab.start("deploy", "--limit", DESCRIBER, name="first")
    lab.when(transferring, lab.receiving(DESCRIBER, hold))
    with lab.barrier(CLEANER), lab.barrier(PARAPHRASER):
        activating = lab.start("deploy", "--limit", f"{CLEANER},{PARAPHRASER}", name="second")
        lab.when(
            activating,
            lab.at_barrier(CLEANER, lambda _module: None),
            lab.at_barrier(PARAPHRASER, lambda module: paraphraser.signal(signal.SIGKILL, [module])),
        )
        activating.kill()
        transferring.kill()
    describer.signal(signal.SIGCONT, describer.processes("rsync"))
    lab.wait_until_idle()
    for node in NODES:
        assert lab.violations(node, None) == []
    assert lab.is_delivered(CLEANER)
    assert not lab.is_delivered(DESCRIBER)
    assert not lab.is_delivered(PARAPHRASER)
    lab.check_convergence()


def test_two_controllers_at_once(lab: Lab) -> None:
    cleaner = lab.hosts[CLEANER]
    lab.enlarge(CLEANER)

    def hold(_staged: pathlib.Path) -> None:
        cleaner.signal(signal.SIGSTOP, cleaner.processes("rsync"))
        cleaner.restore_bandwidth()

    first = lab.start("deploy", name="first")
    lab.when(first, lab.receiving(CLEANER, hold))
    second = lab.start("deploy", name="second").wait()
    cleaner.signal(signal.SIGCONT, cleaner.processes("rsync"))
    lab.check(first.wait(), dict.fromkeys(NODES))
    [message] = second.failures(CLEANER)
    for part in (
        f"{first_of(CLEANER)}: is being transferred to this node by another run: an rsync writes to",
        "Wait for it to finish",
    ):
        assert part in message
    lab.check_convergence()


def test_module_run_twice_by_ssh_retries__umask_077__umask_000(lab: Lab) -> None:
    cleaner = lab.hosts[CLEANER]
    lab.hosts[DESCRIBER].log_in_with_umask("077")
    lab.hosts[PARAPHRASER].log_in_with_umask("000")
    with lab.barrier(CLEANER):
        run = lab.start("deploy", environment={"ANSIBLE_SSH_RETRIES": "3"})
        # The connection breaks, the module keeps running, and Ansible runs it again.
        lab.when(run, lab.at_barrier(CLEANER, lambda _module: cleaner.cut()))
        lab.when(run, ("the module runs twice", lambda: len(cleaner.processes("python3")) > 1, lambda _found: None))
    lab.check(run.wait(), dict.fromkeys(NODES))
    lab.check_convergence()


def test_store_on_another_file_system__file_system_read_only(lab: Lab) -> None:
    cleaner, describer = lab.hosts[CLEANER], lab.hosts[DESCRIBER]
    describer.mount("size=96m")
    lab.record_state()
    cleaner.mount("size=96m", "/home/.lorafleet")
    describer.run("mount", "-o", "remount,ro", "/home")
    lab.check(
        lab.deploy(),
        {
            CLEANER: (
                "/home/.lorafleet: is not on the file system of /home/models",
                "Set the option store to a directory below /home",
            ),
            DESCRIBER: ("/home/models: is on a read-only file system.", "Mount it writable on this node"),
            PARAPHRASER: None,
        },
    )
    cleaner.unmount("/home/.lorafleet")
    describer.run("mount", "-o", "remount,rw", "/home")
    lab.check_convergence()


def test_fifo__device__all_sorts_beside_the_adapter(lab: Lab) -> None:
    fifo, device = lab.source / first_of(CLEANER) / "tokenizer.json", lab.source / second_of(DESCRIBER) / WEIGHTS
    for path in (fifo, device):
        path.unlink()
    os.mkfifo(fifo, 0o644)
    os.mknod(device, 0o644 | stat.S_IFCHR, os.makedev(1, 5))
    # Files that the inventory does not declare are excluded, whatever they are.
    beside = lab.source / first_of(PARAPHRASER)
    (beside / "checkpoint-10").mkdir()
    (beside / "checkpoint-10" / WEIGHTS).write_bytes(b"of an earlier step")
    (beside / "training_args.bin").write_bytes(b"a pickle")
    (beside / ".git").symlink_to("/etc")
    os.mkfifo(beside / "pipe", 0o644)
    os.mknod(beside / "socket", 0o644 | stat.S_IFSOCK)
    remedy = "Replace it with a plain file: directories, FIFOs and devices are never delivered."
    lab.check(
        lab.deploy(),
        {
            CLEANER: (f"{first_of(CLEANER)}: /home/models/{first_of(CLEANER)}/tokenizer.json is not a plain file.", remedy),
            DESCRIBER: (f"{second_of(DESCRIBER)}: /home/models/{second_of(DESCRIBER)}/{WEIGHTS} is not a plain file.", remedy),
            PARAPHRASER: None,
        },
    )
    lab.offer(first_of(CLEANER))
    lab.offer(second_of(DESCRIBER))
    lab.check_convergence()


def test_clock_jumped_back__clock_began_in_1970__rsync_by_hand_into_name(lab: Lab) -> None:
    """The hosts share this machine's clock: the test writes the times that a wrong clock leaves."""
    for node, year in ((CLEANER, 2040), (PARAPHRASER, 1970)):
        then = datetime.datetime(year, 1, 2, tzinfo=datetime.timezone.utc).timestamp()
        for path in sorted(lab.hosts[node].home.rglob("*"), reverse=True):
            if path.suffix == ".json" and {"receipts", "state.json"} & {path.name, path.parent.name}:
                path.write_text(re.sub(r'"20\d\d-\d\d-\d\dT', f'"{year}-01-02T', path.read_text()))
            os.utime(path, (then, then))
    served = lab.served(DESCRIBER, first_of(DESCRIBER))
    by_ssh = ("--rsync-path=sudo rsync", "-e", f"ssh -F {ROOT / 'ssh_config'}")
    command("rsync", "-a", "--delete", *by_ssh, f"{lab.tiny / 'bf16'}/", f"{DESCRIBER}:/home/models/{served.name}/")
    lab.record_state()
    lab.must_survive(DESCRIBER, served.name)

    audited = lab.start("audit").wait()
    assert audited.rc != 0
    assert [node for node in NODES if audited.failures(node)] == [DESCRIBER]
    for part in (
        "The served adapters differ from their verified releases",
        f"changed  /home/models/{served.name}/{WEIGHTS}",
        "README.md",
    ):
        assert part in audited.output
    for node in NODES:
        assert lab.violations(node, None) == []
    lab.check(lab.deploy(), dict.fromkeys(NODES))

    # Retention does not depend on times.
    lab.delivered()
    for name in map(first_of, NODES):
        lab.offer(name, training=2)
    lab.check(lab.deploy("-e", '{"agent_keep": 2}'), dict.fromkeys(NODES))
    for node in NODES:
        name = first_of(node)
        assert lab.releases(node, name) == {lab.active[name], lab.wanted[name]}
    lab.check_convergence()
