# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every check of the collection. ``make check`` and ``make test`` run these sessions.

nox and the tools of sessions without a virtual environment are installed in the controller's
environment.
"""

from __future__ import annotations

import filecmp
import itertools
import os
import pathlib
import re
import shutil
import sys
import tempfile

import nox

CHECKOUT = pathlib.Path(__file__).parent
BIN = pathlib.Path(sys.executable).parent
PATH = os.environ["PATH"]
# pyenv's shims run only the versions selected in its configuration; these are all installed ones.
PYENV = sorted(map(str, pathlib.Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser().glob("versions/3.*/bin")))
# The distribution's Pythons come first, as in the Makefile.
os.environ["PATH"] = os.pathsep.join([str(BIN), "/usr/bin", *PYENV, PATH])
# Use the system's certificates, as pip does.
os.environ.setdefault("UV_SYSTEM_CERTS", "1")

nox.needs_version = ">=2025.5"
nox.options.envdir = ".cache/nox"
nox.options.default_venv_backend = "none"
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False

# The oldest and the newest ansible-core (requirements/core-*.txt), each with a Python to run it and
# the oldest Python that it supports on a node.
CORES = {"oldest": ("3.11", "3.8"), "newest": ("3.13", "3.9")}
# Integration tests that run with each of them: what depends on ansible-core.
OF_CORE = [f"tests/integration/test_{name}.py" for name in ("ansible_core", "built_collection", "own_playbooks")]
# What Ansible does with the answer of a hostile host.
OF_CORE += ["tests/adversary/test_answers.py"]
# Requirements that are locked together, because one environment holds them.
LOCKS = {
    "controller": ["controller"],
    "test": ["test", "lint"],
    "lab": ["test", "lint", "lab"],
    "galaxy": ["galaxy"],
    "bench": ["bench"],
    "mutation": ["mutation"],
    "core-oldest": ["core-oldest"],
    "core-newest": ["core-newest"],
}
COMPILE = ["--generate-hashes", "--no-header", "--quiet", "--upgrade"]
# The first lines of role runtime's files.
ROLE_HEADER = "# Written by `nox -s lock` from requirements/peft.txt.\n"
ROLE_FILES = {
    "-torch": "# torch: the wheels of PyPI (CUDA builds on Linux) and the CPU builds of pytorch.org.\n",
    "": "# What any build of torch and the load test need.\n",
    "-cuda": "# What PyPI's builds of torch need as well on Linux.\n",
}
# Replaces the script that ansible-test would download to install pip: Python brings pip with it.
GET_PIP = "import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'ensurepip'], check=True)\n"
# The tests that load adapters with the interpreter under test.
LOADING = [
    "tests/contract/test_accepted_variants.py",
    "tests/unit/plugins/module_utils/_load_test/worker/test_main.py",
    "tests/unit/plugins/modules/test_adapter_load_test.py",
    "tests/integration/test_adapter_load_test.py",
]


@nox.session(tags=["fast", "gates"])
def lint(session: nox.Session) -> None:
    """Linters, the type checker and the spelling check."""
    session.run("ruff", "check", ".")
    session.run("mypy", "-p", "ansible_collections.lorafleet.delivery.plugins", env={"MYPYPATH": ".collections"})
    session.run("mypy", "demo", "noxfile.py")
    session.run("yamllint", "--strict", ".")
    # CHANGELOG.md and the roles' pages are generated.
    session.run("pymarkdown", "scan", "README.md", "CONTRIBUTING.md", "docs")
    session.run("codespell")
    session.run("zizmor", "--quiet", "--offline", "--pedantic", ".github")


@nox.session(tags=["fast"], default=False)
def quick(session: nox.Session) -> None:
    """Unit tests without the slow ones."""
    selected = ["-m", "not slow", "tests/unit", "tests/contract"]
    session.run("pytest", "-q", "-n", "2", "--dist", "loadgroup", *selected, env={"PATH": PATH})


@nox.session(tags=["gates"])
def ansible_lint(session: nox.Session) -> None:
    """Playbooks and roles: ansible-lint with its production profile."""
    session.run("ansible-lint")


@nox.session(tags=["gates"])
def sanity(session: nox.Session) -> None:
    """All sanity tests of ansible-test, without exceptions, on every Python of this machine."""
    home = CHECKOUT / ".cache" / "ansible-test"
    core = BIN.parent / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages" / "ansible_test"
    (pip,) = re.findall(r"pip='([\d.]+)'", (core / "_internal" / "python_requirements.py").read_text())
    get_pip = home / ".ansible" / "test" / "cache" / f"get_pip_{pip.replace('.', '_')}.py"
    get_pip.parent.mkdir(parents=True, exist_ok=True)
    get_pip.write_text(GET_PIP)
    # Everything stays below .cache, but the user's pip configuration still applies.
    (home / ".config").unlink(missing_ok=True)
    (home / ".config").symlink_to(pathlib.Path("~/.config").expanduser())
    # Outside the checkout: git ignores .cache, so ansible-test would find no files there.
    with tempfile.TemporaryDirectory() as directory, session.chdir(copy_of_checkout(session, directory)):
        session.run("ansible-test", "sanity", "--color", "no", env={"HOME": str(home), "LC_ALL": "C.UTF-8"})


def copy_of_checkout(session: nox.Session, directory: str) -> pathlib.Path:
    """Copy the checkout's files, without ignored ones, to the path that ansible-test requires.

    A symlink to the checkout fails some sanity tests.
    """
    copy = pathlib.Path(directory, "ansible_collections", "lorafleet", "delivery")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = session.run(*command, silent=True, external=True) or ""
    for name in filter(os.path.lexists, listed.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, copy / name, follow_symlinks=False)
    return copy


@nox.session(venv_backend="uv", tags=["gates"])
def galaxy(session: nox.Session) -> None:
    """Requirements of Galaxy and Automation Hub.

    Licences, changelog, documentation, import and dependencies of the built collection.
    """
    session.install("--require-hashes", "-r", "requirements/locked/galaxy.txt")
    session.run("reuse", "lint", "--lines")
    session.run("antsibull-changelog", "lint")
    session.run("antsibull-changelog", "lint-changelog-yaml", "changelogs/changelog.yaml")
    with tempfile.NamedTemporaryFile() as generated:
        session.run("antsibull-changelog", "generate", "--output", generated.name)
        if not filecmp.cmp(generated.name, "CHANGELOG.md", shallow=False):
            session.error("CHANGELOG.md differs from changelogs/changelog.yaml. Run antsibull-changelog generate.")
    with tempfile.TemporaryDirectory() as directory, session.chdir(directory):
        session.run("ansible-galaxy", "collection", "build", CHECKOUT, silent=True)
        (artifact,) = pathlib.Path().glob("*.tar.gz")
        session.run("ansible-galaxy", "collection", "install", "--offline", artifact, "-p", ".", silent=True)
        installed = "ansible_collections/lorafleet/delivery"
        references = ["--validate-collection-refs", "all", "--disallow-unknown-collection-refs"]
        session.run("antsibull-docs", "lint-collection-docs", "--plugin-docs", *references, installed)
        session.run("ansible-builder", "introspect", "--sanitize", ".")
        # ansible-lint has a session of its own.
        session.run("python", "-m", "galaxy_importer.main", artifact, env={"GALAXY_IMPORTER_RUN_ANSIBLE_LINT": "false"})


@nox.session(venv_backend="uv", default=False)
def docs(session: nox.Session) -> None:
    """HTML pages of all modules, plugins and roles, below .cache/docs."""
    session.install("--require-hashes", "-r", "requirements/locked/galaxy.txt")
    with tempfile.TemporaryDirectory() as sources:
        form = ["--use-current", "--squash-hierarchy", "--fail-on-error", "--dest-dir", sources]
        session.run("antsibull-docs", "collection", *form, "lorafleet.delivery", env={"ANSIBLE_COLLECTIONS_PATH": ".collections"})
        # Links to Ansible's own pages cannot be resolved without a network.
        settings = ["extensions=sphinx_antsibull_ext", "project=lorafleet.delivery", "suppress_warnings=ref.ref"]
        options = [word for setting in settings for word in ("-D", setting)]
        session.run("sphinx-build", "-q", "-W", "-C", *options, "-b", "html", sources, ".cache/docs")


@nox.session(venv_backend="uv", tags=["gates"])
@nox.parametrize("python, core", [(python, core) for core, (python, _node) in CORES.items()], ids=list(CORES))
def cores(session: nox.Session, core: str) -> None:
    """Quick unit tests and a delivery by the built collection, oldest and newest ansible-core."""
    session.install("--require-hashes", "-r", f"requirements/locked/core-{core}.txt")
    node = shutil.which(f"python{CORES[core][1]}") or ""
    session.log(f"The nodes have {node or 'the Python of the controller'}.")
    # module_utils do not import Ansible, and the tests of modules run them here. These environments
    # have no libtorrent.
    selected = ["-m", "not slow and not fuzz", "-k", "not swarm", "tests/unit", "--ignore=tests/unit/plugins/module_utils"]
    selected += OF_CORE
    session.run("pytest", "-q", "-n", "2", "--dist", "loadgroup", *selected, env={"LORAFLEET_TEST_NODE_PYTHON": node})


@nox.session(venv_backend="uv")
@nox.parametrize("oldest", [nox.param(True, id="oldest", tags=["gates"]), nox.param(False, id="newest")])
def peft(session: nox.Session, oldest: bool) -> None:
    """The load test with the oldest or newest packages of requirements/peft.txt, except torch."""
    # torch comes from `make setup`: the index has its other versions for CUDA only, gigabytes each.
    no_torch = pathlib.Path(session.create_tmp(), "no-torch.txt")
    no_torch.write_text("torch; sys_platform == 'none'\n")
    if oldest:
        session.install("--require-hashes", "--no-deps", "-r", "requirements/locked/peft-oldest.txt")
    else:
        # Not locked: the purpose is to find out what the newest ones break.
        session.install("--upgrade", "-r", "requirements/peft.txt", "--overrides", str(no_torch))
    environment = pathlib.Path(session.virtualenv.location).resolve()
    (torch,) = CHECKOUT.glob(".cache/venv/peft/lib/python3*/site-packages")
    (packages,) = environment.glob("lib/python3*/site-packages")
    (packages / "torch.pth").write_text(f"{torch}\n")
    env = {"PATH": PATH, "LORAFLEET_PEFT_PYTHON": str(environment / "bin" / "python")}
    session.run(BIN / "pytest", "-q", "-n", "2", "--dist", "loadgroup", *(session.posargs or LOADING), env=env, external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests."""
    # --no-loadscope-reorder keeps the order of tests/conftest.py. The third worker is for the lab's
    # tests, which mostly wait for their hosts.
    workers = ["-n", "3", "--dist", "loadgroup", "--no-loadscope-reorder"]
    session.run("pytest", *workers, *(session.posargs or ["tests"]), env={"PATH": PATH})


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Branch coverage of plugins by unit and integration tests, in modules too."""
    session.run("coverage", "erase")
    selected = session.posargs or ["tests/unit", "tests/contract", "tests/integration"]
    command = ["pytest", "-q", "-n", "3", "--dist", "loadgroup", *selected]
    session.run("coverage", "run", "-m", *command, env={"PATH": PATH}, success_codes=[0, 1])
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(venv_backend="uv", default=False)
def mutation(session: nox.Session) -> None:
    """Small changes to a module_util that its unit tests do not detect: -- NAME [CHANGES]."""
    session.install("--require-hashes", "-r", "requirements/locked/mutation.txt")
    with tempfile.TemporaryDirectory() as directory, session.chdir(copy_of_checkout(session, directory)):
        pathlib.Path(".cache").symlink_to(CHECKOUT / ".cache")
        pathlib.Path(".collections").symlink_to(directory)
        session.run("python", "tests/tools/mutation.py", str(BIN / "pytest"), *session.posargs, env={"PATH": PATH})


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Update all locks, those of role runtime too, to the newest versions allowed."""
    locked = pathlib.Path("requirements/locked")
    for name, files in LOCKS.items():
        (locked / f"{name}.txt").write_text(compiled(session, *files))
    role = pathlib.Path("roles/runtime/files")
    torch, cuda, rest = split_peft(compiled(session, "peft", "--python-version", "3.10", "--no-annotate"))
    builds = "".join(re.findall(r"( \\\n    --hash=\S+)", pathlib.Path("requirements/torch-cpu.txt").read_text()))
    for name, text in {"-torch": torch.rstrip() + builds + "\n", "": rest, "-cuda": cuda}.items():
        (role / f"requirements{name}.txt").write_text(ROLE_HEADER + ROLE_FILES[name] + text)
    same = ["--constraint", str(role / "requirements.txt")]
    base = compiled(session, "demo-base", "--no-deps")
    (locked / "demo.txt").write_text(compiled(session, "demo", *same) + base)
    oldest = compiled(session, "peft", "--resolution", "lowest-direct", "--no-annotate")
    (locked / "peft-oldest.txt").write_text(split_peft(oldest)[2])
    # Engines have wheels for Linux on x86-64.
    for engine in sorted(pathlib.Path("requirements/engines").glob("*.in")):
        form = ["--python-platform", "x86_64-manylinux_2_36", "--overrides", "requirements/engines/overrides.txt"]
        command = ["uv", "pip", "compile", "--python-version", "3.11", *COMPILE, *form]
        session.run(*command, str(engine), "--output-file", str(engine.with_suffix(".txt")))


def compiled(session: nox.Session, *arguments: str) -> str:
    """Requirements with versions and hashes: names of files in requirements, then options of uv."""
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments))
    options = list(arguments[len(names) :])
    python = [] if "--python-version" in options else ["--python-version", "3.11"]
    sources = [f"requirements/{name}.txt" for name in names]
    return session.run("uv", "pip", "compile", "--universal", *python, *COMPILE, *options, *sources, silent=True) or ""


def split_peft(text: str) -> tuple[str, str, str]:
    """Divide the PEFT environment into torch, what a CUDA build of torch needs, and the rest."""
    torch = cuda = rest = ""
    for entry in re.findall(r"^\S.*\n(?: .*\n)*", text, re.MULTILINE):
        name = entry.partition("==")[0]
        if name == "torch":
            torch += entry
        elif name == "triton" or name.startswith(("cuda-", "nvidia-")):
            cuda += entry
        else:
            rest += entry
    return torch, cuda, rest
