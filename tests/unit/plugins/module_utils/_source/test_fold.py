# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Folding the tests' adapters on a training server, with the PEFT interpreter's numpy."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import Comparison
from ansible_collections.lorafleet.delivery.plugins.module_utils._source.fold import FoldedAdapter, Folding
from safetensors.numpy import load_file, save

from tests.support import tiny_adapters
from tests.support.damage import change_tensors, scale
from tests.support.describing import wait_until_cacheable
from tests.support.paths import CHECKOUT

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
Declare = t.Callable[..., Declaration]


class Server:
    """A training server with one adapter, and its cache."""

    def __init__(self, directory: pathlib.Path, adapter: pathlib.Path, declare: Declare) -> None:
        self.directory, self.adapter, self._declare = directory, adapter, declare
        self.cache = directory / "cache"
        self.scratch = directory / "scratch"
        self.scratch.mkdir()

    def offer(self, tiny: pathlib.Path, kind: str) -> None:
        shutil.rmtree(self.adapter)
        shutil.copytree(tiny / kind, self.adapter)

    def reconfigure(self, **changes: t.Any) -> None:
        path = self.adapter / CONFIG
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")

    def fold(
        self,
        python: str | None = tiny_adapters.PEFT_PYTHON,
        write: bool = True,
        form: str = "folded",
        link_dirs: t.Sequence[str] = (),
        **row: t.Any,
    ) -> FoldedAdapter:
        declared = self._declare(form=form, **row)
        described = describe(str(self.adapter), declared, {}, str(self.cache / "original.json"), write, link_dirs)
        return self.folding(python, write).fold(described.manifest, described, str(self.adapter), declared)

    def folding(self, python: str | None = tiny_adapters.PEFT_PYTHON, write: bool = True) -> Folding:
        return Folding(python, str(self.cache), str(self.scratch), write)

    def refusal(self, **row: t.Any) -> str:
        with pytest.raises(DeliveryError) as caught:
            self.fold(**row)
        assert all(problem.remedy for problem in caught.value.problems)
        assert self.folded() == {}
        return str(caught.value)

    def folded(self) -> dict[str, bytes]:
        """The files of folded adapters, and their records."""
        found = (path for path in (self.cache / "folded").rglob("*") if path.is_file() and path.name != "lock")
        return {str(path.relative_to(self.cache / "folded")): path.read_bytes() for path in found}


@pytest.fixture
def server(tmp_path: pathlib.Path, adapter: pathlib.Path, declare: Declare) -> t.Iterator[Server]:
    made = Server(tmp_path, adapter, declare)
    yield made
    assert list(made.scratch.iterdir()) == []


def weights_of(folded: FoldedAdapter) -> dict[str, t.Any]:
    return load_file(os.path.join(folded.place.path, WEIGHTS))


def test_fold_plain_adapter_multiplies_b_and_keeps_all_else(server: Server) -> None:
    folded = server.fold()
    original, found = load_file(server.adapter / WEIGHTS), weights_of(folded)
    assert found.keys() == original.keys()
    for name, tensor in original.items():
        assert (found[name] == tensor * (2 if "lora_B" in name else 1)).all()
    made_of = folded.manifest.made_of
    assert made_of is not None
    assert (made_of.digest, made_of.form, made_of.factors, made_of.rounded) == (folded.original.digest, "folded", (2.0,), 0)
    assert {entry.path for entry in folded.manifest.files} == {entry.path for entry in folded.original.files}
    assert folded.manifest.digest != folded.original.digest
    # As the safetensors library would write it.
    assert pathlib.Path(folded.place.path, WEIGHTS).read_bytes() == save(found, {"format": "pt"})


