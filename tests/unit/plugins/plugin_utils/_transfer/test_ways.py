# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all ways of a transfer have in common, and which of several is taken."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import glob
import os
import pathlib
import shutil
import threading
import time
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._ways import DIRECT, DIRECT_SSH, RELAY, SWARM
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.ways import Wanted, Ways

from tests.support import sshd as sshd_server
from tests.support.sshd import Server
from tests.support.ways import WAYS, Site, random_bytes

pytestmark = pytest.mark.skipif(shutil.which("rsync") is None, reason="no rsync on this machine")

MIB = 1 << 20


@pytest.fixture(params=sorted(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    if request.param == DIRECT_SSH and sshd_server.lacking():
        pytest.skip(sshd_server.lacking())
    return str(request.param)


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Site:
    return Site.below(tmp_path, config=b"{}", weights=random_bytes(3 * MIB), templates__tool=b"a template")


def content(site: Site) -> dict[str, bytes]:
    return {entry.path: (site.source / entry.path).read_bytes() for entry in site.wanted().manifest.files}


def test_way_brings_exactly_the_wanted_files_and_counts_their_bytes(way: str, site: Site) -> None:
    counts: list[int] = []
    with WAYS[way](site) as taken:
        taken.fetch(site.wanted("weights", "templates/tool"), counts.append)
        assert (taken.name, taken.given_up) == (way, "")
        assert 3 * MIB <= sum(counts) == taken.received <= 1.02 * 3 * MIB
    assert site.arrived() == {name: data for name, data in content(site).items() if name != "config"}
    modes = {os.stat(site.staging / name).st_mode & 0o777 for name in ("weights", "templates/tool")}
    assert modes == {0o600}


def test_way_brings_several_adapters(way: str, tmp_path: pathlib.Path) -> None:
    sites = [Site.below(tmp_path / name, weights=random_bytes(1000)) for name in ("one", "two")]
    with WAYS[way](sites[0]) as taken:
        taken.fetch(sites[0].wanted(), lambda count: None)
    with WAYS[way](sites[1]) as taken:
        taken.fetch(sites[1].wanted(), lambda count: None)
    assert [site.arrived() for site in sites] == [content(site) for site in sites]


def test_way_resumes_what_is_staged(way: str, site: Site) -> None:
    (site.staging / "weights").write_bytes((site.source / "weights").read_bytes()[: 2 * MIB])
    counts: list[int] = []
    with WAYS[way](site) as taken:
        taken.fetch(site.wanted("weights"), counts.append)
    assert MIB <= sum(counts) < 1.1 * MIB
    assert site.arrived()["weights"] == content(site)["weights"]


def test_way_over_ssh_brings_the_files(way: str, site: Site, sshd: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    site = dataclasses.replace(site, node=End(sshd.options()))
    with WAYS[way](site) as taken:
        taken.fetch(site.wanted(), lambda count: None)
    assert site.arrived() == content(site)


def test_way_with_a_file_missing_at_the_source_names_it_and_keeps_what_arrived(way: str, site: Site) -> None:
    wanted = site.wanted(zeros=bytes(1000))
    with WAYS[way](site) as taken, pytest.raises(DeliveryError) as failed:
        taken.fetch(wanted, lambda count: None)
    [problem] = failed.value.problems
    assert (problem.adapter, "zeros" in problem.problem) == ("grammar_lora", True), str(problem)
    # These ways open all files before they send the first byte.
    opens_all = way in (DIRECT, DIRECT_SSH, SWARM)
    assert site.arrived().get("weights", b"") == (b"" if opens_all else content(site)["weights"])


def test_way_while_another_run_receives_is_refused(way: str, site: Site) -> None:
    held = os.open(site.staging, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with WAYS[way](site) as taken, pytest.raises(
            DeliveryError, match="another run is still writing to the staging directory"
        ):
            taken.fetch(site.wanted(), lambda count: None)
    finally:
        os.close(held)
    assert site.arrived() == {}


def test_way_with_a_host_that_does_not_answer_is_refused(way: str, site: Site, sshd: Server) -> None:
    site = dataclasses.replace(site, node=End(sshd.options(port=1)))
    with WAYS[way](site) as taken, pytest.raises(DeliveryError, match="Connection refused"):
        taken.fetch(site.wanted(), lambda count: None)


@dataclasses.dataclass
class Fake:
    """A way that records its calls."""

    name: str
    failure: str = ""
    given_up: str = ""
    received: int = 0
    calls: list[str] = dataclasses.field(default_factory=list)

    def fetch(self, wanted: Wanted, progress: t.Callable[[int], None]) -> None:
        self.calls.append(wanted.manifest.name)
        if self.failure:
            raise DeliveryError.of(self.name, self.failure)
        self.received += 5


def test_ways_take_the_first_that_works(site: Site) -> None:
    ways = Ways([Fake("direct"), Fake("relay")])
    ways.fetch(site.wanted(), lambda count: None)
    assert ways.taken == {"grammar_lora": {"way": "direct", "not_taken": []}}
    assert (ways.ways[1].calls, ways.received) == ([], 5)  # type: ignore[attr-defined]


def test_ways_say_which_was_not_taken_and_why(site: Site) -> None:
    refusals: list[tuple[str, str, str]] = []
    ways = Ways([Fake("direct", "is down."), Fake("relay")], lambda *refused: refusals.append(refused))
    ways.fetch(site.wanted(), lambda count: None)
    assert refusals == [("grammar_lora", "direct", "is down.")]
    assert ways.taken == {"grammar_lora": {"way": "relay", "not_taken": [{"way": "direct", "why": "is down."}]}}


def test_ways_do_not_try_a_given_up_way_again(site: Site) -> None:
    first = Fake("direct", given_up="is down.")
    ways = Ways([first, Fake("relay")])
    ways.fetch(site.wanted(), lambda count: None)
    assert (first.calls, ways.taken["grammar_lora"]["not_taken"]) == ([], [{"way": "direct", "why": "is down."}])


def test_ways_end_with_the_error_of_the_last(site: Site) -> None:
    with pytest.raises(DeliveryError, match=r"relay: is down, too\."):
        Ways([Fake("direct", "is down."), Fake("relay", "is down, too.")]).fetch(site.wanted(), lambda count: None)


def close_when_wanted(held: int, directory: str) -> None:
    """Close a descriptor soon after another process has opened the same directory."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not is_open_elsewhere(directory):
        time.sleep(0.05)
    # It tries to lock the directory in the meantime.
    time.sleep(0.3)
    os.close(held)


def is_open_elsewhere(path: str) -> bool:
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if link.split("/")[2] != str(os.getpid()) and os.readlink(link) == path:
                return True
    return False


@pytest.mark.parametrize("way", [DIRECT, RELAY])
def test_way_after_another_one_waits_for_what_that_has_left(way: str, site: Site) -> None:
    held = os.open(site.staging, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    ender = threading.Thread(target=close_when_wanted, args=(held, str(site.staging)), daemon=True)
    ender.start()
    with WAYS[way](site) as taken:
        (taken.session if way == RELAY else taken).follows = True  # type: ignore[attr-defined]
        taken.fetch(site.wanted(), lambda count: None)
    ender.join()
    assert site.arrived() == content(site)


def test_ways_fall_back_without_transferring_again_what_has_arrived(site: Site) -> None:
    """The command brings two thirds of the weights and fails."""
    part = 'head -c 2097152 "$0/weights" > "$1/weights"; exit 7'
    counts: list[int] = []
    with WAYS["relay"](site) as relay:
        ways = Ways([site.command("sh", "-c", part, str(site.source), "{staging}"), relay])
        ways.fetch(site.wanted(), counts.append)
    assert site.arrived() == content(site)
    assert ways.taken["grammar_lora"] == {
        "way": "relay",
        "not_taken": [{"way": "command", "why": "did not bring the files: it ended with status 7."}],
    }
    assert 3 * MIB <= ways.received == sum(counts) <= 1.02 * 3 * MIB
