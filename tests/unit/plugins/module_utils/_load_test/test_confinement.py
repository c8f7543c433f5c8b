# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the process that loads adapters is confined: processes that try to get out, as root."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import stat
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._isolation import IPC, NETWORK, PIDS
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test import child as child_file
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test import confinement
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.child import Child, private_directory, run_python
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.loading_user import LoadingUser
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.throw_away import throw_away_user

PYTHON = "/usr/bin/python3"
NAME = "nobody"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
isolated = pytest.mark.skipif(
    confinement.available_isolation() != (NETWORK, IPC, PIDS), reason="no namespaces can be made here, or not all"
)

Users = t.Dict[str, t.Callable[[], t.Optional[LoadingUser]]]
USERS: Users = {
    "own": lambda: None,
    "named": lambda: LoadingUser.named(NAME),
    "throw-away": lambda: throw_away_user([PYTHON]),
}


@pytest.fixture(params=[True, False], ids=["isolated", "not isolated"])
def isolation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """What children are isolated from: all, or nothing, as in a container."""
    found = confinement.available_isolation()
    if not request.param:
        found = ()
        monkeypatch.setattr(child_file, "available_isolation", lambda: ())
    elif not found:
        pytest.skip("no namespaces can be made here")
    return found


def run(code: str, user: LoadingUser | None = None, timeout: int = 60) -> Child:
    with private_directory(None, user) as directory:
        (pathlib.Path(directory) / "program").write_text("the program", encoding="utf-8")
        return run_python(PYTHON, ["-I", "-c", f"import json, os\n{code}"], directory, timeout, user)


def answer(code: str, user: LoadingUser | None = None) -> t.Any:
    """What an expression is in the child."""
    done = run(code, user)
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


def namespaces() -> dict[str, str]:
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in ("net", "ipc", "pid", "mnt")}


NAMESPACES = "print(json.dumps({name: os.readlink(f'/proc/self/ns/{name}') for name in ('net', 'ipc', 'pid', 'mnt')}))"


@isolated
@pytest.mark.parametrize("user", USERS)
def test_run_python_as_root_leaves_all_namespaces(user: str) -> None:
    here, there = namespaces(), answer(NAMESPACES, USERS[user]())
    assert {name for name in here if here[name] == there[name]} == set()


def test_run_python_without_permission_stays_in_the_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_file, "available_isolation", lambda: ())
    assert answer(NAMESPACES) == namespaces()


