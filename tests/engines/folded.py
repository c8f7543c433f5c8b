# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The folded form of adapters: kinds of their own, whose truth is PEFT's answer to the original."""

from __future__ import annotations

import dataclasses
import pathlib

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry
from ansible_collections.lorafleet.delivery.plugins.module_utils._formats.safetensors import open_header
from ansible_collections.lorafleet.delivery.plugins.module_utils._forms import FOLDED
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.fold import fold
from ansible_collections.lorafleet.delivery.plugins.module_utils._source.fold_plan import plan_fold

from tests.support.manifests import read_manifest

# The kinds that engines misread and that have a folded form.
KINDS = ["plain", "rslora", "alpha_pattern", "rank_pattern", "patterns_of_one_ratio"]
SUFFIX = "_folded"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def make(adapters: pathlib.Path) -> None:
    """Fold the adapters of ``KINDS`` as a training server does."""
    for kind in KINDS:
        target = adapters / f"{kind}{SUFFIX}"
        target.mkdir()
        source = str(adapters / kind / WEIGHTS)
        manifest = dataclasses.replace(read_manifest(adapters / kind), files=(FileEntry(WEIGHTS, 0, ""),))
        plan = plan_fold(manifest, FOLDED)
        with open_header(source) as (_prefix, header, _stream):
            done = fold(plan.request(source, str(target / WEIGHTS), header))
        # These kinds are in float32, whose products are rounded, not refused.
        assert not (done.inexact or done.too_large or done.missing), done
        (target / CONFIG).write_text(plan.config_text(), encoding="utf-8")
