# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Accepts or refuses releases on a node: reads its trust, verifies, decides and records.

The controller uses the part of it that needs no node.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .. import _trust_place
from .._adapter.manifest import Manifest
from .._errors import DeliveryError, Problem, collected
from .._store.paths import AdapterPaths
from .._store.state import read_state
from .allowed_signers import SNAPSHOT_NAMESPACE
from .decision import Described, Offer, why_no_return, why_refused, why_refused_everywhere
from .refusal import MALFORMED, NO_SNAPSHOT, NO_TRUST, SNAPSHOT, Refusal
from .serials import Accepted, Record, read_record, with_accepted, write_record
from .snapshot import REMEDY as SNAPSHOT_REMEDY
from .snapshot import Snapshot, read_snapshot, why_not_in_snapshot
from .ssh_signatures import SshSignatures, Verified
from .statement import Statement, manifest_sha256, read_statement
from .trust import Trust, read_trust


@dataclasses.dataclass(frozen=True)
class Signed:
    """A statement and its signatures, as files of the controller have them."""

    statement: str
    signatures: tuple[str, ...]


class Acceptance:
    """Decides about the releases of one run.

    ``signed`` has what was signed, by the name of the adapter, and ``snapshot`` the snapshot of the
    fleet. Raises DeliveryError if this node's trust is damaged, or if there are signatures and
    nothing that the node trusts.
    """

    def __init__(
        self, signed: t.Mapping[str, Signed], now: datetime.datetime | None = None, snapshot: Signed | None = None
    ) -> None:
        self._trust = read_trust(_trust_place.PLACE)
        self._signed = signed
        self._signed_snapshot = snapshot
        self._snapshot: Snapshot | None = None
        self._now = now or datetime.datetime.now(tz=datetime.timezone.utc).replace(microsecond=0)
        if signed and self._trust is None:
            problem = f"has no {_trust_place.PLACE.directory}, so it trusts no signature."
            remedy = "Run playbooks/trust.yml, or deliver to it without signatures."
            raise DeliveryError(Refusal("this node", problem, remedy, None, NO_TRUST))

    @classmethod
    def of_options(cls, params: t.Mapping[str, t.Any]) -> Acceptance:
        """Return the one for the options of a module. Raises DeliveryError as above."""
        signed, snapshot = params["signed"], params["snapshot"]
        return cls(
            {one["adapter"]: Signed(one["statement"], tuple(one["signatures"])) for one in signed},
            snapshot=snapshot and Signed(snapshot["statement"], tuple(snapshot["signatures"])),
        )

    @property
    def requires(self) -> bool:
        """Whether this node serves signed releases only."""
        return self._trust is not None and self._trust.policy.required

    def accept(self, manifest: Manifest, record: Record | None, active: bool) -> Accepted | None:
        """Return what is accepted of a release that is to be served, or None if it is unsigned.

        ``active`` is whether the node serves it already. Raises DeliveryError if it is refused.
        """
        if self._trust is None:
            return None
        described = _described(manifest, active)
        signed = self._signed.get(manifest.name)
        offer = signatures = None
        if signed is not None:
            offer, signatures = _verified(signed, self._trust, manifest.name, record, self._now)
        refusal = why_refused(described, offer, self._trust.policy, record, self._now)
        if refusal is not None:
            raise DeliveryError(refusal)
        if offer is None or signatures is None:
            return None
        named = None if active else self._named_by(described, offer.statement, self._trust, record)
        return Accepted(offer.statement, signatures, self._now, named)

    def accept_return(self, manifest: Manifest, record: Record | None) -> None:
        """Raise DeliveryError if a rollback to a release is refused."""
        if self._trust is None:
            return
        accepted = None if record is None else record.of(manifest.digest)
        revoked: list[str] = []
        if accepted is not None and self._trust.revoked:
            text = accepted.statement.to_bytes()
            with SshSignatures(self._trust.signers, self._trust.revoked, self._now) as ssh:
                revoked = [name for name, one in accepted.signatures.items() if ssh.is_revoked(text, one.encode())]
        refusal = why_no_return(_described(manifest, False), self._trust.policy, record, revoked)
        if refusal is not None:
            raise DeliveryError(refusal)

    def inspect(self, paths: AdapterPaths, manifest: Manifest) -> tuple[dict[str, t.Any], str]:
        """Return by whom an active release is signed, and why a rollback to it would be refused.

        The second is empty if it would not be. Raises DeliveryError if the record is damaged.
        """
        record = read_record(paths.accepted)
        problem = ""
        try:
            self.accept_return(manifest, record)
        except DeliveryError as exc:
            problem = exc.problems[0].problem
        return signed_entry(None if record is None else record.of(manifest.digest)), problem

    def check_all(self, manifests: t.Iterable[Manifest], models_dir: str, store: str) -> None:
        """Raise DeliveryError with all problems if any of these releases is refused."""
        problems: list[Problem] = []
        for manifest in manifests:
            with collected(problems, manifest.name):
                paths = AdapterPaths(models_dir, store, manifest.name)
                self.accept(manifest, read_record(paths.accepted), read_state(paths).active == manifest.release)
        if problems:
            raise DeliveryError(*problems)

    def is_known(self, name: str, digest: str, record: Record | None) -> bool:
        """Return whether the node has accepted an active release as it is offered now.

        An unsigned one is known where signatures are not required.
        """
        if self._trust is None:
            return True
        accepted = None if record is None else record.of(digest)
        signed = self._signed.get(name)
        if accepted is None:
            return signed is None and not self._trust.policy.required
        return signed is None or accepted.statement.to_bytes().decode() == signed.statement

    def _named_by(
        self, described: Described, statement: Statement, trust: Trust, record: Record | None
    ) -> datetime.datetime | None:
        """Return the time of the snapshot that names a release, None where none is needed.

        Raises DeliveryError if it does not name it.
        """
        if trust.policy.snapshot_hours is None:
            return None
        if self._snapshot is None:
            self._snapshot = self._verified_snapshot(described, trust)
        seen = None if record is None else record.snapshot
        refusal = why_not_in_snapshot(described, statement, self._snapshot, trust.policy, seen, self._now)
        if refusal is not None:
            raise DeliveryError(refusal)
        return self._snapshot.issued

    def _verified_snapshot(self, described: Described, trust: Trust) -> Snapshot:
        signed = self._signed_snapshot
        if signed is None:
            problem = "comes without a snapshot of the fleet, which this node requires."
            raise DeliveryError(Refusal(described.subject, problem, SNAPSHOT_REMEDY, described.adapter, NO_SNAPSHOT))
        text = signed.statement.encode("utf-8", "replace")
        with SshSignatures(trust.snapshot_signers, trust.revoked, self._now, SNAPSHOT_NAMESPACE) as ssh:
            outcomes = [ssh.verify(text, one.encode("utf-8", "replace")) for one in signed.signatures]
        if not any(isinstance(one, Verified) for one in outcomes):
            why = next((f": it {one.problem}" for one in outcomes if isinstance(one, Refusal)), ".")
            problem = f"comes with a snapshot that has no good signature{why}"
            raise DeliveryError(Refusal(described.subject, problem, SNAPSHOT_REMEDY, described.adapter, SNAPSHOT))
        try:
            return read_snapshot(text)
        except DeliveryError as exc:
            first = exc.problems[0]
            raise DeliveryError(Refusal(first.subject, first.problem, first.remedy, described.adapter, SNAPSHOT)) from exc


