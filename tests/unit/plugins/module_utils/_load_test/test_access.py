# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which files the user that loads adapters cannot read."""

from __future__ import annotations

import os
import pathlib
import tempfile
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.access import check_files_readable
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.loading_user import LoadingUser
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.throw_away import throw_away_user

PYTHON = "/usr/bin/python3"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def weights() -> t.Iterator[pathlib.Path]:
    """A file that every user can read, two directories below one that every user can enter."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "models", "base", "weights")
        path.parent.mkdir(parents=True)
        path.write_text("weights", encoding="utf-8")
        for one in (path, *path.parents[:3]):
            one.chmod(0o755)
        yield path


def test_check_files_readable_by_every_user_passes(weights: pathlib.Path) -> None:
    check_files_readable(PYTHON, throw_away_user([]), [str(weights)])
    check_files_readable(PYTHON, throw_away_user([]), [])


def test_check_files_readable_below_a_closed_directory_names_it(weights: pathlib.Path) -> None:
    weights.parent.parent.chmod(0o700)
    user = throw_away_user([])
    closed = f"{weights}: cannot be read by the throw-away user {user.uid}: {weights.parent.parent} is closed to it. "
    with pytest.raises(DeliveryError) as caught:
        check_files_readable(PYTHON, user, [str(weights)])
    remedy = "Let every user read it, or set user (variable agent_load_test_user) to one that can read it, or to root"
    assert str(caught.value).startswith(closed + remedy)


def test_check_files_readable_by_a_group_of_the_user_passes(weights: pathlib.Path) -> None:
    os.chown(weights.parent, 0, 2001)
    weights.parent.chmod(0o750)
    check_files_readable(PYTHON, throw_away_user([str(weights.parent)]), [str(weights)])
    with pytest.raises(DeliveryError, match=f"{weights.parent} is closed to it"):
        check_files_readable(PYTHON, throw_away_user([]), [str(weights)])


def test_check_files_readable_by_a_chosen_user_has_another_remedy(weights: pathlib.Path) -> None:
    weights.chmod(0o600)
    with pytest.raises(DeliveryError, match=f"{weights}: cannot be read by user nobody. Give this user read access"):
        check_files_readable(PYTHON, LoadingUser.named("nobody"), [str(weights)])
