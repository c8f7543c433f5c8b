# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Versions of a node's trust: real roots sign them, and ssh-keygen verifies that."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing import refusal
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import NAMESPACE, ROOT_NAMESPACE
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.roots import check_roots, signed_text
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import trust_of

from tests.support.signing import FLEET, NOW, Keys, root_lines, run, signer_line

Files = t.Dict[str, bytes]
ROOTS = ("rita", "rosa", "ruth")


class Change:
    """Version 2, which brings another signer to a node with version 1. Two of three roots sign."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.before: t.Optional[Files] = self.version(1, "alice")
        self.after = self.version(2, "bob")
        self.signers = ["rita", "rosa"]
        # What the roots have signed, if it is not the new version.
        self.signed: t.Optional[bytes] = None
        self.namespace = ROOT_NAMESPACE

    def version(
        self, number: int, signer: str, roots: t.Sequence[str] = ROOTS, threshold: int = 2, revoked: bytes = b""
    ) -> Files:
        policy: dict[str, t.Any] = {"fleet": FLEET, "required": True, "threshold": 1, "version": number}
        files = {"allowed_signers": signer_line(signer, self.keys.public(signer)).encode()}
        if roots:
            policy["root_threshold"] = threshold
            files["roots"] = root_lines(self.keys, *roots).encode()
        if revoked:
            files["revoked_keys"] = revoked
        return {**files, "policy.json": json.dumps(policy).encode()}

    def check(self) -> None:
        text = signed_text(self.after) if self.signed is None else self.signed
        signatures = {f"{n}-{name}.sig": self.keys.sign(text, name, self.namespace) for n, name in enumerate(self.signers)}
        before = None if self.before is None else trust_of(self.before)
        check_roots(before, trust_of(self.after), self.after, signatures, NOW)


@pytest.fixture
def change(keys: Keys) -> Change:
    return Change(keys)


def test_signed_text_is_what_sha256sum_prints(change: Change, tmp_path: pathlib.Path) -> None:
    files = change.version(1, "alice", revoked=b"# none\n")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    names = ("allowed_signers", "policy.json", "revoked_keys", "roots")
    assert signed_text(files) == run("sh", "-c", 'cd "$0" && sha256sum "$@"', tmp_path, *names)


Row = t.Callable[[Change], None]
TAKEN: list[Row] = []
REFUSED: list[t.Any] = []


def taken(row: Row) -> Row:
    TAKEN.append(row)
    return row


def refused(words: str) -> t.Callable[[Row], Row]:
    def add(row: Row) -> Row:
        REFUSED.append(pytest.param(row, words, id=row.__name__))
        return row

    return add


@taken
def two_of_three_roots(_change: Change) -> None:
    pass


@taken
def signature_of_a_stranger_beside_them(change: Change) -> None:
    change.signers.append("mallory")


@taken
def first_version_that_its_own_roots_have_signed(change: Change) -> None:
    change.before = None


@taken
def first_version_with_roots(change: Change) -> None:
    change.before = change.version(1, "alice", ())


@taken
def version_without_roots_that_the_old_ones_have_signed(change: Change) -> None:
    change.after = change.version(2, "bob", ())


@taken
def versions_that_never_had_roots(change: Change) -> None:
    change.before, change.after, change.signers = change.version(1, "alice", ()), change.version(2, "bob", ()), []


@taken
def lost_root_that_the_others_have_replaced(change: Change) -> None:
    revoked = f"{change.keys.public('ruth')}\n".encode()
    change.after = change.version(2, "alice", ("rita", "rosa", "rebecca"), revoked=revoked)


@taken
def new_roots_that_both_have_signed(change: Change) -> None:
    change.after = change.version(2, "alice", ("rebecca", "rachel"))
    change.signers = ["rita", "ruth", "rebecca", "rachel"]


@taken
def version_after_a_missed_one(change: Change) -> None:
    change.after = change.version(5, "bob")


@refused("is signed by 1 of the roots of version 1, which this node has (rita, rosa, ruth); 2 have to sign it.")
def one_root_only(change: Change) -> None:
    change.signers = ["rita"]


@refused("is signed by 1 of the roots of version 1")
def one_root_twice(change: Change) -> None:
    change.signers = ["rita", "rita"]


@refused("is signed by 0 of the roots of version 1")
def nobody(change: Change) -> None:
    change.signers = []


@refused("is signed by 1 of the roots of version 1, which this node has (rita, rosa, ruth); 2 have to sign it. 0-alice.sig is by")
def root_and_signer_of_releases(change: Change) -> None:
    change.signers = ["alice", "rita"]


@refused("was made for the namespace 'release@lorafleet.delivery'")
def signatures_for_releases(change: Change) -> None:
    change.namespace = NAMESPACE


@refused("0-rita.sig is not a signature of this statement")
def signatures_of_another_version(change: Change) -> None:
    change.signed = signed_text(change.version(3, "bob"))


@refused("0-rita.sig is not a signature of this statement")
def exchanged_signers(change: Change) -> None:
    change.signed = signed_text({**change.after, "allowed_signers": change.version(2, "alice")["allowed_signers"]})


@refused("0-rita.sig is not a signature of this statement")
def exchanged_policy(change: Change) -> None:
    policy = change.after["policy.json"]
    change.signed = signed_text({**change.after, "policy.json": policy.replace(b"true", b"false")})


@refused("0-rita.sig is not a signature of this statement")
def removed_list_of_revoked_keys(change: Change) -> None:
    change.signed = signed_text({**change.after, "revoked_keys": b"# none\n"})


@refused("is signed by 0 of the roots of version 1")
def new_roots_that_only_they_have_signed(change: Change) -> None:
    change.after = change.version(2, "alice", ("rebecca", "rachel"))
    change.signers = ["rebecca", "rachel"]


@refused("is signed by 0 of its own roots (rachel, rebecca); 2 have to sign it.")
def new_roots_that_only_the_old_ones_have_signed(change: Change) -> None:
    change.after = change.version(2, "alice", ("rebecca", "rachel"))


@refused("is signed by 2 of its own roots (rita, rosa, ruth); 3 have to sign it.")
def higher_threshold_that_is_not_reached(change: Change) -> None:
    change.after = change.version(2, "alice", threshold=3)


@refused("is signed by 1 of the roots of version 1")
def lower_threshold_that_one_root_has_signed(change: Change) -> None:
    change.after, change.signers = change.version(2, "alice", threshold=1), ["ruth"]


@refused("is signed by 1 of the roots of version 1")
def roots_removed_by_one_of_them(change: Change) -> None:
    change.after, change.signers = change.version(2, "alice", ()), ["ruth"]


@refused("which is revoked on this node")
def root_that_the_old_version_has_revoked(change: Change) -> None:
    change.before = change.version(1, "alice", revoked=f"{change.keys.public('rosa')}\n".encode())


@refused("is signed by 1 of its own roots")
def root_that_the_new_version_revokes(change: Change) -> None:
    change.after = change.version(2, "alice", revoked=f"{change.keys.public('rosa')}\n".encode())


@refused("is signed by 0 of its own roots")
def first_version_that_nobody_has_signed(change: Change) -> None:
    change.before, change.signers = None, []


@refused("has 17 signatures; at most 16 are read")
def too_many_signatures(change: Change) -> None:
    change.signers = ["rita", "rosa"] + ["rita"] * 15


@pytest.mark.parametrize("row", TAKEN)
def test_check_roots_takes(change: Change, row: Row) -> None:
    row(change)
    change.check()


@pytest.mark.parametrize(("row", "words"), REFUSED)
def test_check_roots_refuses(change: Change, row: Row, words: str) -> None:
    row(change)
    with pytest.raises(DeliveryError) as caught:
        change.check()
    [problem] = caught.value.problems
    assert words in problem.problem
    assert f"version {json.loads(change.after['policy.json'])['version']} of the trust" == problem.subject
    assert getattr(problem, "code", None) == refusal.ROOTS
    assert problem.remedy
