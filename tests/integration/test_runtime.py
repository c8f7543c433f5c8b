# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Role runtime with a package list of the user: what pip installs as root, and what not."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t
import zipfile

import pytest

from tests.support.playbooks import Background, Run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("runtime")]


def wheel(directory: pathlib.Path, version: str, name: str = "harmless") -> str:
    """Write a wheel of a package without code. Returns its hash."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


class Node:
    """A node that is this machine, with a wheelhouse and a list of packages."""

    def __init__(self, directory: pathlib.Path, venv: pathlib.Path) -> None:
        self.directory, self.venv = directory, venv
        self.wheelhouse, self.requirements = directory / "wheelhouse", directory / "requirements.txt"

    def run(self, *arguments: str, **environment: str) -> Run:
        agents: dict[str, t.Any] = {
            "hosts": {"jw2-1": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}},
            "vars": {
                "agent_name": "cleaner",
                "agent_adapters": [{"name": "lora", "variant": "3b", "rank": 8, "alpha": 16, "base": "org/base"}],
                "runtime_venv": str(self.venv),
                "runtime_base_python": sys.executable,
                "runtime_wheelhouse": str(self.wheelhouse),
                "runtime_requirements": [str(self.requirements)],
            },
        }
        hosts = {"all": {"children": {"training": {"hosts": {"sbs29": None}}, "agents": agents}}}
        inventory = self.directory / "inventory.json"
        inventory.write_text(json.dumps(hosts))
        return Background("runtime", "-i", str(inventory), *arguments, directory=self.directory, environment=environment).wait()

    def installed(self) -> dict[str, str]:
        """Packages of the environment with their versions, without pip's own."""
        if not self.venv.exists():
            return {}
        listed = subprocess.run([self.venv / "bin" / "pip", "list", "--format=json"], check=True, capture_output=True)
        found = {entry["name"]: entry["version"] for entry in json.loads(listed.stdout)}
        return {name: version for name, version in found.items() if name not in {"pip", "setuptools"}}


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The place of a virtual environment that the first run creates."""
    return tmp_path_factory.mktemp("runtime") / "venv"


@pytest.fixture
def node(tmp_path: pathlib.Path, venv: pathlib.Path) -> t.Iterator[Node]:
    yield Node(tmp_path, venv)
    for path in venv.glob("lib/python3*/site-packages/harmless-*"):
        shutil.rmtree(path)


def test_runtime_with_right_hash_installs_and_then_changes_nothing(node: Node) -> None:
    node.requirements.write_text(f"harmless==1.0 --hash={wheel(node.wheelhouse, '1.0')}\n")
    planned = node.run("--check")
    assert planned.rc == 0, planned.output
    assert node.installed() == {}
    umask = os.umask(0o077)
    try:
        first = node.run()
    finally:
        os.umask(umask)
    assert first.rc == 0, first.output
    assert node.installed() == {"harmless": "1.0"}
    # A load test of root runs as another user.
    closed = [path for path in node.venv.rglob("*") if path.exists() and path.stat().st_mode & 0o044 != 0o044]
    assert closed == []
    assert node.run().changed() == []


def test_runtime_with_other_wheel_of_same_version_installs_nothing(node: Node) -> None:
    expected = wheel(node.wheelhouse, "1.0")
    node.requirements.write_text(f"harmless==1.0 --hash={expected}\n")
    with zipfile.ZipFile(node.wheelhouse / "harmless-1.0-py3-none-any.whl", "a") as archive:
        archive.writestr("harmless.py", "print('other code')\n")
    run = node.run()
    assert run.rc != 0
    assert expected.removeprefix("sha256:") in run.output
    assert node.installed() == {}


@pytest.mark.parametrize("line", ["harmless==1.0", "harmless>=1.0 --hash={hash}"])
def test_runtime_with_list_without_hash_or_version_installs_nothing(node: Node, line: str) -> None:
    node.requirements.write_text(line.format(hash=wheel(node.wheelhouse, "1.0")) + "\n")
    run = node.run()
    assert run.rc != 0
    assert "--require-hashes" in run.output
    assert node.installed() == {}


def test_runtime_ignores_settings_of_pip_on_the_node(node: Node) -> None:
    node.wheelhouse.mkdir()
    elsewhere, target = node.directory / "elsewhere", node.directory / "target"
    node.requirements.write_text(f"harmless==1.0 --hash={wheel(elsewhere, '1.0')}\n")
    settings = node.directory / "pip.conf"
    settings.write_text(f"[global]\nfind-links = {elsewhere}\n")
    run = node.run(PIP_CONFIG_FILE=str(settings), PIP_FIND_LINKS=str(elsewhere), PIP_TARGET=str(target))
    assert run.rc != 0
    assert "No matching distribution found for harmless" in run.output
    assert node.installed() == {}
    assert not target.exists()
