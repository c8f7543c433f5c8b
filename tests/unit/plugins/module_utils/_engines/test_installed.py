# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The version of a package, compared with what the interpreter itself finds where it can be run."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.installed import installed_version

from tests.support.environments import install
from tests.support.opened_files import opened_by

PACKAGE = "made-for-this-test"
# What importlib says, without the variables that would add directories.
ASK = f"import importlib.metadata as m\ntry: print(m.version({PACKAGE!r}))\nexcept m.PackageNotFoundError: print(None)"


def found(python: pathlib.Path) -> str | None:
    """The version of the package, which must be what the interpreter itself says."""
    done = subprocess.run([python, "-Ic", ASK], check=True, capture_output=True, text=True)
    version = installed_version(str(python), [PACKAGE])
    assert str(version) == done.stdout.strip()
    return version


@pytest.fixture
def venv(tmp_path: pathlib.Path) -> t.Callable[..., pathlib.Path]:
    """Return a function that makes a virtual environment with the package, and names its Python."""

    def make(*options: str, version: str = "1.2.3") -> pathlib.Path:
        top = tmp_path / f"venv-{version}"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", *options, top], check=True)
        [site] = top.glob("lib/python3*/site-packages")
        install(site, PACKAGE, version)
        return top / "bin" / "python"

    return make


@pytest.mark.parametrize("options", [(), ("--copies",), ("--system-site-packages",)])
def test_installed_version_in_venv_is_that_of_the_venv(venv: t.Callable[..., pathlib.Path], options: tuple[str, ...]) -> None:
    assert found(venv(*options)) == "1.2.3"


def test_installed_version_through_link_to_venv_is_that_of_the_venv(
    venv: t.Callable[..., pathlib.Path], tmp_path: pathlib.Path
) -> None:
    python = venv()
    (tmp_path / "current").symlink_to(python.parent.parent)
    assert found(tmp_path / "current" / "bin" / "python") == "1.2.3"


def test_installed_version_through_link_to_interpreter_of_venv_is_not_that_of_the_venv(
    venv: t.Callable[..., pathlib.Path], tmp_path: pathlib.Path
) -> None:
    """Such a link starts the interpreter that the venv was made with."""
    python = venv()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "engine-python").symlink_to(python)
    assert found(tmp_path / "bin" / "engine-python") is None


def test_installed_version_of_venv_without_it_is_none(venv: t.Callable[..., pathlib.Path]) -> None:
    python = venv()
    assert installed_version(str(python), ["another-package"]) is None
    assert installed_version(str(python.with_name("no-such-python")), ["another-package"]) is None
    assert installed_version("/nowhere/bin/python", [PACKAGE]) is None


def test_installed_version_is_that_of_the_first_package_that_is_installed(venv: t.Callable[..., pathlib.Path]) -> None:
    python = venv(version="0.32.0+cpu")
    assert installed_version(str(python), ["another-package", "Made_For.this-test"]) == "0.32.0+cpu"


def test_installed_version_opens_no_file_of_a_package(venv: t.Callable[..., pathlib.Path]) -> None:
    python = venv()
    opened = opened_by(lambda: installed_version(str(python), [PACKAGE]))
    assert opened == [str(python.parent.parent / "pyvenv.cfg")]


def prefix(top: pathlib.Path, *sites: str) -> str:
    """An installation of Python 3.11 below a directory; each site has another version."""
    (top / "bin").mkdir(parents=True)
    (top / "bin" / "python3.11").touch()
    (top / "bin" / "python3").symlink_to("python3.11")
    for number, site in enumerate(sites, 1):
        install(top / site, PACKAGE, f"{number}.0")
    return str(top / "bin" / "python3")


@pytest.mark.parametrize(
    "sites",
    [
        ("lib/python3.11/site-packages",),
        ("lib64/python3.11/site-packages",),
        # Debian: packages of pip hide those of the distribution.
        ("local/lib/python3.11/dist-packages", "lib/python3/dist-packages"),
        # Another Python of the same prefix.
        ("lib/python3.11/site-packages", "lib/python3.10/site-packages"),
    ],
)
def test_installed_version_of_system_interpreter_is_from_its_own_directories(
    tmp_path: pathlib.Path, sites: tuple[str, ...]
) -> None:
    assert installed_version(prefix(tmp_path / "usr", *sites), [PACKAGE]) == "1.0"


@pytest.mark.parametrize("copied", [True, False])
def test_installed_version_in_venv_that_includes_the_system_is_found_there(tmp_path: pathlib.Path, copied: bool) -> None:
    python = prefix(tmp_path / "usr", "lib/python3.11/site-packages")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    executable = tmp_path / "venv" / "bin" / "python"
    if copied:
        shutil.copy(python, executable)
    else:
        executable.symlink_to(python)
    settings = tmp_path / "venv" / "pyvenv.cfg"
    for included, version in (("true", "1.0"), ("false", None)):
        settings.write_text(f"home = {tmp_path}/usr/bin\ninclude-system-site-packages = {included}\n", encoding="utf-8")
        assert installed_version(str(executable), [PACKAGE]) == version


def test_installed_version_after_interrupted_installations_is_none(tmp_path: pathlib.Path) -> None:
    site = "lib/python3.11/site-packages"
    python = prefix(tmp_path / "usr", site)
    install(tmp_path / "usr" / site, PACKAGE, "2.0")
    # Nobody can say which of the two is there.
    assert installed_version(python, [PACKAGE]) is None
    [old] = (tmp_path / "usr" / site).glob("*-1.0.dist-info")
    os.unlink(old / "METADATA")
    assert installed_version(python, [PACKAGE]) == "2.0"


def make_giant(path: pathlib.Path) -> None:
    path.write_text("include-system-site-packages = false\n")
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize(("make", "version"), [(os.mkfifo, None), (make_giant, "1.2.3")])
def test_installed_version_settings_of_another_user_do_not_hold_up_root(
    venv: t.Callable[..., pathlib.Path], make: t.Callable[[pathlib.Path], None], version: str | None
) -> None:
    python = venv()
    settings = python.parent.parent / "pyvenv.cfg"
    settings.unlink()
    make(settings)
    assert installed_version(str(python), [PACKAGE]) == version
