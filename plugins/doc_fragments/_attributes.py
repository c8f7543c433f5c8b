# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This doc fragment is PRIVATE to the collection: it may change or vanish in any release.

"""The attributes that every module of the collection documents."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Predicts changes in check mode without making them.
  diff_mode:
    description: Shows the changes in diff mode.
  idempotent:
    description: A second run directly after the first changes nothing.
  platform:
    description: The platforms that it supports.
    support: full
    platforms: linux
  action_group:
    description:
      - Use C(group/GROUP) in C(module_defaults), with any of these groups, to set defaults of the
        options that all modules of the group have. For example, C(group/lorafleet.delivery.node)
        takes C(models_dir) and C(store).
    support: full
"""
