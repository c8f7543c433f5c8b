# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Run another Python interpreter as a child process with a minimal environment."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import tempfile
import typing as t

from .._errors import DeliveryError
from .._isolation import PIDS
from .._linux import prctl
from .confinement import Confinement, available_isolation

if t.TYPE_CHECKING:
    from .loading_user import LoadingUser

INSTALL_PEFT = "Install the PEFT environment on this host, or set python to an interpreter that has it."

# The variables that the child inherits: no secrets, no settings of Python, PEFT or the Hub.
_INHERITED = re.compile(r"PATH|LANG|LD_LIBRARY_PATH|TMPDIR|CUDA_.*|NVIDIA_.*")
_TAIL_LINES = 12
# Far more than a golden or the messages of a test have.
LARGEST_FILE = 256 << 20
_ROUNDS = 1000


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
def private_directory(scratch: str | None, user: LoadingUser | None) -> t.Iterator[str]:
    """Yield an empty temporary directory that the child's user can reach."""
    # Another user has no access to Ansible's own directory, which contains scratch.
    directory = tempfile.mkdtemp(dir=None if user is not None and user.is_other else scratch)
    try:
        yield directory
    finally:
        # Unlike shutil.rmtree, it can remove directories of any depth.
        subprocess.run(["rm", "-rf", "--", directory], stdin=subprocess.DEVNULL, check=False)


def run_python(
    python: str,
    arguments: list[str],
    directory: str,
    timeout: int,
    user: LoadingUser | None = None,
    largest_file: int | None = LARGEST_FILE,
    result: t.BinaryIO | None = None,
) -> Child:
    """Run an interpreter on programs in ``directory``, confined, with a minimal environment.

    ``user`` can read ``directory`` afterwards, but not change it. The child inherits the descriptor
    of ``result``. It cannot write files longer than ``largest_file``, its messages included. Every
    process that it has started ends with it. Raises DeliveryError.
    """
    other = user if user is not None and user.is_other else None
    isolation = available_isolation()
    # Nobody else than the child may write to its home directory: libraries keep programs there.
    home = os.path.join(directory, "home")
    os.mkdir(home, 0o700)
    writable = other is None or other.throw_away or PIDS in isolation
    if other is not None:
        other.let_read(directory)
        if other.throw_away:
            os.chown(home, other.uid, other.gid)
            os.chmod(home, 0o700)
    environment = {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name)}
    environment["HOME"] = home
    if writable:
        environment["TMPDIR"] = home
    # Threads that spin while they wait take the cores from the serving processes.
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    # Unnamed files, so that the child cannot replace them.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr, _ending_orphans():
        try:
            child = subprocess.Popen(
                [python, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=home,
                env=environment,
                start_new_session=True,
                pass_fds=() if result is None else (result.fileno(),),
                preexec_fn=Confinement(other, home, isolation, largest_file).enter,
            )
        except FileNotFoundError:
            raise DeliveryError.of(python, "does not exist.", INSTALL_PEFT) from None
        except (OSError, subprocess.SubprocessError) as exc:
            by = f" by {other}" if other is not None else ""
            # The reason of a confinement that failed does not get here.
            why = exc.strerror if isinstance(exc, OSError) else "it cannot be confined"
            remedy = other.remedy(INSTALL_PEFT) if other is not None else INSTALL_PEFT
            raise DeliveryError.of(python, f"cannot be executed{by}: {why}.", remedy) from exc
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


@contextlib.contextmanager
def _ending_orphans() -> t.Iterator[None]:
    """End all processes that are started in the block and do not end in it, daemons too.

    The kernel gives this process the orphans among its descendants, whatever session they are in.
    """
    before = _children()
    prctl.adopt_orphans(True)
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
        prctl.adopt_orphans(False)


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
