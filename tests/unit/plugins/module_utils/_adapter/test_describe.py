# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Describing adapters that PEFT saved: which files are included, and what is rejected."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import pathlib
import pickle
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter import describe as describing
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import Description, describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest

from tests.support import tiny_adapters
from tests.support.describing import CONFIG, FILES, WEIGHTS, Declare, Describe, error_of, wait_until_cacheable


def test_describe_adapter_lists_every_file_and_tensor(adapter: pathlib.Path, describe_it: Describe) -> None:
    found = describe_it(versions={"torch": "2.13.0"})
    assert [entry.path for entry in found.manifest.files] == FILES
    for entry in found.manifest.files:
        data = (adapter / entry.path).read_bytes()
        assert (entry.size, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    # Two layers of seven linear modules, each with lora_A and lora_B.
    assert len(found.manifest.tensors) == 28
    assert {tensor.dtype for tensor in found.manifest.tensors} == {"F32"}
    assert found.manifest.config == json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    assert found.manifest.versions == {"torch": "2.13.0", "peft": found.manifest.config["peft_version"]}
    assert found.manifest.name == "adapter"
    assert found.excluded == []
    assert not found.cached
    assert Manifest.from_json(json.loads(json.dumps(found.manifest.to_json()))) == found.manifest


def test_describe_known_versions_override_config(describe_it: Describe) -> None:
    assert describe_it(versions={"peft": "0.99"}).manifest.versions == {"peft": "0.99"}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("adapter", {}),
        ("adapter_b", {"rank": 32}),
        ("qv", {"target_modules": ["q_proj", "v_proj"]}),
        ("rslora", {"peft_config": {"use_rslora": True}}),
        ("dora", {"peft_config": {"use_dora": True}}),
        ("lm_head_saved", {"peft_config": {"modules_to_save": ["lm_head"]}}),
        ("embeddings", {}),
        ("rank_pattern", {"peft_config": {"rank_pattern": {"down_proj": 8, "layers.1.self_attn.q_proj": 4}}}),
        ("bf16", {}),
    ],
)
def test_describe_adapter_of_each_kind_is_accepted(
    tiny: pathlib.Path, declare: Declare, cache: pathlib.Path, name: str, row: dict[str, t.Any]
) -> None:
    found = describe(str(tiny / name), declare(name=name, **row), {}, str(cache))
    assert [entry.path for entry in found.manifest.files] == FILES
    assert paths(found) == ["README.md"]


def test_describe_without_base_config_gives_same_manifest(describe_it: Describe) -> None:
    assert describe_it(base_config=None).manifest == describe_it().manifest


def test_describe_all_tokenizer_files_are_included(adapter: pathlib.Path, describe_it: Describe) -> None:
    more = ["added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer.model", "vocab.json"]
    for name in more:
        (adapter / name).write_text("{}")
    found = describe_it()
    assert [entry.path for entry in found.manifest.files] == sorted([*FILES, *more])
    assert found.excluded == []


def test_describe_without_tokenizer_is_accepted(adapter: pathlib.Path, describe_it: Describe) -> None:
    for name in FILES[2:]:
        (adapter / name).unlink()
    assert [entry.path for entry in describe_it().manifest.files] == [CONFIG, WEIGHTS]


def test_describe_foreign_files_are_excluded(adapter: pathlib.Path, describe_it: Describe) -> None:
    clean = describe_it(write_cache=False).manifest
    for name in ("README.md", "optimizer.pt", "rng_state.pth", "training_args.bin", ".gitattributes", "handler.py"):
        (adapter / name).write_bytes(b"cpickle\n")
    (adapter / "checkpoint-500").mkdir()
    (adapter / "checkpoint-500" / WEIGHTS).write_bytes(b"old")
    (adapter / "runs").symlink_to("/")
    os.mkfifo(adapter / "fifo")
    found = describe_it(write_cache=False)
    assert found.manifest == clean
    assert paths(found) == sorted(
        [
            *("README.md", "optimizer.pt", "rng_state.pth", "training_args.bin", ".gitattributes", "handler.py"),
            *("checkpoint-500", "runs", "fifo"),
        ]
    )


def test_describe_extra_files_are_included_where_they_exist(adapter: pathlib.Path, describe_it: Describe) -> None:
    (adapter / "README.md").write_text("card")
    found = describe_it(extra_files=["README.md", "NOTICE"])
    assert [entry.path for entry in found.manifest.files] == sorted([*FILES, "README.md"])
    assert found.excluded == []


def test_describe_directory_as_extra_file_is_rejected(adapter: pathlib.Path, describe_it: Describe) -> None:
    (adapter / "notes").mkdir()
    assert f"{adapter}/notes is not a plain file" in error_of(describe_it, extra_files=["notes"])


