# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Import collections with Ansible's loader from the moment this module is imported.

Tests of playbook code need that loader. It cannot import from a package that Python's own loader
has found, so it has to come first.
"""

from __future__ import annotations

from ansible.plugins.loader import init_plugin_loader

from tests.support.paths import CHECKOUT

init_plugin_loader([str(CHECKOUT / ".collections")])