def test_fold_twice_is_done_once_and_folded_adapter_stays_as_it_is(server: Server, tmp_path: pathlib.Path) -> None:
    first = server.fold()
    before = server.folded()
    again = server.fold()
    assert (first.made, again.made) == (True, False)
    assert again.manifest == first.manifest
    assert server.folded() == before
    # The same bytes again, from nothing.
    shutil.rmtree(server.cache)
    assert server.fold().made
    assert server.folded() == before
    # The folded adapter as an original.
    path = first.place.path
    shutil.rmtree(server.adapter)
    shutil.copytree(path, server.adapter)
    folded = server.fold(rank=16, alpha=16.0)
    assert folded.original.digest == folded.manifest.digest == first.manifest.digest


def test_fold_adapter_of_several_ranks_has_one_rank_with_zeros(server: Server, tiny: pathlib.Path) -> None:
    server.offer(tiny, "rank_pattern")
    pattern = json.loads((server.adapter / CONFIG).read_text(encoding="utf-8"))["rank_pattern"]
    folded = server.fold(peft_config={"rank_pattern": pattern})
    original, found = load_file(server.adapter / WEIGHTS), weights_of(folded)
    for name, tensor in original.items():
        rows, columns = tensor.shape
        rank = rows if "lora_A" in name else columns
        assert (found[name][:rows, :columns] == tensor * (32 / rank if "lora_B" in name else 1)).all()
        assert found[name].shape == ((16, columns) if "lora_A" in name else (rows, 16))
        assert not found[name][rows:].any()
        assert not found[name][:, columns:].any()
    assert folded.manifest.config["rank_pattern"] == {}


def test_fold_other_factor_is_float32_only_if_it_can_be_compared(server: Server, tiny: pathlib.Path) -> None:
    server.offer(tiny, "bf16")
    server.reconfigure(lora_alpha=24)
    message = server.refusal(alpha=24.0)
    assert message.startswith(": cannot be folded: its values would be rounded, and without the base on this host")
    folded = server.fold(alpha=24.0, base_path=str(tiny / "base"))
    assert {tensor.dtype for tensor in folded.manifest.tensors} == {"F32"}
    same = server.fold(alpha=24.0, base_path=str(tiny / "base"), form="folded_same_dtype")
    assert {tensor.dtype for tensor in same.manifest.tensors} == {"BF16"}
    assert same.record.made_of.rounded > 0
    assert same.place.path == f"{folded.place.path}-same-dtype"


def test_fold_value_that_becomes_subnormal_makes_it_float32(server: Server, tiny: pathlib.Path) -> None:
    server.offer(tiny, "bf16")
    server.reconfigure(lora_alpha=8)
    path = server.adapter / WEIGHTS
    data = bytearray(path.read_bytes())
    # The last value of the file, of a lora_B: the smallest normal one and a bit.
    data[-2:] = b"\x81\x00"
    path.write_bytes(data)
    assert "its values would be rounded" in server.refusal(alpha=8.0)
    folded = server.fold(alpha=8.0, base_path=str(tiny / "base"))
    assert {tensor.dtype for tensor in folded.manifest.tensors} == {"F32"}
    assert folded.record.made_of.rounded == 0


def test_fold_product_beyond_dtype_is_refused(server: Server, tiny: pathlib.Path) -> None:
    change_tensors(server.adapter, scale("lora_B", 1e37))
    server.reconfigure(lora_alpha=160000)
    message = server.refusal(alpha=160000.0, base_path=str(tiny / "base"))
    assert "times its factor is too large for the dtype." in message


