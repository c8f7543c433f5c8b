# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An environment for each engine, below .cache/engines, from its requirements with hashes.

torch is not installed: for Linux, the package index has it for CUDA only, gigabytes with its
libraries. The environments use that of ``make setup``.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import shutil
import subprocess
import sys

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache" / "engines"
REQUIREMENTS = CHECKOUT / "requirements" / "engines"
UV = pathlib.Path(sys.executable).with_name("uv")
# Engines whose source distribution has programs that the installed package lacks. It is unpacked
# to ENVIRONMENT/source.
SOURCES = {"llama_cpp": "llama-cpp-python"}


def installed(engine: str, peft_python: str) -> pathlib.Path:
    """Return the engine's interpreter. The first of concurrent callers installs it."""
    requirements = REQUIREMENTS / f"{engine}.txt"
    environment = CACHE / "environments" / engine
    stamp = environment / "installed.txt"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{engine}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_bytes() != requirements.read_bytes():
            shutil.rmtree(environment, ignore_errors=True)
            _install(engine, environment, requirements, peft_python)
            shutil.copy(requirements, stamp)
    return environment / "bin" / "python"


def _install(engine: str, environment: pathlib.Path, requirements: pathlib.Path, peft_python: str) -> None:
    # The system's certificates, as pip does.
    variables = {"UV_SYSTEM_CERTS": "1", **os.environ, "VIRTUAL_ENV": str(environment)}
    subprocess.run([UV, "venv", "--quiet", "--python", peft_python, environment], env=variables, check=True)
    if engine in SOURCES:
        _unpack_source(SOURCES[engine], environment / "source", requirements)
    subprocess.run([UV, "pip", "sync", "--quiet", "--require-hashes", requirements], env=variables, check=True)
    (packages,) = environment.glob("lib/python3*/site-packages")
    script = "import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])"
    shared = subprocess.run([peft_python, "-c", script], stdout=subprocess.PIPE, text=True, check=True).stdout
    (packages / "torch.pth").write_text(shared)


def _unpack_source(package: str, into: pathlib.Path, requirements: pathlib.Path) -> None:
    into.mkdir()
    blocks = requirements.read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    (pinned,) = [line for line in blocks if line.startswith(f"{package}==")]
    (into / "pinned.txt").write_text(pinned)
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps", f"--no-binary={package}"]
    subprocess.run([*pip, "--require-hashes", "-r", into / "pinned.txt", "--dest", into], check=True)
    (archive,) = into.glob("*.tar.gz")
    subprocess.run(["tar", "-xf", archive, "-C", into], check=True)
    archive.unlink()