@pytest.mark.parametrize("name", ["modeling.py", "optimizer.pt", "training_args.bin", "Evil.PKL"])
def test_describe_code_as_extra_file_is_rejected(adapter: pathlib.Path, describe_it: Describe, name: str) -> None:
    (adapter / name).write_text("boom", encoding="utf-8")
    assert paths(describe_it()) == [name]
    assert f"has {name} in extra_files, which is code or can carry code" in error_of(describe_it, extra_files=["README.md", name])


def test_describe_tokenizer_with_code_is_rejected(adapter: pathlib.Path, describe_it: Describe) -> None:
    (adapter / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.T", null]}}', encoding="utf-8")
    assert "adapter adapter, tokenizer_config.json: has auto_map" in error_of(describe_it)


def test_describe_missing_directory_is_rejected(adapter: pathlib.Path, describe_it: Describe) -> None:
    adapter.rename(adapter.with_name("elsewhere"))
    assert f"adapter: {adapter} does not exist" in error_of(describe_it)


def test_describe_empty_directory_is_rejected(adapter: pathlib.Path, describe_it: Describe) -> None:
    for path in adapter.iterdir():
        path.unlink()
    assert f"adapter: {adapter} is empty" in error_of(describe_it)


def test_describe_file_instead_of_directory_is_rejected(adapter: pathlib.Path, describe_it: Describe) -> None:
    adapter.rename(adapter.with_name("elsewhere"))
    adapter.write_text("")
    assert f"{adapter} cannot be listed: Not a directory" in error_of(describe_it)


def test_describe_without_config_is_rejected(adapter: pathlib.Path, describe_it: Describe) -> None:
    (adapter / CONFIG).unlink()
    assert f"{adapter} has no {CONFIG}" in error_of(describe_it)


def test_describe_without_weights_is_rejected(adapter: pathlib.Path, describe_it: Describe) -> None:
    (adapter / WEIGHTS).unlink()
    assert f"{adapter} has no {WEIGHTS}" in error_of(describe_it)


@pytest.mark.parametrize("allow_pickle", [False, True])
def test_describe_pickle_beside_safetensors_is_excluded(adapter: pathlib.Path, describe_it: Describe, allow_pickle: bool) -> None:
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps({}))
    found = describe_it(allow_pickle=allow_pickle)
    assert found.manifest.weights_file == WEIGHTS
    assert paths(found) == ["adapter_model.bin"]
    assert found.notes == [f"There is adapter_model.bin, too. PEFT loads {WEIGHTS}, which is delivered."]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"config": {"architecture": "lora"}, "model_class": "LlamaForCausalLM"}, "of an adapter of AdapterHub's library"),
        ({"version": "adapters.1.3.0"}, "of an adapter of AdapterHub's library"),
        ({"fine_tune_type": "lora", "lora_parameters": {"rank": 8}}, "of an adapter of mlx-lm"),
    ],
)
def test_describe_config_of_another_tool_is_named(
    adapter: pathlib.Path, describe_it: Describe, config: dict[str, t.Any], words: str
) -> None:
    (adapter / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    message = error_of(describe_it)
    assert words in message
    assert "peft_type" not in message


def test_describe_pickle_needs_allow_pickle(adapter: pathlib.Path, describe_it: Describe) -> None:
    (adapter / WEIGHTS).rename(adapter / "adapter_model.bin")
    assert "a pickle, which can carry code" in error_of(describe_it)
    found = describe_it(allow_pickle=True).manifest
    assert found.weights_file == "adapter_model.bin"
    assert found.tensors == ()


def paths(found: Description) -> list[str]:
    return [item.path for item in found.excluded]


class Bomb:
    def __reduce__(self) -> tuple[t.Any, ...]:
        return os.mkdir, ("opened",)


def test_describe_pickle_is_never_loaded(adapter: pathlib.Path, describe_it: Describe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(adapter.parent)
    (adapter / WEIGHTS).unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))
    describe_it(allow_pickle=True)
    assert not (adapter.parent / "opened").exists()


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "tokenizer.json"])
def test_describe_link_is_rejected(adapter: pathlib.Path, describe_it: Describe, name: str) -> None:
    (adapter / name).rename(adapter.parent / name)
    (adapter / name).symlink_to(adapter.parent / name)
    assert f"{adapter}/{name} is a symbolic link" in error_of(describe_it)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "tokenizer.json"])
def test_describe_fifo_is_rejected(adapter: pathlib.Path, describe_it: Describe, name: str) -> None:
    (adapter / name).unlink()
    os.mkfifo(adapter / name)
    assert f"{adapter}/{name} is not a plain file" in error_of(describe_it)