def test_available_isolation_not_permitted_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_namespaces: int) -> None:
        raise PermissionError

    confinement.available_isolation.cache_clear()
    monkeypatch.setattr(confinement.namespaces, "unshare", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert confinement.available_isolation() == ()
    confinement.available_isolation.cache_clear()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert confinement.available_isolation() == ()
    confinement.available_isolation.cache_clear()


@isolated
def test_run_python_isolated_reaches_nothing_but_itself_by_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"""
import socket
def reaches(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
        return True
    except OSError:
        return False
own = socket.create_server(("127.0.0.1", 0))
print(json.dumps([reaches({server.getsockname()[1]}), reaches(own.getsockname()[1])]))
"""
        assert answer(connect) == [False, True]


@isolated
def test_run_python_isolated_sees_no_other_processes() -> None:
    # The first process of the namespace, and itself.
    assert answer("print(json.dumps(sorted(int(pid) for pid in os.listdir('/proc') if pid.isdigit())))") == [1, 2]


@pytest.mark.parametrize(
    ("command", "ending"),
    [("exit 7", "exit status 7"), ("kill -SEGV $$", "killed by SIGSEGV"), ("kill -KILL $$", "killed by SIGKILL")],
)
def test_run_python_ends_as_its_child_does(isolation: tuple[str, ...], command: str, ending: str) -> None:
    with private_directory(None, None) as directory:
        done = run_python("/bin/sh", ["-c", command], directory, 60)
    assert (done.ending, done.timed_out) == (ending, False)


@isolated
def test_run_python_with_a_slow_parent_ends_as_its_child_does(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child has mounted its own /proc before its parent looks into the one of the host."""
    started, here, close = tmp_path / "started", os.getpid(), confinement._close_all_but
    os.mkfifo(started)

    def wait_and_close(kept: int) -> None:
        if os.getppid() == here:
            started.read_bytes()
        close(kept)

    monkeypatch.setattr(confinement, "_close_all_but", wait_and_close)
    assert answer(f"open('{started}', 'w').close()\nprint(7)") == 7


@as_root
def test_run_python_after_the_time_limit_leaves_no_process(isolation: tuple[str, ...]) -> None:
    """Neither the child nor what it has started in a session of its own."""
    user = throw_away_user([PYTHON])
    done = run("import time\nif os.fork() == 0: os.setsid()\ntime.sleep(600)", user, timeout=1)
    assert done.timed_out
    assert [pid for pid in filter(str.isdigit, os.listdir("/proc")) if owner(pid) == user.uid] == []


def owner(pid: str) -> int | None:
    with contextlib.suppress(OSError):
        return pathlib.Path("/proc", pid).stat().st_uid
    return None


def test_run_python_limits_its_child(isolation: tuple[str, ...]) -> None:
    code = """
import resource
limits = [resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in ("CORE", "FSIZE")]
status = open("/proc/self/status").read()
print(json.dumps([limits, "NoNewPrivs:\\t1\\n" in status, open("/proc/self/oom_score_adj").read().strip()]))
"""
    assert answer(code) == [[[0, 0], [256 << 20, 256 << 20]], True, "1000"]


@as_root
def test_run_python_limits_the_processes_of_a_throw_away_user(isolation: tuple[str, ...]) -> None:
    code = "import resource\nprint(json.dumps(resource.getrlimit(resource.RLIMIT_NPROC)))"
    assert answer(code, USERS["throw-away"]()) == [4096, 4096]
    # The limit counts all processes of a user, also those that serve.
    assert answer(code, USERS["named"]()) != [4096, 4096]


@as_root
@pytest.mark.parametrize("user", ["named", "throw-away"])
def test_run_python_gives_up_all_capabilities_but_one(isolation: tuple[str, ...], user: str) -> None:
    code = """
found = dict(line.split() for line in open("/proc/self/status") if line.startswith(("CapPrm", "CapEff")))
print(json.dumps([os.getresuid(), os.getresgid(), sorted(os.getgroups()), found]))
"""
    chosen = USERS[user]()
    assert chosen is not None
    uids, gids, groups, capabilities = answer(code, chosen)
    assert (uids, gids, groups) == ([chosen.uid] * 3, [chosen.gid] * 3, sorted(set(chosen.groups)))
    # CAP_WAKE_ALARM, or CAP_NET_BIND_SERVICE.
    assert {int(value, 16) for value in capabilities.values()} in ({1 << 35}, {1 << 10})


@as_root
@pytest.mark.parametrize("user", ["named", "throw-away"])
def test_run_python_child_cannot_change_its_program(isolation: tuple[str, ...], user: str) -> None:
    code = """
program = os.path.join(os.path.dirname(os.environ["HOME"]), "program")
def fails(call, *arguments):
    try:
        call(*arguments)
        return False
    except PermissionError:
        return True
print(json.dumps([open(program).read(), fails(open, program, "w"), fails(os.unlink, program), fails(os.chmod, program, 0o777)]))
"""
    assert answer(code, USERS[user]()) == ["the program", True, True, True]


@as_root
def test_run_python_home_is_not_writable_for_other_processes_of_the_user(isolation: tuple[str, ...]) -> None:
    """What libraries keep there is code in some cases."""
    user = LoadingUser.named(NAME)
    with private_directory(None, user) as directory:
        run_python(PYTHON, ["-I", "-c", "open('kept', 'w')"], directory, 60, user)
        home = pathlib.Path(directory, "home")
        status = home.stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, user.gid, 0o750)
        # Isolated, the child had another one there.
        assert list(home.iterdir()) == []


@as_root
@pytest.mark.parametrize("user", ["own", "throw-away"])
def test_run_python_home_is_writable(isolation: tuple[str, ...], user: str) -> None:
    code = "import tempfile\nprint(json.dumps([os.getcwd() == os.environ['HOME'] == tempfile.gettempdir(), os.listdir('.')]))"
    assert answer(code, USERS[user]()) == [True, []]


@as_root
def test_private_directory_deeper_than_python_can_remove_is_removed() -> None:
    user = throw_away_user([PYTHON])
    with private_directory(None, user) as directory:
        home = pathlib.Path(directory, "home")
        # Without isolation the home directory is on a disk.
        home.mkdir()
        dig = "import os\nfor _ in range(1100):\n    os.mkdir('d')\n    os.chdir('d')"
        subprocess.run([PYTHON, "-c", dig], cwd=home, check=True)
    assert not pathlib.Path(directory).exists()


def test_run_python_that_cannot_be_confined_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: confinement.Confinement) -> None:
        raise PermissionError

    monkeypatch.setattr(confinement.Confinement, "enter", fail)
    with pytest.raises(DeliveryError, match=f"{PYTHON}: cannot be executed: it cannot be confined"):
        run("")
