# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node refuses: one row for each case, made from a release that it accepts.

Keys, certificates and signatures are real, and ssh-keygen verifies them.
"""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils import _trust_place
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing import refusal
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.acceptance import (
    Acceptance,
    Signed,
    check_everywhere,
    record_accepted,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import NAMESPACE, SNAPSHOT_NAMESPACE
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.refusal import Refusal
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.serials import (
    Accepted,
    Record,
    read_record,
    with_accepted,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.snapshot import Snapshot
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.statement import MAX_BYTES, Statement
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import read_trust
from ansible_collections.lorafleet.delivery.plugins.module_utils._trust_place import Place

from tests.support.fido import PRESENT, SecurityKey
from tests.support.paths import CHECKOUT
from tests.support.releases import NAME, manifest_of, release_of
from tests.support.signing import DAY, NOW, Keys, signer_line, statement_about, write_trust

HOUR = datetime.timedelta(hours=1)


class Case:
    """A release that is to be served: version 2, signed by alice with serial 8.

    Version 1 was accepted before, with serial 7.
    """

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.manifest = manifest_of(2)
        self.statement = statement_about(self.manifest, 8)
        # If set, instead of what the statement and the signers give.
        self.text: t.Optional[bytes] = None
        self.signatures: t.Optional[list[bytes]] = None
        self.signers = ["alice"]
        self.signed = True
        self.lines = [signer_line(name, keys.public(name)) for name in ("alice", "bob", "carol")]
        self.lines.append(signer_line("ci@lab", keys.public("authority"), "cert-authority"))
        self.revoked: t.Optional[bytes] = None
        self.policy: dict[str, t.Any] = {}
        self.trusts = True
        # If set, the policy requires a snapshot, and this one is signed by daily and offered.
        self.snapshot: t.Optional[Snapshot] = None
        self.snapshot_text: t.Optional[bytes] = None
        self.snapshot_signer = "daily"
        self.record: t.Optional[Record] = self.accepted(1, 7)
        self.active = False
        self.now = NOW

    def accepted(self, version: int, serial: int, before: t.Optional[Record] = None, **changes: t.Any) -> Record:
        """Return the record after a version was accepted."""
        statement = statement_about(manifest_of(version), serial, **changes)
        signature = self.keys.sign(statement.to_bytes(), "alice").decode()
        return with_accepted(before, Accepted(statement, {"alice": signature}, NOW - DAY), [release_of(1), release_of(2)])

    def sign_by_certificate_of_an_hour(self, begin: datetime.datetime, issued: datetime.datetime, serial: int = 1) -> bytes:
        """Let somebody with such a certificate be the only one who signs. Return the signature."""
        self.statement = dataclasses.replace(self.statement, issued=issued)
        validity = f"{begin:%Y%m%d%H%M%S}:{begin + HOUR:%Y%m%d%H%M%S}"
        [signature] = self.signatures = [
            self.keys.sign(self.statement.to_bytes(), self.certificate("authority", validity, serial))
        ]
        return signature

    def certificate(self, authority: str = "authority", validity: str = "always:forever", serial: int = 1) -> str:
        return self.keys.certificate(authority, "short", "ci@lab", validity, serial)

    def public(self, name: str) -> str:
        return f"{self.keys.private(name)}.pub"

    def offered(self) -> dict[str, Signed]:
        if not self.signed:
            return {}
        text = self.statement.to_bytes() if self.text is None else self.text
        signatures = [self.keys.sign(text, key) for key in self.signers] if self.signatures is None else self.signatures
        return {NAME: Signed(text.decode(), tuple(one.decode() for one in signatures))}

    def require_snapshot(self, serial: int = 8, version: int = 2, age: datetime.timedelta = HOUR, **changes: t.Any) -> None:
        self.policy = {"snapshot_hours": 30}
        entry = {NAME: (serial, manifest_of(version).digest)}
        self.snapshot = Snapshot(**{"fleet": "lab", "issued": NOW - age, "adapters": entry, **changes})
        self.snapshot_text = self.snapshot.to_bytes()

    def trust(self, base: pathlib.Path) -> Place:
        daily = None
        if "snapshot_hours" in self.policy:
            daily = signer_line("daily", self.keys.public("daily"), namespace=SNAPSHOT_NAMESPACE)
        return write_trust(base, "".join(self.lines), self.revoked, snapshot_signers=daily, **self.policy)

    def offered_snapshot(self) -> t.Optional[Signed]:
        if self.snapshot is None or self.snapshot_text is None:
            return None
        signature = self.keys.sign(self.snapshot.to_bytes(), self.snapshot_signer, SNAPSHOT_NAMESPACE)
        return Signed(self.snapshot_text.decode(), (signature.decode(),))


# Only a node knows its clock, its serials and snapshots, what it has accepted and what it serves.
OF_A_NODE = {
    refusal.KEY_NOT_IN_FORCE,
    refusal.CERTIFICATE,
    refusal.UNSIGNED_AFTER_SIGNED,
    refusal.CLOCK,
    refusal.SERIAL_LOWER,
    refusal.SERIAL_REUSED,
    refusal.EXPIRED,
    refusal.NO_SNAPSHOT,
    refusal.SNAPSHOT,
    refusal.SNAPSHOT_OLDER,
    refusal.SNAPSHOT_EXPIRED,
    refusal.NOT_IN_SNAPSHOT,
}
Row = t.Callable[[Case], None]
REFUSED: list[t.Any] = []
ACCEPTED: list[t.Any] = []


def refused(code: str) -> t.Callable[[Row], Row]:
    def add(row: Row) -> Row:
        REFUSED.append(pytest.param(row, code, id=row.__name__))
        return row

    return add


def accepted(row: Row) -> Row:
    ACCEPTED.append(pytest.param(row, id=row.__name__))
    return row


def changed(case: Case, **changes: t.Any) -> None:
    case.statement = dataclasses.replace(case.statement, **changes)


# Signatures


@refused(refusal.OTHER_KEY)
def key_of_a_stranger(case: Case) -> None:
    case.signers = ["mallory"]


@refused(refusal.OTHER_KEY)
def key_of_an_authority(case: Case) -> None:
    case.signers = ["authority"]


@refused(refusal.OTHER_KEY)
def key_that_was_removed(case: Case) -> None:
    case.lines = case.lines[1:]


@refused(refusal.NAMESPACE)
def signature_of_a_commit(case: Case) -> None:
    case.signatures = [case.keys.sign(case.statement.to_bytes(), "alice", "git")]


@refused(refusal.NAMESPACE)
def signature_of_a_file(case: Case) -> None:
    case.signatures = [case.keys.sign(case.statement.to_bytes(), "alice", "file")]


@refused(refusal.CHANGED)
def serial_raised_after_signing(case: Case) -> None:
    case.signatures = [case.keys.sign(case.statement.to_bytes(), "alice")]
    changed(case, serial=9)


@refused(refusal.CHANGED)
def expiry_moved_after_signing(case: Case) -> None:
    case.signatures = [case.keys.sign(case.statement.to_bytes(), "alice")]
    changed(case, expires=case.statement.expires + DAY)


@refused(refusal.CHANGED)
def signature_of_an_earlier_statement(case: Case) -> None:
    case.signatures = [case.keys.sign(statement_about(manifest_of(1), 7).to_bytes(), "alice")]


@refused(refusal.DAMAGED)
def signature_that_is_empty(case: Case) -> None:
    case.signatures = [b""]


@refused(refusal.DAMAGED)
def signature_that_is_cut_off(case: Case) -> None:
    case.signatures = [case.keys.sign(case.statement.to_bytes(), "alice")[:100]]


@refused(refusal.DAMAGED)
def signature_that_is_too_long(case: Case) -> None:
    case.signatures = [b"x" * (1 << 20)]


@refused(refusal.NO_TOUCH)
def security_key_that_nobody_has_touched(case: Case) -> None:
    key = SecurityKey()
    case.lines[0] = signer_line("alice", key.public)
    case.signatures = [key.sign(case.statement.to_bytes(), NAMESPACE, 0)]


@refused(refusal.KEY_NOT_IN_FORCE)
def key_that_has_ended(case: Case) -> None:
    case.lines[0] = signer_line("alice", case.keys.public("alice"), 'valid-before="20260101Z"')


@refused(refusal.KEY_NOT_IN_FORCE)
def key_that_does_not_begin_yet(case: Case) -> None:
    case.lines[0] = signer_line("alice", case.keys.public("alice"), 'valid-after="20270101Z"')


@refused(refusal.CERTIFICATE)
def certificate_that_has_ended(case: Case) -> None:
    case.signers = [case.certificate(validity="20260601100000:20260601110000")]


@refused(refusal.CERTIFICATE)
def certificate_that_had_ended_when_it_signed(case: Case) -> None:
    case.policy = {"certificate_days": 14}
    case.sign_by_certificate_of_an_hour(NOW - 3 * HOUR, issued=NOW - HOUR)


@refused(refusal.CERTIFICATE)
def certificate_that_signed_too_long_ago(case: Case) -> None:
    case.policy = {"certificate_days": 14}
    case.sign_by_certificate_of_an_hour(NOW - 14 * DAY - HOUR, issued=NOW - 14 * DAY - HOUR / 2)


@refused(refusal.CERTIFICATE)
def certificate_that_begins_tomorrow(case: Case) -> None:
    case.policy = {"certificate_days": 14}
    case.sign_by_certificate_of_an_hour(NOW + DAY, issued=NOW - HOUR)


@refused(refusal.CERTIFICATE)
def certificate_of_an_authority_that_has_ended_since(case: Case) -> None:
    case.policy = {"certificate_days": 14}
    case.lines[-1] = signer_line("ci@lab", case.keys.public("authority"), "cert-authority", 'valid-before="202606011100Z"')
    case.sign_by_certificate_of_an_hour(NOW - 5 * HOUR, issued=NOW - 5 * HOUR)


@refused(refusal.CERTIFICATE)
def certificate_that_has_ended_under_an_accepted_statement(case: Case) -> None:
    """The statement is known, but that signature is not."""
    case.record = case.accepted(2, 8, case.record)
    case.sign_by_certificate_of_an_hour(NOW - DAY - HOUR / 2, issued=case.statement.issued)


@refused(refusal.CERTIFICATE)
def certificate_of_another_authority(case: Case) -> None:
    case.signers = [case.certificate("mallory")]


@refused(refusal.CERTIFICATE)
def certificate_for_another_name(case: Case) -> None:
    case.signers = [case.keys.certificate("authority", "short", "ci@other", "always:forever")]


@refused(refusal.REVOKED)
def key_in_a_list_of_revoked_keys(case: Case) -> None:
    case.revoked = f"{case.keys.public('alice')}\n".encode()


@refused(refusal.REVOKED)
def key_in_a_krl(case: Case) -> None:
    case.revoked = case.keys.krl(case.public("alice"))


@refused(refusal.REVOKED)
def certificate_with_a_revoked_serial(case: Case) -> None:
    case.signers = [case.certificate(serial=5)]
    case.revoked = case.keys.krl("-s", case.public("authority"), "-", data=b"serial: 5\n")


@refused(refusal.REVOKED)
def certificate_with_a_revoked_serial_that_signed_in_time(case: Case) -> None:
    case.policy = {"certificate_days": 14}
    case.sign_by_certificate_of_an_hour(NOW - 5 * HOUR, issued=NOW - 5 * HOUR, serial=5)
    case.revoked = case.keys.krl("-s", case.public("authority"), "-", data=b"serial: 5\n")


@refused(refusal.REVOKED)
def certificate_of_a_revoked_authority(case: Case) -> None:
    case.signers = [case.certificate()]
    case.revoked = f"{case.keys.public('authority')}\n".encode()


@refused(refusal.REVOKED)
def threshold_with_a_revoked_key(case: Case) -> None:
    case.policy = {"threshold": 2}
    case.signers = ["alice", "bob"]
    case.revoked = f"{case.keys.public('bob')}\n".encode()


@refused(refusal.OTHER_KEY)
def threshold_with_a_stranger(case: Case) -> None:
    case.policy = {"threshold": 2}
    case.signers = ["alice", "mallory"]


@refused(refusal.THRESHOLD)
def threshold_with_one_signature(case: Case) -> None:
    case.policy = {"threshold": 2}


@refused(refusal.THRESHOLD)
def threshold_with_one_signature_twice(case: Case) -> None:
    case.policy = {"threshold": 2}
    case.signers = ["alice", "alice"]


@refused(refusal.THRESHOLD)
def threshold_with_two_keys_of_one_person(case: Case) -> None:
    case.policy = {"threshold": 2}
    case.lines.append(signer_line("alice", case.keys.public("second")))
    case.signers = ["alice", "second"]


@refused(refusal.THRESHOLD)
def threshold_with_two_certificates_of_one_authority(case: Case) -> None:
    case.policy = {"threshold": 2}
    text = case.statement.to_bytes()
    case.signatures = [case.keys.sign(text, case.certificate(serial=serial)) for serial in (1, 2)]


# What the statement is about


@refused(refusal.FLEET)
def statement_of_another_fleet(case: Case) -> None:
    changed(case, fleet="production")


@refused(refusal.ADAPTER)
def statement_about_another_adapter(case: Case) -> None:
    changed(case, adapter="other_lora")


@refused(refusal.DIGEST)
def statement_about_another_release(case: Case) -> None:
    case.statement = statement_about(manifest_of(3), 8)


@refused(refusal.DIGEST)
def statement_about_the_beginning_of_the_digest_only(case: Case) -> None:
    changed(case, digest=case.statement.digest[:12] + "0" * 52)


@refused(refusal.MANIFEST)
def golden_that_has_changed(case: Case) -> None:
    case.manifest = dataclasses.replace(case.manifest, golden={"positions": []})


@refused(refusal.MANIFEST)
def base_that_has_changed(case: Case) -> None:
    case.manifest = dataclasses.replace(case.manifest, base={"digest": "0" * 64})


@refused(refusal.MANIFEST)
def tensors_that_have_changed(case: Case) -> None:
    case.manifest = dataclasses.replace(case.manifest, tensors=case.manifest.tensors[1:])


@refused(refusal.COUNTS)
def number_of_files_that_is_wrong(case: Case) -> None:
    changed(case, files=4)


@refused(refusal.COUNTS)
def size_that_is_wrong(case: Case) -> None:
    changed(case, size=1)


# Time and order


@refused(refusal.SERIAL_LOWER)
def serial_that_is_lower(case: Case) -> None:
    changed(case, serial=6)


@refused(refusal.SERIAL_LOWER)
def replay_of_the_release_before(case: Case) -> None:
    case.record = case.accepted(2, 8, case.record)
    case.manifest, case.statement = manifest_of(1), statement_about(manifest_of(1), 7)


@refused(refusal.SERIAL_LOWER)
def active_release_that_was_never_accepted(case: Case) -> None:
    """It was served before the node required signatures, and comes again after a signed one."""
    case.active = True
    changed(case, serial=6)


@refused(refusal.SERIAL_REUSED)
def serial_of_another_release(case: Case) -> None:
    changed(case, serial=7)


@refused(refusal.SERIAL_REUSED)
def serial_of_another_release_that_is_active(case: Case) -> None:
    case.active = True
    changed(case, serial=7)


@refused(refusal.EXPIRED)
def statement_that_has_expired(case: Case) -> None:
    case.now = case.statement.expires + DAY


@refused(refusal.EXPIRED)
def statement_that_was_accepted_and_has_expired(case: Case) -> None:
    case.record = case.accepted(2, 8, case.record)
    case.now = case.statement.expires + DAY


@refused(refusal.CLOCK)
def clock_that_was_set_back(case: Case) -> None:
    case.record = case.accepted(1, 7, issued=NOW + DAY)


@refused(refusal.CLOCK)
def statement_of_tomorrow(case: Case) -> None:
    changed(case, issued=NOW + DAY)


# Snapshots of the fleet


@refused(refusal.NO_SNAPSHOT)
def snapshot_that_is_missing(case: Case) -> None:
    case.require_snapshot()
    case.snapshot = None


@refused(refusal.SNAPSHOT)
def snapshot_of_a_stranger(case: Case) -> None:
    case.require_snapshot()
    case.snapshot_signer = "alice"


@refused(refusal.SNAPSHOT)
def snapshot_that_was_changed(case: Case) -> None:
    case.require_snapshot(serial=7)
    assert case.snapshot_text is not None
    case.snapshot_text = case.snapshot_text.replace(b'"serial": 7', b'"serial": 8')


@refused(refusal.SNAPSHOT)
def snapshot_of_another_fleet(case: Case) -> None:
    case.require_snapshot(fleet="production")


@refused(refusal.SNAPSHOT_EXPIRED)
def snapshot_of_the_day_before_yesterday(case: Case) -> None:
    case.require_snapshot(age=31 * HOUR)


@refused(refusal.SNAPSHOT_OLDER)
def snapshot_before_one_that_was_seen(case: Case) -> None:
    case.require_snapshot(age=2 * HOUR)
    assert case.record is not None
    case.record = dataclasses.replace(case.record, snapshot=NOW - HOUR)


@refused(refusal.CLOCK)
def snapshot_of_tomorrow(case: Case) -> None:
    case.require_snapshot(age=-DAY)


@refused(refusal.NOT_IN_SNAPSHOT)
def release_before_that_of_the_snapshot(case: Case) -> None:
    case.require_snapshot(serial=9, version=3)


@refused(refusal.NOT_IN_SNAPSHOT)
def statement_before_that_of_the_snapshot(case: Case) -> None:
    case.require_snapshot(serial=9)


@refused(refusal.NOT_IN_SNAPSHOT)
def snapshot_without_the_adapter(case: Case) -> None:
    case.require_snapshot(adapters={})


# Texts that are no statements


@refused(refusal.MALFORMED)
def statement_that_is_too_long(case: Case) -> None:
    case.text = case.statement.to_bytes().ljust(MAX_BYTES + 1)


@refused(refusal.MALFORMED)
def statement_with_a_key_twice(case: Case) -> None:
    case.text = case.statement.to_bytes().replace(b'"serial": 8', b'"serial": 6,\n "serial": 8')


@refused(refusal.MALFORMED)
def statement_with_an_unknown_key(case: Case) -> None:
    case.text = case.statement.to_bytes().replace(b'"serial": 8', b'"serial": 8,\n "force": true')


@refused(refusal.MALFORMED)
def statement_with_nan(case: Case) -> None:
    case.text = case.statement.to_bytes().replace(b'"serial": 8', b'"serial": NaN')


@refused(refusal.MALFORMED)
def statement_with_other_spaces(case: Case) -> None:
    case.text = case.statement.to_bytes().replace(b'"serial": 8', b'"serial":  8')


@refused(refusal.MALFORMED)
def statement_of_another_type(case: Case) -> None:
    case.text = case.statement.to_bytes().replace(b"release/1", b"release/2")


@refused(refusal.MALFORMED)
def statement_that_is_empty(case: Case) -> None:
    case.text = b""


# Nothing is signed


@refused(refusal.UNSIGNED)
def release_without_statement(case: Case) -> None:
    case.signed = False


@refused(refusal.UNSIGNED)
def active_release_without_statement(case: Case) -> None:
    case.signed = False
    case.active = True
    case.record = case.accepted(2, 8)


@refused(refusal.UNSIGNED)
def statement_without_signatures(case: Case) -> None:
    case.signers = []


@refused(refusal.UNSIGNED_AFTER_SIGNED)
def release_without_statement_after_a_signed_one(case: Case) -> None:
    case.signed = False
    case.policy = {"required": False}


@refused(refusal.OTHER_KEY)
def stranger_where_nothing_is_required(case: Case) -> None:
    case.policy = {"required": False}
    case.signers = ["mallory"]


@refused(refusal.NO_TRUST)
def node_that_trusts_nobody(case: Case) -> None:
    case.trusts = False


# What a node accepts


@accepted
def release_that_is_signed(_case: Case) -> None:
    pass


@accepted
def first_release_of_an_adapter(case: Case) -> None:
    case.record = None


@accepted
def release_that_was_accepted_before(case: Case) -> None:
    case.record = case.accepted(2, 8, case.record)


@accepted
def earlier_release_that_was_signed_again(case: Case) -> None:
    case.record = case.accepted(2, 8, case.record)
    case.manifest, case.statement = manifest_of(1), statement_about(manifest_of(1), 9)


@accepted
def active_release_whose_statement_has_expired(case: Case) -> None:
    case.record, case.active = case.accepted(2, 8, case.record), True
    case.now = case.statement.expires + DAY


@accepted
def active_release_after_a_rollback(case: Case) -> None:
    case.record, case.active = case.accepted(3, 9, case.accepted(2, 8)), True


@accepted
def stranger_beside_a_signer(case: Case) -> None:
    case.signers = ["mallory", "alice"]


@accepted
def two_of_three_signers(case: Case) -> None:
    case.policy, case.signers = {"threshold": 2}, ["carol", "alice"]


@accepted
def security_key_that_was_touched(case: Case) -> None:
    key = SecurityKey()
    case.lines[0] = signer_line("alice", key.public)
    case.signatures = [key.sign(case.statement.to_bytes(), NAMESPACE, PRESENT)]


@accepted
def certificate_in_force(case: Case) -> None:
    case.signers = [case.certificate(validity="20260601115500:20260601125500")]


@accepted
def certificate_of_an_hour_within_that(case: Case) -> None:
    case.sign_by_certificate_of_an_hour(NOW - HOUR / 2, issued=NOW - HOUR / 4)


@accepted
def certificate_of_an_hour_five_hours_later(case: Case) -> None:
    case.policy = {"certificate_days": 14}
    case.sign_by_certificate_of_an_hour(NOW - 5 * HOUR, issued=NOW - 5 * HOUR + HOUR / 12)


@accepted
def certificate_of_an_hour_a_week_later(case: Case) -> None:
    case.policy = {"certificate_days": 14}
    case.record = None
    case.sign_by_certificate_of_an_hour(NOW - 7 * DAY, issued=NOW - 7 * DAY + HOUR / 12)


@accepted
def certificate_of_the_second_signer_of_a_statement(case: Case) -> None:
    """It began after somebody else had made the statement, and has ended since."""
    case.policy = {"certificate_days": 14, "threshold": 2}
    second = case.sign_by_certificate_of_an_hour(NOW - 3 * HOUR, issued=NOW - DAY)
    case.signatures = [case.keys.sign(case.statement.to_bytes(), "alice"), second]


@accepted
def active_release_whose_certificate_has_ended(case: Case) -> None:
    signature = case.sign_by_certificate_of_an_hour(NOW - DAY - HOUR / 2, issued=NOW - DAY)
    case.record = with_accepted(None, Accepted(case.statement, {"ci@lab": signature.decode()}, NOW - DAY), [])
    case.active = True


@accepted
def release_that_a_snapshot_names(case: Case) -> None:
    case.require_snapshot()


@accepted
def active_release_without_a_snapshot(case: Case) -> None:
    case.require_snapshot()
    case.snapshot, case.record, case.active = None, case.accepted(2, 8, case.record), True


@accepted
def stale_snapshot_where_none_is_required(case: Case) -> None:
    case.require_snapshot(age=31 * HOUR)
    case.policy = {}


@accepted
def signer_beside_other_revoked_keys(case: Case) -> None:
    case.revoked = case.keys.krl(case.public("bob"))


@accepted
def clock_that_is_a_little_slow(case: Case) -> None:
    case.now = case.statement.issued - DAY / 24 / 12


@pytest.fixture
def case(keys: Keys) -> Case:
    return Case(keys)


def acceptance_of(case: Case, path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Acceptance:
    place = case.trust(path)
    if not case.trusts:
        place = place._replace(directory=str(path / "nowhere"))
    monkeypatch.setattr(_trust_place, "PLACE", place)
    return Acceptance(case.offered(), case.now, case.offered_snapshot())


def refusal_of(case: Case, path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Refusal:
    with pytest.raises(DeliveryError) as caught:
        acceptance_of(case, path, monkeypatch).accept(case.manifest, case.record, case.active)
    [problem] = caught.value.problems
    assert isinstance(problem, Refusal)
    return problem


def refusal_everywhere(case: Case) -> t.Optional[str]:
    """Return the code with which the controller refuses a release, or None."""
    trust = read_trust(_trust_place.PLACE)
    assert trust is not None
    try:
        check_everywhere(case.manifest, case.offered().get(NAME), trust, case.now)
    except DeliveryError as exc:
        [problem] = exc.problems
        assert isinstance(problem, Refusal)
        return problem.code
    return None


@pytest.mark.parametrize(("row", "code"), REFUSED)
def test_accept_refuses(case: Case, row: Row, code: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row(case)
    found = refusal_of(case, tmp_path, monkeypatch)
    assert found.code == code, str(found)
    assert found.adapter == (None if code == refusal.NO_TRUST else NAME)
    assert found.subject
    assert found.problem.endswith(".")
    assert found.remedy.endswith(".")
    # The controller refuses what no node can accept, for the same reason, and nothing else.
    if code != refusal.NO_TRUST:
        assert refusal_everywhere(case) == (None if code in OF_A_NODE else code)


@pytest.mark.parametrize("row", ACCEPTED)
def test_accept_returns_statement_and_signers(
    case: Case, row: Row, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row(case)
    found = acceptance_of(case, tmp_path, monkeypatch).accept(case.manifest, case.record, case.active)
    assert found is not None
    assert (found.statement, found.at) == (case.statement, case.now)
    assert found.signatures
    assert {*found.signatures} <= {"alice", "carol", "ci@lab"}
    assert refusal_everywhere(case) is None
    needed = "snapshot_hours" in case.policy and not case.active and case.snapshot is not None
    assert found.snapshot == (case.snapshot.issued if needed and case.snapshot else None)


@pytest.mark.parametrize("trusts", [True, False])
def test_accept_of_unsigned_release_where_nothing_is_required_accepts_no_statement(
    case: Case, trusts: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.trusts, case.signed, case.policy, case.record = trusts, False, {"required": False}, None
    assert acceptance_of(case, tmp_path, monkeypatch).accept(case.manifest, case.record, active=False) is None


def test_check_everywhere_counts_keys_that_have_ended_no_more_than_a_node_may(
    case: Case, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_that_has_ended(case)
    case.policy, case.signers = {"threshold": 2}, ["alice", "bob"]
    acceptance_of(case, tmp_path, monkeypatch)
    assert refusal_everywhere(case) is None
    case.signers = ["alice", "mallory"]
    assert refusal_everywhere(case) == refusal.KEY_NOT_IN_FORCE


def test_refusals_have_a_row_for_each_code() -> None:
    elsewhere = {refusal.NEVER_ACCEPTED, refusal.ROOTS}
    assert {row.values[1] for row in REFUSED} | elsewhere == {*refusal.CODES}
    assert len(REFUSED) >= 30


# Rollbacks


def returned(case: Case, path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, manifest: Manifest) -> None:
    case.signed = False
    acceptance_of(case, path, monkeypatch).accept_return(manifest, case.record)


def test_accept_return_ignores_serial_expiry_and_signers_of_today(
    case: Case, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.record = case.accepted(2, 8, case.record)
    case.now = NOW + 999 * DAY
    case.lines, case.policy = case.lines[1:], {"threshold": 2, "snapshot_hours": 30}
    case.revoked = case.keys.krl(case.public("bob"))
    returned(case, tmp_path, monkeypatch, manifest_of(1))


def test_accept_return_to_release_that_was_never_accepted_is_refused(
    case: Case, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeliveryError, match=f"never accepted as signed on this node .accepted: {release_of(1)}") as caught:
        returned(case, tmp_path, monkeypatch, manifest_of(2))
    assert [getattr(problem, "code", None) for problem in caught.value.problems] == [refusal.NEVER_ACCEPTED]


def test_accept_return_to_unsigned_release_where_nothing_is_required_is_permitted(
    case: Case, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.policy = {"required": False}
    returned(case, tmp_path, monkeypatch, manifest_of(2))


def test_accept_return_to_release_of_key_that_is_revoked_now_is_refused(
    case: Case, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.lines = case.lines[1:]
    case.revoked = case.keys.krl(case.public("alice"))
    with pytest.raises(DeliveryError, match="was signed with a key of alice that is revoked now") as caught:
        returned(case, tmp_path, monkeypatch, manifest_of(1))
    assert [getattr(problem, "code", None) for problem in caught.value.problems] == [refusal.REVOKED]


@pytest.mark.parametrize(("threshold", "permitted"), [(1, True), (2, False)])
def test_accept_return_counts_signers_whose_keys_are_not_revoked(
    case: Case, threshold: int, permitted: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = statement_about(manifest_of(1), 7).to_bytes()
    signatures = {name: case.keys.sign(text, name).decode() for name in ("alice", "bob")}
    case.record = with_accepted(None, Accepted(statement_about(manifest_of(1), 7), signatures, NOW), [])
    case.policy, case.revoked = {"threshold": threshold}, f"{case.keys.public('bob')}\n".encode()
    if permitted:
        returned(case, tmp_path, monkeypatch, manifest_of(1))
    else:
        with pytest.raises(DeliveryError, match="was signed with a key of bob that is revoked now"):
            returned(case, tmp_path, monkeypatch, manifest_of(1))


# The record


def test_record_accepted_writes_what_is_new_only(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "accepted.json"
    statement = statement_about(manifest_of(1), 7)
    new = Accepted(statement, {"alice": "signature"}, NOW)
    record_accepted(str(path), new, [])
    written = path.stat().st_ino
    record_accepted(str(path), dataclasses.replace(new, at=NOW + DAY), [release_of(1)])
    assert path.stat().st_ino == written
    again: Statement = statement_about(manifest_of(1), 8)
    record_accepted(str(path), dataclasses.replace(new, statement=again), [release_of(1)])
    record = read_record(str(path))
    assert record is not None
    assert (record.serial, record.snapshot) == (8, None)


def test_record_accepted_keeps_the_newest_snapshot(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "accepted.json")
    new = Accepted(statement_about(manifest_of(1), 7), {"alice": "signature"}, NOW)
    for snapshot, expected in ((NOW, NOW), (NOW - DAY, NOW), (None, NOW), (NOW + DAY, NOW + DAY)):
        record_accepted(path, dataclasses.replace(new, snapshot=snapshot), [release_of(1)])
        record = read_record(path)
        assert record is not None
        assert record.snapshot == expected


def test_documentation_names_each_code() -> None:
    text = (CHECKOUT / "docs" / "signing.md").read_text(encoding="utf-8")
    assert [code for code in refusal.CODES if f"`{code}`" not in text] == []
