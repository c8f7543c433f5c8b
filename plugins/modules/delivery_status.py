#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: delivery_status
short_description: Write down what a delivery has proved
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Writes C(STATUS.md), the manifest with a row for each adapter and its check boxes, and the same as C(status.json), on the
    controller.
  - A box is ticked only by evidence - the results that the role C(lorafleet.delivery.agent) has registered in this run, each of
    which comes from bytes that were hashed in it and a receipt that was read in it.
  - Everything is an action on the controller; no host is connected to.
extends_documentation_fragment:
  - lorafleet.delivery._attributes
attributes:
  check_mode:
    support: full
    details: Writes nothing in check mode.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: The files are written anew every time, which is never reported as a change.
options:
  directory:
    description: The directory on the controller to write to. It is created when it does not exist.
    type: path
    required: true
  training_host:
    description: The inventory name of the training server.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Write down what was proved
  lorafleet.delivery.delivery_status:
    directory: delivery-status
    training_host: sbs29
"""

RETURN = r"""
files:
  description: The files that were written.
  returned: always
  type: list
  elements: str
  sample:
    - /home/operator/fleet/delivery-status/STATUS.md
    - /home/operator/fleet/delivery-status/status.json
"""
