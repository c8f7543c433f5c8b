# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of all tests: adapters saved by PEFT, an sshd, fake engines, file systems."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import subprocess
import typing as t

import hypothesis
import pytest

import tests.support.collection_loader  # noqa: F401  # pylint: disable=unused-import

# isort: split
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest

from tests.support import sshd as sshd_server
from tests.support import tiny_adapters
from tests.support.fake_engine.running import FakeEngine, FakeEngines
from tests.tools import fuzz

# A busy machine is slow, not wrong.
TRAVELS = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
)

hypothesis.settings.register_profile("lorafleet", deadline=None, max_examples=50)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=fuzz.EXAMPLES)
hypothesis.settings.load_profile("lorafleet")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest chain first: the lab's tests, which run one after the other."""
    items.sort(key=_start_order)


def _start_order(item: pytest.Item) -> int:
    group = item.get_closest_marker("xdist_group")
    if group is None:
        return 2
    return 0 if group.args == ("lab",) else 1


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[sshd_server.Server]:
    """A real sshd on loopback; only this run's key can log in, as this run's user."""
    lacking = sshd_server.lacking()
    if lacking:
        pytest.skip(lacking)
    directory: pathlib.Path = tmp_path_factory.mktemp("sshd")
    with sshd_server.running(directory) as server:
        yield server


@pytest.fixture
def file_system(tmp_path: pathlib.Path) -> t.Iterator[t.Callable[[str], pathlib.Path]]:
    """Mounts an empty tmpfs with the given options for the time of the test."""
    with contextlib.ExitStack() as mounted:

        def mount(options: str) -> pathlib.Path:
            path = tmp_path / "mounted"
            path.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", options, "none", path]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"cannot mount a file system: {done.stderr.strip()}")
            mounted.callback(subprocess.run, ["umount", path], check=True)
            return path

        yield mount


@pytest.fixture(scope="session")
def fake_engines() -> t.Iterator[FakeEngines]:
    """The processes of fake engines, which the tests share one after the other."""
    with contextlib.closing(FakeEngines()) as engines:
        yield engines


@pytest.fixture
def fake_engine(fake_engines: FakeEngines) -> t.Iterator[t.Callable[..., FakeEngine]]:
    """Starts fake engines, given as for ``FakeEngines.start``, for the time of the test."""
    with contextlib.ExitStack() as started:

        def start(*arguments: t.Any, **settings: t.Any) -> FakeEngine:
            engine = fake_engines.start(*arguments, **settings)
            started.callback(fake_engines.give_back, engine)
            return engine

        yield start


@pytest.fixture(scope="session")
def tiny() -> pathlib.Path:
    """The directory with base/ and the adapters: shared, kept between runs, read-only."""
    return tiny_adapters.cached()


@pytest.fixture
def adapter(tiny: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A fresh copy of the plain adapter, with only the files that are transferred."""
    copy = tmp_path / "adapter"
    copy.mkdir()
    for name in TRAVELS:
        shutil.copy(tiny / "adapter" / name, copy / name)
    return copy


@pytest.fixture(scope="session")
def rslora(tiny: pathlib.Path, declare: t.Callable[..., Declaration], tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The manifest of an rsLoRA adapter, which some engines answer wrongly for."""
    row = declare(name="rslora", peft_config={"use_rslora": True})
    return describe(str(tiny / "rslora"), row, {}, str(tmp_path_factory.mktemp("cache"))).manifest


@pytest.fixture(scope="session")
def base_config(tiny: pathlib.Path) -> dict[str, t.Any]:
    """The config.json of the tiny base."""
    config: dict[str, t.Any] = json.loads((tiny / "base" / "config.json").read_text(encoding="utf-8"))
    return config


@pytest.fixture(scope="session")
def declare(base_config: dict[str, t.Any]) -> t.Callable[..., Declaration]:
    """Declares the plain adapter on the tiny base, with changes by keyword."""

    def make(base_config: dict[str, t.Any] | None = base_config, base_path: str | None = None, **row: t.Any) -> Declaration:
        plain = {
            "name": "adapter",
            "base": tiny_adapters.BASE_NAME,
            "rank": 16,
            "alpha": 32.0,
            "target_modules": None,
            "peft_config": None,
            "extra_files": None,
            "allow_pickle": False,
        }
        return Declaration.from_row({**plain, **row}, {"config": base_config, "path": base_path})

    return make
