# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Converts a release for the fake llama-server: ``python convert.py RELEASE FILE``."""

import hashlib
import pathlib
import sys

release, file = map(pathlib.Path, sys.argv[1:])
parts = [(release / name).read_bytes() for name in ("adapter_config.json", "adapter_model.safetensors")]
digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts))
file.write_bytes(b"GGUF" + digest.digest())
