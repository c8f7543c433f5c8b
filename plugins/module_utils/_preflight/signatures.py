# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The preflight of signed releases: whether this node would accept what is offered."""

from __future__ import annotations

import dataclasses
import typing as t

from .._adapter.manifest import Manifest
from .._errors import DeliveryError
from .._signing.acceptance import Acceptance
from .._signing.ssh_signatures import check_version, ssh_keygen
from .._trust_place import is_set_up
from .checklist import Checklist
from .host import adapter_check

SIGNATURES = "signatures"


def check_signatures(checklist: Checklist, params: t.Mapping[str, t.Any], manifests: t.Mapping[str, Manifest]) -> None:
    """Add whether these releases may be activated, where the node or the controller has signatures.

    Without ssh-keygen, only what is unsigned can be judged.
    """
    if not params["signed"] and not is_set_up():
        return
    with checklist.checking(SIGNATURES):
        acceptance = Acceptance.of_options(params)
        signed = {one["adapter"] for one in params["signed"]}
        verifies = False
        with checklist.checking(SIGNATURES):
            ssh_keygen()
            check_version()
            verifies = True
        for name, manifest in manifests.items():
            if verifies or name not in signed:
                _check_release(checklist, acceptance, manifest, params)
        if not manifests:
            checklist.unknown(SIGNATURES, "not checked without a described adapter")
        elif not checklist.failed(SIGNATURES):
            required = "required" if acceptance.requires else "not required"
            checklist.ok(SIGNATURES, f"{required} on this node; signed releases: {len(signed)} of {len(manifests)}")


def _check_release(checklist: Checklist, acceptance: Acceptance, manifest: Manifest, params: t.Mapping[str, t.Any]) -> None:
    with checklist.checking(SIGNATURES):
        try:
            acceptance.check_all([manifest], params["models_dir"], params["store"])
        except DeliveryError as exc:
            name = adapter_check(manifest.name)
            named = (dataclasses.replace(one, subject=f"{name}, {one.subject}", adapter=None) for one in exc.problems)
            raise DeliveryError(*named) from exc
