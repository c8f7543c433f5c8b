# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The built collection, installed into an empty path and used without the checkout."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import pytest

from tests.support.fleet import CLEANER_3B, Fleet, contents, travelling
from tests.support.playbooks import CHECKOUT, LIMIT

BIN = pathlib.Path(sys.executable).parent
# The parts of the checkout that are shipped; users need the first four at run time.
SHIPPED = {"meta", "plugins", "roles", "playbooks", "docs", "LICENSES", "changelogs"}
SHIPPED |= {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "REUSE.toml"}
# What lies in checkouts without belonging to the collection.
PLANTED = [
    ".env",
    ".venv/lib/site.py",
    ".git-credentials",
    "id_ed25519",
    "vault_pass.txt",
    "hosts.yml",
    "changelogs/vault_pass.txt",
    "docs/.env",
    "docs/notes.txt",
    "LICENSES/id_ed25519.pub",
    "meta/vault.yml",
    "playbooks/vault_pass.txt",
    "playbooks/group_vars/all.yml",
    "plugins/modules/.env",
    "plugins/module_utils/__pycache__/paths.cpython-311.pyc",
    "plugins/modules/id_ed25519",
    "roles/agent/files/id_ed25519",
    "roles/agent/vault_pass.txt",
    "roles/runtime/files/token.txt",
]


def tracked() -> list[str]:
    """Names of the files of the checkout that git knows, without deleted ones."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True, text=True)
    return [name for name in listed.stdout.split("\0") if name and (CHECKOUT / name).exists()]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The collection, built from a checkout that has other files too."""
    checkout, directory = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("built")
    for name in tracked():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, checkout / name, follow_symlinks=False)
    for name in PLANTED:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("secret\n")
    (checkout / ".collections" / "ansible_collections" / "lorafleet").mkdir(parents=True)
    (checkout / ".collections" / "ansible_collections" / "lorafleet" / "delivery").symlink_to("../../..")
    (checkout / "docs" / "link.md").symlink_to(checkout / "id_ed25519")
    command = [BIN / "ansible-galaxy", "collection", "build", checkout, "--output-path", directory]
    subprocess.run(command, check=True, capture_output=True, timeout=LIMIT)
    (built,) = directory.glob("lorafleet-delivery-*.tar.gz")
    return built


def test_build_from_used_checkout_contains_tracked_files_only(artifact: pathlib.Path) -> None:
    with tarfile.open(artifact) as archive:
        built = {member.name for member in archive.getmembers() if not member.isdir()}
    expected = {name for name in tracked() if name.split("/")[0] in SHIPPED and not name.startswith("changelogs/fragments/")}
    assert built == expected | {"FILES.json", "MANIFEST.json"}


def test_installed_collection_deploys_audits_and_has_documentation(
    artifact: pathlib.Path, fleet: Fleet, tmp_path: pathlib.Path
) -> None:
    collections, elsewhere = tmp_path / "collections", tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHONPATH"))}
    environment.update(
        ANSIBLE_COLLECTIONS_PATH=str(collections),
        ANSIBLE_CALLBACKS_ENABLED="lorafleet.delivery.delivery_report",
        ANSIBLE_NOCOLOR="1",
        HOME=str(tmp_path),
        LORAFLEET_REPORT_DIR=str(fleet.reports),
    )

    def run(program: str, *arguments: object) -> str:
        command = [str(BIN / program), *map(str, arguments)]
        done = subprocess.run(
            command,
            env=environment,
            cwd=elsewhere,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("ansible-galaxy", "collection", "install", "--offline", artifact, "-p", collections)
    fleet.groups["agents"]["agent_level"] = "adapter"
    inventory = fleet.write_inventory()
    run("ansible-playbook", "-i", inventory, "lorafleet.delivery.describe")
    run("ansible-playbook", "-i", inventory, "lorafleet.delivery.deploy")
    assert contents(fleet.served("jw2-1", CLEANER_3B)) == travelling(fleet.source / CLEANER_3B)
    assert all(fleet.boxes().values())
    # The report page needs a template that lies beside the code.
    assert CLEANER_3B in (fleet.reports / "report.html").read_text(encoding="utf-8")
    run("ansible-playbook", "-i", inventory, "lorafleet.delivery.audit")

    modules = json.loads(run("ansible-doc", "--json", "--list", "lorafleet.delivery"))
    assert {name.rpartition(".")[2] for name in modules} == {
        path.stem for path in (CHECKOUT / "plugins" / "modules").glob("*.py")
    }
    documented = json.loads(run("ansible-doc", "--json", *modules))
    for name, entry in documented.items():
        assert entry["examples"], name
        assert entry["return"], name
