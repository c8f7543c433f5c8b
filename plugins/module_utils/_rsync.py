# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""A host's rsync, and the options of a transfer."""

from __future__ import annotations

import re
import shutil
import subprocess
import typing as t

from ._errors import DeliveryError
from ._ways import check_ways


class Rsync(t.NamedTuple):
    """Its version, and whether it can compress with zstd (3.2 or newer, if built with zstd)."""

    version: str
    zstd: bool

    @classmethod
    def parse(cls, output: str) -> Rsync | None:
        """Parse the output of ``rsync --version``. None if it is something else."""
        version = re.search(r"^rsync +version v?([\w.+~-]{1,40})", output, re.MULTILINE)
        zstd = re.search(r"^Compress list:\n.*\bzstd\b", output, re.MULTILINE)
        return cls(version[1], bool(zstd)) if version else None


def installed_rsync() -> Rsync:
    """Return this host's rsync. Raises DeliveryError if there is none."""
    program = shutil.which("rsync")
    if program is None:
        raise DeliveryError.of("rsync", "is not installed on this host.", "Install the package rsync on it.")
    done = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        why = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise DeliveryError.of(program, f"cannot be run: {why}.", "Install the package rsync on this host again.")
    return Rsync.parse(done.stdout) or Rsync("unknown", zstd=False)


def no_zstd(host: str, version: str) -> DeliveryError:
    """Return the error for an rsync without zstd where a transfer should be compressed."""
    return DeliveryError.of(
        host,
        f"has an rsync ({version}) that cannot compress with zstd.",
        "Set transfer_compress to false (zlib would be slower than the link), or install rsync 3.2 or newer"
        " with zstd on that host.",
    )


def check_transfer_options(params: dict[str, t.Any]) -> None:
    """Raise DeliveryError for values that stop every transfer or that rsync does not accept."""
    check_ways(params)
    for name in ("transfer_timeout", "transfer_tries", "transfer_streams"):
        if params[name] < 1:
            raise DeliveryError.of(name, f"is {params[name]}.", "Set it to 1 or more.")
    if params["transfer_minimum_rate"] < 0:
        remedy = "Set it to a number of bytes per second, or to 0 for any rate."
        raise DeliveryError.of("transfer_minimum_rate", f"is {params['transfer_minimum_rate']}.", remedy)
    if not re.fullmatch(r"(\d+(\.\d+)?[KMG]?)?", params["transfer_bwlimit"], re.IGNORECASE | re.ASCII):
        raise DeliveryError.of(
            "transfer_bwlimit",
            f"is {params['transfer_bwlimit']!r}, which is not a valid value of rsync's option bwlimit.",
            "Set it to a number of KiB per second, or to one with K, M or G for KiB, MiB or GiB per second.",
        )
