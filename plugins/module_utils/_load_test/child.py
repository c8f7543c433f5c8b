# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Run another Python interpreter as a child process with a minimal environment."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import os
import re
import resource
import signal
import subprocess
import tempfile
import typing as t

from .._errors import DeliveryError

if t.TYPE_CHECKING:
    from .serving_user import ServingUser

INSTALL_PEFT = "Install the PEFT environment on this host, or set python to an interpreter that has it."


# The variables that the child inherits: no secrets, no settings of Python, PEFT or the Hub.
_INHERITED = re.compile(r"PATH|LANG|LD_LIBRARY_PATH|TMPDIR|CUDA_.*|NVIDIA_.*")
_TAIL_LINES = 12
# Far more than a golden or the messages of a test have.
LARGEST_FILE = 256 << 20
_ROUNDS = 1000
_LIBC = ctypes.CDLL(None)
# Linux, prctl(2).
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38


@dataclasses.dataclass(frozen=True)
class Child:
    """How a child process ended."""

    code: int
    timed_out: bool
    timeout: int
    stdout: str
    stderr: str

    @property
    def ending(self) -> str:
        if self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}"
        return f"exit status {self.code}"

    @property
    def stderr_tail(self) -> str:
        """The end of stderr as a part of a message, empty if there is none."""
        lines = self.stderr.strip().splitlines()[-_TAIL_LINES:]
        return " The end of its stderr:\n" + "\n".join(line[:500] for line in lines) + "\n" if lines else ""


@contextlib.contextmanager
def private_directory(scratch: str | None, user: ServingUser | None) -> t.Iterator[str]:
    """Yield an empty temporary directory that the child's user can reach."""
    # Another user has no access to Ansible's own directory, which contains scratch.
    with tempfile.TemporaryDirectory(dir=None if user is not None and user.is_other else scratch) as directory:
        yield directory


def run_python(
    python: str,
    arguments: list[str],
    directory: str,
    timeout: int,
    user: ServingUser | None = None,
    largest_file: int | None = LARGEST_FILE,
) -> Child:
    """Run an interpreter in ``directory`` with a minimal environment. Raises DeliveryError.

    It gets no new privileges, from before it starts, and cannot write files longer than
    ``largest_file``, its messages included. Every process that it has started ends with it.
    """
    inherited = {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name)}
    identity: dict[str, t.Any] = {}
    if user is not None and user.is_other:
        identity = {"user": user.uid, "group": user.gid, "extra_groups": user.groups}
        user.own(directory)
    # Unnamed files, so that the child cannot replace them.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr, _ending_orphans():
        try:
            child = subprocess.Popen(
                [python, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=directory,
                # Threads that spin while they wait take the cores from the serving processes.
                env={**inherited, "HOME": directory, "OMP_WAIT_POLICY": "PASSIVE"},
                start_new_session=True,
                preexec_fn=functools.partial(_confine, largest_file),
                **identity,
            )
        except FileNotFoundError:
            raise DeliveryError.of(python, "does not exist.", INSTALL_PEFT) from None
        except OSError as exc:
            by = f" by user {user.name}" if user is not None and user.is_other else ""
            raise DeliveryError.of(python, f"cannot be executed{by}: {exc.strerror}.", INSTALL_PEFT) from exc
        timed_out = False
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            if child.returncode is None:
                child.kill()
                child.wait()
        return Child(child.returncode, timed_out, timeout, _end_of(stdout), _end_of(stderr))


def _confine(largest_file: int | None) -> None:
    """Run in the child, as its user, before the interpreter starts."""
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))


@contextlib.contextmanager
def _ending_orphans() -> t.Iterator[None]:
    """End all processes that are started in the block and do not end in it, daemons too.

    The kernel gives this process the orphans among its descendants, whatever session they are in.
    """
    before = _children()
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        # Each round makes this process the parent of what the ended ones have started.
        for _round in range(_ROUNDS):
            orphans = _children() - before
            if not orphans:
                break
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in orphans:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _children() -> set[int]:
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as stream:
            # After the name, which may contain anything: state, parent.
            if int(stream.read().rpartition(b")")[2].split()[1]) == os.getpid():
                found.add(int(pid))
    return found


def _end_of(stream: t.BinaryIO) -> str:
    """Return the last 64 KiB of a stream."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - (1 << 16)))
    return stream.read().decode(errors="replace")
