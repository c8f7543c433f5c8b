# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An adapter that is part of a container image: it is in a lower layer of an overlay."""

from __future__ import annotations

import pathlib
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

from tests.support.releases import NAME, write_version
from tests.support.transactions import Method, Node


@pytest.fixture
def container(tmp_path: pathlib.Path) -> t.Iterator[Node]:
    """A node whose image contains version 1."""
    for name in ("lower/models", "upper", "work", "merged"):
        (tmp_path / name).mkdir(parents=True)
    write_version(tmp_path / "lower" / "models" / NAME, 1)
    layers = ",".join(f"{option}dir={tmp_path / option}" for option in ("lower", "upper", "work"))
    command = ["mount", "-t", "overlay", "-o", f"{layers},redirect_dir=off", "overlay", tmp_path / "merged"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount an overlay: {done.stderr.strip()}")
    try:
        yield Node(tmp_path / "merged")
    finally:
        subprocess.run(["umount", tmp_path / "merged"], check=True)


@pytest.mark.parametrize("method", ["auto", "exchange", "symlink"])
def test_deploy_over_directory_of_image_is_refused(container: Node, method: Method) -> None:
    before = sorted((path.name, path.read_bytes()) for path in container.served.iterdir())
    with pytest.raises(DeliveryError, match=r"lower layer of an overlay.*is unchanged"):
        container.deploy(2, method)
    assert sorted((path.name, path.read_bytes()) for path in container.served.iterdir()) == before

    # The remedy of the message; mv copies where a rename is impossible.
    subprocess.run(["mv", container.served, f"{container.served}.old"], check=True)
    container.carry_out(2, method)
    assert container.junk() == [f"{NAME}.old"]
    container.carry_out(2, method)
    assert not container.changed