def check_everywhere(manifest: Manifest, signed: Signed | None, trust: Trust, now: datetime.datetime) -> None:
    """Raise DeliveryError for a release that every node with this trust refuses."""
    offer = None if signed is None else _verified(signed, trust, manifest.name, None, now)[0]
    refusal = why_refused_everywhere(_described(manifest, False), offer, trust.policy)
    if refusal is not None:
        raise DeliveryError(refusal)


def _verified(
    signed: Signed, trust: Trust, adapter: str, record: Record | None, now: datetime.datetime
) -> tuple[Offer, dict[str, str]]:
    """Return what is offered, and one signature of each signer."""
    text = signed.statement.encode("utf-8", "replace")
    try:
        statement = read_statement(text)
    except DeliveryError as exc:
        first = exc.problems[0]
        raise DeliveryError(Refusal(first.subject, first.problem, first.remedy, adapter, MALFORMED)) from exc
    known = None if record is None else record.of(statement.digest)
    outcomes = []
    for one in signed.signatures:
        at = now
        if known is not None and one in known.signatures.values():
            # Whose key or certificate was in force when this node accepted it.
            at = known.at
        since = trust.policy.certified_since(statement.issued, at)
        with SshSignatures(trust.signers, trust.revoked, at, certified_since=since) as ssh:
            outcomes.append(ssh.verify(text, one.encode("utf-8", "replace")))
    good = {one.signer: text for one, text in zip(outcomes, signed.signatures) if isinstance(one, Verified)}
    return Offer(statement, tuple(outcomes)), good


def signed_entry(accepted: Accepted | None) -> dict[str, t.Any]:
    """Return by whom a release is signed, as results of modules have it. None means unsigned."""
    if accepted is None:
        return {"signers": [], "serial": None, "expires": None}
    statement = accepted.statement
    return {"signers": sorted(accepted.signatures), "serial": statement.serial, "expires": statement.expires.isoformat()}


def record_accepted(path: str, new: Accepted, stored: t.Collection[str]) -> None:
    """Record durably that a release was accepted, before it is served.

    ``path`` is that of the adapter's record, ``stored`` are the releases in the store.
    """
    record = read_record(path)
    known = None if record is None else record.of(new.statement.digest)
    changed = known is None or (known.statement, known.signatures) != (new.statement, new.signatures)
    after = with_accepted(record, new, stored)
    if changed or record is None or after.snapshot != record.snapshot:
        write_record(path, after)


def _described(manifest: Manifest, active: bool) -> Described:
    return Described(
        adapter=manifest.name,
        digest=manifest.digest,
        manifest=manifest_sha256(manifest),
        files=len(manifest.files),
        size=manifest.size,
        tensors=len(manifest.tensors),
        active=active,
    )