def test_describe_link_to_directory_is_followed(adapter: pathlib.Path, describe_it: Describe) -> None:
    expected = describe_it(write_cache=False).manifest
    adapter.rename(adapter.with_name("elsewhere"))
    adapter.symlink_to("elsewhere")
    assert describe_it().manifest == expected


def test_describe_other_rank_names_both(describe_it: Describe) -> None:
    message = error_of(describe_it, rank=32)
    assert "is 16" in message
    assert "declares rank 32" in message


def test_describe_other_alpha_names_both(describe_it: Describe) -> None:
    message = error_of(describe_it, alpha=64.0)
    assert "is 32" in message
    assert "declares alpha 64" in message


def test_describe_other_base_names_both(describe_it: Describe) -> None:
    message = error_of(describe_it, base="meta-llama/Llama-3.2-3B-Instruct")
    assert tiny_adapters.BASE_NAME in message
    assert "meta-llama/Llama-3.2-3B-Instruct" in message


def test_describe_other_target_modules_names_both(describe_it: Describe) -> None:
    message = error_of(describe_it, target_modules=["q_proj", "v_proj"])
    assert "q_proj, v_proj" in message
    assert "down_proj" in message


def test_describe_overlapping_patterns_are_a_note(adapter: pathlib.Path, describe_it: Describe) -> None:
    path = adapter / CONFIG
    pattern = {"q_proj": 8, "layers.1.self_attn.q_proj": 64}
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "alpha_pattern": pattern}), encoding="utf-8")
    [note] = describe_it(peft_config={"alpha_pattern": pattern}).notes
    assert note.startswith("alpha_pattern in adapter_config.json has different values for model.layers.1.self_attn.q_proj:")


def test_describe_several_problems_are_all_reported(describe_it: Describe) -> None:
    message = error_of(describe_it, rank=32, alpha=64.0)
    assert "declares rank 32" in message
    assert "declares alpha 64" in message


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-1], "is truncated by 1 byte"),
        (lambda data: data + b"\0", "is too long by 1 byte"),
        (lambda data: b"", "is empty"),
        (lambda data: b"\0" * len(data), "is filled with zeros"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (lambda data: data[:-4] + b"\x00\x00\xc0\x7f", "has NaN or infinite values"),
    ],
)
def test_describe_damaged_weights_are_rejected(
    adapter: pathlib.Path, describe_it: Describe, damage: t.Callable[[bytes], bytes], words: str
) -> None:
    (adapter / WEIGHTS).write_bytes(damage((adapter / WEIGHTS).read_bytes()))
    assert words in error_of(describe_it)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"r": 16, "r": 32}', "\ufeff{}"])
def test_describe_damaged_config_is_rejected(adapter: pathlib.Path, describe_it: Describe, text: str) -> None:
    (adapter / CONFIG).write_text(text, encoding="utf-8")
    assert f"{adapter}/{CONFIG}" in error_of(describe_it)


def changed_while_read(monkeypatch: pytest.MonkeyPatch, change: t.Callable[[], t.Any]) -> None:
    """Have something happen after the bytes of the small files were read."""
    read = describing.sha256_of_all

    def read_then_change(paths: t.Sequence[str]) -> list[tuple[int, str]]:
        found = read(paths)
        change()
        return found

    monkeypatch.setattr(describing, "sha256_of_all", read_then_change)


@pytest.mark.parametrize("name", FILES)
def test_describe_file_changing_while_read_is_rejected(
    adapter: pathlib.Path, describe_it: Describe, cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    wait_until_cacheable(adapter)
    changed_while_read(monkeypatch, (adapter / name).touch)
    assert f"changed while it was read: {adapter} is still being written" in error_of(describe_it)
    assert not cache.exists()


def test_describe_file_removed_while_read_is_rejected(
    adapter: pathlib.Path, describe_it: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_while_read(monkeypatch, (adapter / "tokenizer.json").unlink)
    assert "changed while it was read" in error_of(describe_it)


def test_describe_file_removed_before_read_is_rejected(
    adapter: pathlib.Path, describe_it: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_directory = os.listdir

    def list_then_remove(path: str) -> list[str]:
        names = list_directory(path)
        (adapter / "tokenizer.json").unlink()
        return names

    monkeypatch.setattr(os, "listdir", list_then_remove)
    assert "changed while it was read" in error_of(describe_it)


def test_describe_concurrent_calls_agree(tiny: pathlib.Path, declare: Declare, tmp_path: pathlib.Path) -> None:
    def one(number: int) -> str:
        return describe(str(tiny / "adapter"), declare(), {}, str(tmp_path / str(number) / "entry.json")).manifest.digest

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(one, range(8)))) == 1
