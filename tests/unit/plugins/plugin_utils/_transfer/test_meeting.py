# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers of one run that know of each other's members of a swarm."""

from __future__ import annotations

import os
import pathlib
import signal

from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.meeting import SOURCE, Meeting

DIGEST = "0123456789ab" * 5 + "0123"


def meeting(directory: pathlib.Path, source: str = "sbs29", digest: str = DIGEST) -> Meeting:
    return Meeting(str(directory), source, digest)


def test_meeting_has_one_authority_for_each_swarm_in_a_private_file(tmp_path: pathlib.Path) -> None:
    first = meeting(tmp_path).authority()
    assert meeting(tmp_path).authority() == first
    assert meeting(tmp_path, digest=DIGEST[::-1]).authority() != first
    assert meeting(tmp_path, source="../sbs30").authority() != first
    [private, *_others] = [path for path in tmp_path.rglob("authority") if first.key in path.read_text().replace("\\n", "\n")]
    assert (private.stat().st_mode & 0o777, private.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert {path.parent for path in tmp_path.iterdir()} == {tmp_path}


def test_meeting_has_one_leader_until_that_one_ends(tmp_path: pathlib.Path) -> None:
    first, second = meeting(tmp_path), meeting(tmp_path)
    assert (first.lead(), second.lead()) == (True, False)
    first.stop_leading()
    assert (second.lead(), first.lead()) == (True, False)


def test_meeting_with_a_killed_leader_has_another(tmp_path: pathlib.Path) -> None:
    theirs, mine = meeting(tmp_path), meeting(tmp_path)
    theirs.lead()
    child = os.fork()
    if not child:
        # It has the lock now, as long as it lives.
        signal.pause()
    try:
        theirs.stop_leading()
        assert not mine.lead()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert mine.lead()


def test_meeting_tells_each_member_once(tmp_path: pathlib.Path) -> None:
    first, second = meeting(tmp_path), meeting(tmp_path)
    first.announce("jw2-1", "192.0.2.1", 8710)
    assert second.new_members() == [("jw2-1", "192.0.2.1", 8710)]
    first.announce(SOURCE, "192.0.2.9", 8711)
    assert second.new_members() == [("", "192.0.2.9", 8711)]
    assert second.new_members() == []
    assert len(meeting(tmp_path).new_members()) == 2


def test_meeting_ignores_a_line_that_is_being_written_or_never_was_complete(tmp_path: pathlib.Path) -> None:
    meeting(tmp_path).announce("jw2-1", "192.0.2.1", 8710)
    [file] = tmp_path.rglob("members")
    line = file.read_bytes()
    for end in range(len(line)):
        file.write_bytes(line[:end])
        reading = meeting(tmp_path)
        before = reading.new_members()
        file.write_bytes(line)
        assert [*before, *reading.new_members()] == [("jw2-1", "192.0.2.1", 8710)]
    file.write_bytes(line[:20])
    meeting(tmp_path).announce("jw2-2", "192.0.2.2", 8711)
    assert meeting(tmp_path).new_members() == [("jw2-2", "192.0.2.2", 8711)]


def test_meeting_has_receivers_until_the_last_one_has_its_files(tmp_path: pathlib.Path) -> None:
    with meeting(tmp_path) as first, meeting(tmp_path) as second:
        first.leave_receivers()
        assert first.has_receivers()
        second.leave_receivers()
        assert not first.has_receivers()


def test_meeting_counts_failed_starts_since_the_last_good_one(tmp_path: pathlib.Path) -> None:
    one = meeting(tmp_path)
    one.record_start("cannot be reached")
    one.record_start()
    one.record_start("has no libtorrent", final=True)
    assert meeting(tmp_path).failed_starts() == [("has no libtorrent", True)]


def test_meeting_publishes_hashes_for_all(tmp_path: pathlib.Path) -> None:
    assert meeting(tmp_path).hashes() is None
    meeting(tmp_path).publish([{"root": "00", "layer": ""}])
    assert meeting(tmp_path).hashes() == [{"root": "00", "layer": ""}]