def test_fold_files_behind_links_are_those_that_the_links_lead_to(server: Server, tmp_path: pathlib.Path) -> None:
    plain = server.fold()
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for path in list(server.adapter.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    shutil.rmtree(server.cache)
    folded = server.fold(link_dirs=[str(blobs)])
    assert folded.manifest.digest == plain.manifest.digest
    assert not any(path.is_symlink() for path in pathlib.Path(folded.place.path).iterdir())


def test_fold_without_interpreter_is_refused(server: Server) -> None:
    assert server.refusal(python=None).startswith(": cannot be folded without the interpreter of the training environment")
    assert "does not exist" in server.refusal(python="/nonexistent/python")


def test_fold_interpreter_without_numpy_is_refused(server: Server) -> None:
    message = server.refusal(python="/usr/bin/python3")
    assert message.startswith("/usr/bin/python3: has no numpy, which folding needs.")


def test_fold_without_write_describes_what_would_be_made(server: Server) -> None:
    predicted = server.fold(write=False)
    assert not server.cache.exists()
    made = server.fold()
    assert predicted.manifest.digest == made.manifest.digest
    assert (predicted.made, predicted.place.path) == (False, made.place.path)


@pytest.mark.parametrize("damage", ["weights", "record", "no record", "missing file"])
def test_fold_directory_that_is_not_whole_is_made_again(server: Server, damage: str) -> None:
    folded = server.fold()
    before = server.folded()
    directory = pathlib.Path(folded.place.path)
    if damage == "weights":
        data = bytearray((directory / WEIGHTS).read_bytes())
        data[-1] ^= 1
        (directory / WEIGHTS).write_bytes(data)
    elif damage == "missing file":
        (directory / "tokenizer.json").unlink()
    else:
        record = directory.parent / f"{directory.name}.json"
        if damage == "record":
            record.write_text("{}", encoding="utf-8")
        else:
            record.unlink()
    assert server.fold().made
    assert server.folded() == before


def test_fold_source_that_changes_meanwhile_is_refused(server: Server) -> None:
    declared = server._declare(form="folded")
    described = describe(str(server.adapter), declared, {}, str(server.cache / "original.json"))
    change_tensors(server.adapter, scale("lora_B", 1.5))
    with pytest.raises(DeliveryError, match="changed while it was read"):
        server.folding().fold(described.manifest, described, str(server.adapter), declared)
    assert server.folded() == {}


KILLED = """
import os, signal, sys
sys.path[:0] = [{collections!r}, {checkout!r}]
from ansible_collections.lorafleet.delivery.plugins.module_utils._source import fold, folded_directory
def kill(*_arguments):
    os.kill(os.getpid(), signal.SIGKILL)
# At the moment that is named.
{moment} = kill
from tests.unit.plugins.module_utils._source.test_fold import fold_in_process
fold_in_process(*sys.argv[1:])
"""


def fold_in_process(adapter: str, cache: str, scratch: str) -> None:
    """Fold the plain adapter, in a process that is killed."""
    row = dict.fromkeys(("target_modules", "peft_config", "extra_files"))
    row.update(name="adapter", base=tiny_adapters.BASE_NAME, rank=16, alpha=32.0, allow_pickle=False, form="folded")
    declared = Declaration.from_row(row, {})
    described = describe(adapter, declared, {}, os.path.join(cache, "original.json"))
    Folding(tiny_adapters.PEFT_PYTHON, cache, scratch, True).fold(described.manifest, described, adapter, declared)


@pytest.mark.parametrize(
    "moment",
    [
        "fold._Making._copy_others",
        "folded_directory.os.chmod",
        "folded_directory.os.rename",
        "folded_directory.fsync_directory",
        "folded_directory.FoldedDirectory.write",
    ],
)
def test_fold_killed_at_any_moment_leaves_nothing_that_counts(server: Server, moment: str, tmp_path: pathlib.Path) -> None:
    code = KILLED.format(collections=str(CHECKOUT / ".collections"), checkout=str(CHECKOUT), moment=moment)
    command = [sys.executable, "-c", code, str(server.adapter), str(server.cache), str(tmp_path)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not list((server.cache / "folded" / "adapter").glob("*.json"))
    made = server.fold()
    assert made.made
    root = server.cache / "folded" / "adapter"
    name = os.path.basename(made.place.path)
    assert {path.name for path in root.iterdir()} == {name, f"{name}.json", "lock"}


def test_fold_new_releases_leave_two_directories(server: Server) -> None:
    names = []
    for factor in (1.0, 1.5, 1.25, 1.75):
        change_tensors(server.adapter, scale("lora_B", factor))
        names.append(os.path.basename(server.fold().place.path))
        # The files are old enough for their hashes to be kept.
        wait_until_cacheable(pathlib.Path(server.fold().place.path))
        server.fold()
    root = server.cache / "folded" / "adapter"
    assert {path.name for path in root.iterdir() if path.is_dir()} == set(names[-2:])
    assert {path.stem for path in root.glob("*.json")} == set(names[-2:])
    assert len(list(server.cache.glob("*.json"))) == 3


def test_compare_new_exact_adapter_without_base_is_accepted_with_a_note(server: Server) -> None:
    problems: list[Problem] = []
    [folded] = server.folding().compare_new([server.fold()], problems, [])
    assert problems == []
    assert folded.notes == [
        f"The folded adapter was not compared with the original: base {tiny_adapters.BASE_NAME} has no path on this host."
    ]
    made_of = folded.manifest.made_of
    assert made_of is not None
    assert made_of.difference is None
    # The base may be there the next time.
    assert server.fold().record.not_compared is None


@pytest.mark.parametrize(("alpha", "accepted"), [(32, True), (24, False)])
def test_compare_new_interpreter_without_peft_rejects_rounded_adapter(
    server: Server, tiny: pathlib.Path, alpha: int, accepted: bool
) -> None:
    server.reconfigure(lora_alpha=alpha)
    folded = server.fold(alpha=float(alpha), base_path=str(tiny / "base"))
    problems: list[Problem] = []
    found = server.folding("/usr/bin/python3").compare_new([folded], problems, [])
    assert found == ([folded] if accepted else [])
    messages = [*map(str, problems), *(note for one in found for note in one.notes)]
    assert [("/usr/bin/python3 has no torch." in message, "not compared" in message) for message in messages] == [(True, True)]


@pytest.mark.parametrize(
    ("form", "found", "permitted"),
    [
        ("folded", Comparison(0, largest=5, change=2), 1e-4),
        ("folded", Comparison(0, largest=30, change=2), 3e-4),
        ("folded_same_dtype", Comparison(0, largest=30, change=2), 3e-4 + 2 / 32),
    ],
)
def test_permitted_difference_grows_with_logits_and_rounding(
    server: Server, tiny: pathlib.Path, form: str, found: Comparison, permitted: float
) -> None:
    server.offer(tiny, "bf16")
    server.reconfigure(lora_alpha=24)
    folded = server.fold(alpha=24.0, base_path=str(tiny / "base"), form=form)
    assert folded.permitted(found) == pytest.approx(permitted)


def test_compare_new_rounded_adapter_needs_base_until_it_was_compared(server: Server, tiny: pathlib.Path) -> None:
    server.reconfigure(lora_alpha=24)
    folded = server.fold(alpha=24.0, base_path=str(tiny / "base"))
    with pytest.raises(DeliveryError, match="without the base on this host the result cannot be compared"):
        server.fold(alpha=24.0, write=False)
    made_of = dataclasses.replace(folded.record.made_of, difference=1e-6)
    folded.place.write(dataclasses.replace(folded.record, made_of=made_of))
    [found] = server.folding(None).compare_new([server.fold(alpha=24.0)], [], [])
    assert found.manifest.made_of == made_of


def test_manifest_has_golden_base_and_versions_of_original(server: Server) -> None:
    folded = server.fold()
    folded.original = Manifest(
        **{**vars(folded.original), "golden": {"digest": "g"}, "base": {"tensors": 1}, "versions": {"peft": "0.21.2"}}
    )
    assert (folded.manifest.golden, folded.manifest.base) == ({"digest": "g"}, {"tensors": 1})
    assert folded.manifest.versions == {"peft": "0.21.2"}
