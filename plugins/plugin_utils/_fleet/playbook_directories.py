# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Finds variables beside a playbook that Ansible does not read for the playbooks it imports."""

from __future__ import annotations

import collections.abc as c
import os

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import Problem


def unread_variables(playbooks: c.Iterable[str], read: c.Iterable[str]) -> list[Problem]:
    """Return a problem for each ``group_vars`` and ``host_vars`` that is not read.

    They are beside ``playbooks``, those of the command line. ``read`` are the directories in which
    Ansible looks for variables: that of the running playbook and those of the inventory.
    """
    known = {os.path.realpath(directory) for directory in read}
    beside = dict.fromkeys(os.path.dirname(os.path.abspath(playbook)) for playbook in playbooks)
    return [
        Problem(
            os.path.join(directory, name),
            "is not read here: Ansible reads the variables beside a playbook only for the plays of that playbook itself.",
            "Put the directory beside the inventory.",
        )
        for directory in beside
        if os.path.realpath(directory) not in known
        for name in ("group_vars", "host_vars")
        if os.path.isdir(os.path.join(directory, name))
    ]
