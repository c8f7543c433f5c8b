#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_trust
short_description: Bring the keys of signers and the policy for signatures to a node
version_added: 0.3.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Writes C(/etc/lorafleet/trust) on the node, from a directory on the controller. No other module
    writes there. From then on, the node accepts releases as C(policy.json) in it says.
  - Fails for files that a node would not read, such as a line of C(allowed_signers) without
    C(namespaces="release@lorafleet.delivery").
  - A change needs a higher C(version) in C(policy.json). Fails for a lower one, and for other content
    of the same version.
  - A directory with C(roots) names the people who sign each version of it. C(root_threshold) in
    C(policy.json) is the number of them that have to. A node whose trust has roots takes a change
    only if enough of them have signed it, and enough of those of the new version. What a node gets
    first has to be signed by its own roots only. C(docs/signing.md) shows how they sign.
  - Needs root.
extends_documentation_fragment:
  - lorafleet.delivery._attributes
attributes:
  action_group:
    support: none
    membership: []
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows the policy, the signers and the roots.
  idempotent:
    support: full
options:
  source:
    description:
      - The directory on the controller with C(policy.json), C(allowed_signers) and, if keys are
        revoked, C(revoked_keys).
      - With C(snapshot_hours) in C(policy.json), it has C(snapshot_signers), too.
      - With C(roots), their signatures are in it as well, in files whose names end in C(.sig).
    type: str
    required: true
  policy:
    description:
      - The content of C(policy.json).
      - Set by the action plugin of the same name, which reads the files. Do not set it.
    type: str
  allowed_signers:
    description:
      - The content of C(allowed_signers).
      - Set by the action plugin. Do not set it.
    type: str
  revoked_keys:
    description:
      - The content of C(revoked_keys) in base64.
      - Set by the action plugin. Do not set it.
    type: str
  roots:
    description:
      - The content of C(roots).
      - Set by the action plugin. Do not set it.
    type: str
  snapshot_signers:
    description:
      - The content of C(snapshot_signers).
      - Set by the action plugin. Do not set it.
    type: str
  signatures:
    description:
      - The signatures of roots, by the name of their file.
      - Set by the action plugin. Do not set it.
    type: dict
seealso:
  - module: lorafleet.delivery.adapter_sign
  - module: lorafleet.delivery.adapter_release
"""

EXAMPLES = r"""
- name: Bring trust to this node
  lorafleet.delivery.node_trust:
    source: "{{ inventory_dir }}/trust"
  become: true
"""

RETURN = r"""
fleet:
  description: The fleet that the node belongs to.
  returned: success
  type: str
  sample: lab
required:
  description: Whether the node refuses unsigned releases.
  returned: success
  type: bool
  sample: true
threshold:
  description: The number of different signers that a release needs.
  returned: success
  type: int
  sample: 1
version:
  description: The version of the policy.
  returned: success
  type: int
  sample: 3
signers:
  description: The names of the signers.
  returned: success
  type: list
  elements: str
  sample: [alice, bob]
roots:
  description: The names of the roots. Without any, no signature is needed for a change.
  returned: success
  type: list
  elements: str
  sample: [carol, dave, erin]
root_threshold:
  description: The number of different roots that a change needs, V(none) without roots.
  returned: success
  type: int
  sample: 2
snapshot_hours:
  description: How old a snapshot of the fleet may be, V(none) if none is needed.
  returned: success
  type: int
  sample: 30
problems:
  description: What is wrong, one entry for each problem.
  returned: failure
  type: list
  elements: dict
  contains:
    adapter:
      description: V(none).
      type: str
    subject:
      description: The file or directory.
      type: str
      sample: version of the policy
    problem:
      description: What is wrong with it.
      type: str
      sample: is 2; this node has 3.
    remedy:
      description: What to do.
      type: str
      sample: Find out which is right. To bring this one to the nodes, set version to 4.
"""

import base64
import datetime

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.installation import (
    Installation,
    install,
    plan_installation,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import (
    POLICY_FILE,
    REVOKED_FILE,
    ROOTS_FILE,
    SIGNERS_FILE,
    SNAPSHOT_SIGNERS_FILE,
)


def _plan(module: DeliveryModule) -> Installation:
    params = module.params
    if params["policy"] is None or params["allowed_signers"] is None:
        raise DeliveryError.of("node_trust", "was run without its action plugin.", "Call it as lorafleet.delivery.node_trust.")
    files = {POLICY_FILE: params["policy"].encode(), SIGNERS_FILE: params["allowed_signers"].encode()}
    if params["revoked_keys"]:
        files[REVOKED_FILE] = base64.b64decode(params["revoked_keys"])
    for name in (ROOTS_FILE, SNAPSHOT_SIGNERS_FILE):
        if params[name] is not None:
            files[name] = params[name].encode()
    signatures = {name: str(text).encode() for name, text in (params["signatures"] or {}).items()}
    return plan_installation(files, signatures, datetime.datetime.now(tz=datetime.timezone.utc))


def _text(files: dict[str, bytes]) -> str:
    names = (POLICY_FILE, SIGNERS_FILE, ROOTS_FILE, SNAPSHOT_SIGNERS_FILE)
    return "".join(files.get(name, b"").decode("utf-8", "replace") for name in names)


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            "source": {"type": "str", "required": True},
            "policy": {"type": "str"},
            "allowed_signers": {"type": "str"},
            "revoked_keys": {"type": "str", "no_log": False},
            "roots": {"type": "str"},
            "snapshot_signers": {"type": "str"},
            "signatures": {"type": "dict"},
        },
    )
    with module.failing_on_error():
        planned = _plan(module)
        if planned.changed and not module.check_mode:
            install(planned)
    module.exit_json(
        changed=planned.changed,
        fleet=planned.policy.fleet,
        required=planned.policy.required,
        threshold=planned.policy.threshold,
        version=planned.policy.version,
        signers=sorted({signer.name for signer in planned.trust.signers}),
        roots=sorted({root.name for root in planned.trust.roots}),
        root_threshold=planned.policy.root_threshold,
        snapshot_hours=planned.policy.snapshot_hours,
        diff={
            "before_header": "trust",
            "after_header": "trust",
            "before": _text(planned.before),
            "after": _text(planned.after),
        },
    )


if __name__ == "__main__":
    main()
