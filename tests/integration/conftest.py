# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures for the tests that run whole playbooks."""

from __future__ import annotations

import pathlib
import shutil
import typing as t

import pytest

from tests.support import accounts as real_accounts
from tests.support.fleet import Fleet


@pytest.fixture
def fleet(tmp_path: pathlib.Path, tiny: pathlib.Path) -> Fleet:
    """A fleet to which nothing was delivered yet."""
    if shutil.which("rsync") is None:
        pytest.skip("no rsync on this machine")
    return Fleet(tmp_path, tiny)


@pytest.fixture
def accounts() -> t.Iterator[real_accounts.Accounts]:
    with real_accounts.made() as made:
        yield made
