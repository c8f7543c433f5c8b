# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Runs another Python interpreter as a child that gets nothing of ours but what it needs."""

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

if t.TYPE_CHECKING:
    from .serving_user import ServingUser

INSTALL_PEFT = "Install the PEFT environment on this host, or set agent_python to an interpreter that has it."

# What of our environment the child gets; no secrets, no settings of Python, PEFT or the Hub.
_KEPT = re.compile(r"PATH|LANG|LD_LIBRARY_PATH|TMPDIR|CUDA_.*|NVIDIA_.*")
_LAST_LINES = 12


@dataclasses.dataclass(frozen=True)
class Child:
    """How a child process ended."""

    code: int
    timed_out: bool
    timeout: int
    output: str
    errors: str

    @property
    def ending(self) -> str:
        if self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}"
        return f"exit status {self.code}"

    @property
    def last_words(self) -> str:
        lines = self.errors.strip().splitlines()[-_LAST_LINES:]
        return " Its last words:\n" + "\n".join(line[:500] for line in lines) + "\n" if lines else ""


@contextlib.contextmanager
def private_directory(scratch: t.Optional[str], user: t.Optional[ServingUser]) -> t.Iterator[str]:
    """An empty directory, which the user of the child can get to."""
    # Another user cannot pass through Ansible's own directory, in which scratch lies.
    with tempfile.TemporaryDirectory(dir=None if user is not None and user.is_other else scratch) as directory:
        yield directory


def run_python(python: str, arguments: list[str], directory: str, timeout: int, user: t.Optional[ServingUser] = None) -> Child:
    """Run an interpreter in C(directory) with nothing of ours but what it needs. Raises DeliveryError."""
    kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    identity: dict[str, t.Any] = {}
    if user is not None and user.is_other:
        identity = {"user": user.uid, "group": user.gid, "extra_groups": user.groups}
        user.own(directory)
    # Files without a name, in which the child can put nothing else in place of what it says.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            child = subprocess.Popen(
                [python, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=directory,
                # Threads that wait by spinning take the cores from what the node serves.
                env={**kept, "HOME": directory, "OMP_WAIT_POLICY": "PASSIVE"},
                start_new_session=True,
                **identity,
            )
        except FileNotFoundError:
            raise DeliveryError.of(python, "does not exist.", INSTALL_PEFT) from None
        except OSError as exc:
            whom = f" by user {user.name}" if user is not None and user.is_other else ""
            raise DeliveryError.of(python, f"cannot be executed{whom}: {exc.strerror}.", INSTALL_PEFT) from exc
        timed_out = False
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            # The group has its leader's number only as long as that is not waited for.
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        return Child(child.returncode, timed_out, timeout, _end_of(stdout), _end_of(stderr))


def _end_of(stream: t.BinaryIO) -> str:
    """The end of what a child wrote."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - (1 << 16)))
    return stream.read().decode(errors="replace")
