# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files that belong to an adapter, and what a directory without one holds instead."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.excluded import Excluded, listed, unusual
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.file_selection import (
    Selection,
    select_files,
    source_directory,
    tokenizer_above,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

from tests.support.describing import CONFIG, FILES, WEIGHTS, Declare

Select = t.Callable[[], Selection]


@pytest.fixture
def select(adapter: pathlib.Path, declare: Declare) -> Select:
    return lambda: select_files(str(adapter), declare())


def error_of(select: Select) -> str:
    with pytest.raises(DeliveryError) as caught:
        select()
    [problem] = caught.value.problems
    assert problem.remedy
    return str(problem)


def paths_of(adapter: pathlib.Path, *names: str) -> dict[str, str]:
    return {name: str(adapter / name) for name in sorted(names)}


def reasons(select: Select) -> dict[str, str]:
    return {item.path: item.reason for item in select().excluded}


@pytest.mark.parametrize(
    "name",
    [
        *("tekken.json", "tekken_240911.json", "tokenizer.model.v3", "tokenizer.model.v7m1", "tokenizer.4.40.json", "vocab.txt"),
        *("spiece.model", "sentencepiece.bpe.model", "qwen.tiktoken", "preprocessor_config.json", "chat_template.json"),
    ],
)
def test_select_files_every_form_of_a_tokenizer_belongs_to_the_adapter(adapter: pathlib.Path, select: Select, name: str) -> None:
    (adapter / name).write_text("{}")
    assert select() == Selection(paths_of(adapter, *FILES, name), [])


@pytest.mark.parametrize("name", ["tokenizer.json.bak", "tokenizer.model.vx", "mytekken.jsonx", "vocab.json~"])
def test_select_files_similar_name_is_excluded_as_unusual(adapter: pathlib.Path, select: Select, name: str) -> None:
    (adapter / name).write_text("{}")
    assert select() == Selection(
        paths_of(adapter, *FILES), [Excluded(name, "neither PEFT nor transformers reads it", usual=False)]
    )


def test_select_files_excluded_files_have_reasons(adapter: pathlib.Path, select: Select) -> None:
    for name in (
        "README.md",
        "optimizer.pt",
        "Handler.PY",
        "config.json",
        ".gitattributes",
        "trainer_state.json",
        "adapter_model.bin",
    ):
        (adapter / name).write_text("")
    (adapter / "grammar").mkdir()
    (adapter / "grammar" / CONFIG).write_text("{}")
    (adapter / "checkpoint-5").mkdir()
    assert reasons(select) == {
        ".gitattributes": "a hidden file or directory",
        "Handler.PY": "code, or a pickle, which can carry code",
        "README.md": "documentation",
        "adapter_model.bin": "the weights as a pickle; their safetensors file is delivered",
        "checkpoint-5": "state or log of the training",
        "config.json": "settings of the base, which the node has",
        "grammar": "another adapter: add a row with this subdirectory to deliver it",
        "optimizer.pt": "state or log of the training",
        "trainer_state.json": "state or log of the training",
    }
    assert unusual("adapter", select().excluded) == []


def test_unusual_names_what_serving_might_need(adapter: pathlib.Path, select: Select) -> None:
    (adapter / "voices.dat").write_text("")
    (adapter / "README.md").write_text("")
    (adapter / "additional").mkdir()
    assert unusual("a_lora", select().excluded) == [
        "adapter a_lora: does not deliver additional, voices.dat. If serving needs them, list them in its extra_files."
    ]


def test_select_files_name_of_any_bytes_is_excluded(adapter: pathlib.Path, select: Select) -> None:
    path = os.path.join(os.fsencode(adapter), b"r\xe9sultats.txt")
    pathlib.Path(os.fsdecode(path)).write_bytes(b"x")
    [item] = select().excluded
    assert item.to_json() == {"path": r"'r\udce9sultats.txt'", "reason": "neither PEFT nor transformers reads it"}


def test_select_files_many_links_are_one_problem(adapter: pathlib.Path, select: Select) -> None:
    blobs = adapter.parent / "blobs"
    blobs.mkdir()
    for name in FILES:
        (adapter / name).rename(blobs / name)
        (adapter / name).symlink_to(blobs / name)
    assert f"{adapter} has 5 symbolic links instead of files: {CONFIG}, {WEIGHTS}" in error_of(select)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((CONFIG,), f"{CONFIG} in {{adapter}} is a Git LFS pointer, not the file itself."),
        (("tokenizer.json", WEIGHTS), f"{WEIGHTS}, tokenizer.json in {{adapter}} are Git LFS pointers, not the files."),
    ],
)
def test_select_files_lfs_pointer_is_named(adapter: pathlib.Path, select: Select, names: tuple[str, ...], words: str) -> None:
    for name in names:
        (adapter / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:6b9e4e7f\nsize 1049\n")
    assert f"{words.format(adapter=adapter)} Run 'git lfs pull'" in error_of(select)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((CONFIG, "adapter.safetensors", "head_config.json"), "adapter.safetensors is an adapter of AdapterHub's library"),
        ((CONFIG, "pytorch_adapter.bin"), "pytorch_adapter.bin is an adapter of AdapterHub's library"),
        ((CONFIG, "adapters.safetensors", "0000100_adapters.safetensors"), "is an adapter of mlx-lm"),
        (("lora_config.json", "peft_model-00001-of-00001.safetensors"), "an adapter of PaddleFormers"),
        (("adapter.lora.h5",), "adapter.lora.h5 is an adapter of Keras"),
        (("lit_model.pth.lora", "model_config.yaml", "tokenizer.json"), "lit_model.pth.lora is a checkpoint of litgpt"),
        (("adapter_0.pt", "recipe_state.pt"), "adapter_0.pt is a checkpoint in torchtune's own format"),
        (("__0_0.distcp", ".metadata"), "__0_0.distcp is a distributed checkpoint, as NeMo"),
        (("megatron_lora.nemo",), "megatron_lora.nemo is a distributed checkpoint, as NeMo"),
        (("zero_to_fp32.py", "latest", "global_step100"), "is a checkpoint of DeepSpeed ZeRO or FSDP"),
        ((CONFIG, "adapter_model-00001-of-00002.safetensors"), "is a shard of weights"),
        ((CONFIG, "adapter_model.safetensors.incomplete"), "is an unfinished download"),
        ((CONFIG, "adapter_model.pth"), "adapter_model.pth is a pickle under a name that PEFT does not read"),
        (("config.json", "model.safetensors", "tokenizer.json"), "model.safetensors is part of a whole model"),
        ((CONFIG, "optimizer.pt", "trainer_state.json"), "optimizer.pt is the state of a training"),
        (("lora.tar.gz",), "lora.tar.gz is an archive"),
        (("my-lora-f16.gguf",), "my-lora-f16.gguf is a file of llama.cpp"),
    ],
)
def test_select_files_of_another_tool_are_named(
    adapter: pathlib.Path, select: Select, files: tuple[str, ...], words: str
) -> None:
    for path in adapter.iterdir():
        path.unlink()
    for name in files:
        (adapter / name).write_text("{}")
    missing = WEIGHTS if CONFIG in files else CONFIG
    message = error_of(select)
    assert f"{adapter} has no {missing}; " in message
    assert words in message


def test_select_files_adapters_below_are_named_in_order(adapter: pathlib.Path, select: Select) -> None:
    for name in ("checkpoint-1000", "checkpoint-900", os.path.join("last", "default")):
        (adapter / name).mkdir(parents=True)
        (adapter / name / CONFIG).write_text("{}")
    (adapter / "elsewhere").symlink_to(adapter / "checkpoint-900")
    (adapter / CONFIG).unlink()
    message = error_of(select)
    assert (
        f"has no {CONFIG}, but there are adapters in directories below it: checkpoint-900/, checkpoint-1000/, last/default/"
        in message
    )
    assert "'subdirectory: last/default'" in message


def test_select_files_templates_in_their_directory_belong_to_the_adapter(adapter: pathlib.Path, select: Select) -> None:
    directory = adapter / "additional_chat_templates"
    directory.mkdir()
    (directory / "tool_use.jinja").write_text("{{ tools }}")
    (directory / "notes.txt").write_text("")
    found = select()
    assert [*found.paths] == sorted([*FILES, "additional_chat_templates/tool_use.jinja"])
    assert [item.path for item in found.excluded] == ["additional_chat_templates/notes.txt"]


def test_select_files_templates_behind_a_link_are_rejected(adapter: pathlib.Path, select: Select) -> None:
    (adapter.parent / "templates").mkdir()
    (adapter / "additional_chat_templates").symlink_to(adapter.parent / "templates")
    assert f"{adapter}/additional_chat_templates is a symbolic link" in error_of(select)


def test_select_files_template_with_unsafe_name_is_rejected(adapter: pathlib.Path, select: Select) -> None:
    directory = adapter / "additional_chat_templates"
    directory.mkdir()
    (directory / "tool use.jinja").write_text("")
    assert "file 'additional_chat_templates/tool use.jinja': 'tool use.jinja': is not a valid name" in error_of(select)


def test_select_files_extra_file_in_a_subdirectory_is_included(adapter: pathlib.Path, declare: Declare) -> None:
    (adapter / "voices").mkdir()
    for name in ("a.bin", "a.dat"):
        (adapter / "voices" / name).write_text("")
    found = select_files(str(adapter), declare(extra_files=["voices/a.dat"]))
    assert [*found.paths] == sorted([*FILES, "voices/a.dat"])
    assert [item.path for item in found.excluded] == ["voices/a.bin"]


def linked(adapter: pathlib.Path, blobs: pathlib.Path) -> None:
    """Replace the files by links, as in the Hub's cache."""
    blobs.mkdir()
    for number, name in enumerate(FILES):
        (adapter / name).rename(blobs / str(number))
        (adapter / name).symlink_to(os.path.relpath(blobs / str(number), adapter))


def test_select_files_links_into_link_dirs_are_resolved(adapter: pathlib.Path, declare: Declare) -> None:
    blobs = adapter.parent / "blobs"
    linked(adapter, blobs)
    found = select_files(str(adapter), declare(), [str(adapter.parent / "nothing"), str(blobs)])
    assert found.paths == {name: str(blobs / str(number)) for number, name in enumerate(FILES)}


@pytest.mark.parametrize("allowed", ["blobs/0", "blob", "blobs-evil", "models/../blobsx"])
def test_select_files_links_elsewhere_are_refused(adapter: pathlib.Path, declare: Declare, allowed: str) -> None:
    linked(adapter, adapter.parent / "blobs")
    with pytest.raises(DeliveryError, match="5 symbolic links instead of files") as caught:
        select_files(str(adapter), declare(), [str(adapter.parent / allowed)])
    assert f"list {adapter.parent}/blobs in link_dirs" in str(caught.value)


@pytest.mark.parametrize("target", ["../../secret", "/etc/hostname", "../outside/secret"])
def test_select_files_link_that_leaves_link_dirs_is_refused(adapter: pathlib.Path, declare: Declare, target: str) -> None:
    """The path of the link is inside, but the file that it leads to is not."""
    blobs = adapter.parent / "blobs"
    linked(adapter, blobs)
    (adapter.parent / "outside").mkdir()
    for secret in (adapter.parent / "secret", adapter.parent.parent / "secret", adapter.parent / "outside" / "secret"):
        secret.write_text("x")
    (blobs / "3").unlink()
    (blobs / "3").symlink_to(target)
    with pytest.raises(DeliveryError, match=r"tokenizer\.json is a symbolic link"):
        select_files(str(adapter), declare(), [str(blobs)])


@pytest.mark.parametrize("kind", ["directory", "fifo", "nothing"])
def test_select_files_link_to_no_plain_file_is_refused(adapter: pathlib.Path, declare: Declare, kind: str) -> None:
    blobs = adapter.parent / "blobs"
    linked(adapter, blobs)
    (blobs / "3").unlink()
    if kind == "directory":
        (blobs / "3").mkdir()
    elif kind == "fifo":
        os.mkfifo(blobs / "3")
    with pytest.raises(DeliveryError, match=r"is not a plain file|leads to nothing"):
        select_files(str(adapter), declare(), [str(blobs)])


def test_source_directory_is_below_the_adapters_name(tmp_path: pathlib.Path, declare: Declare) -> None:
    (tmp_path / "elsewhere" / "runs" / "checkpoint-5").mkdir(parents=True)
    (tmp_path / "adapter").symlink_to("elsewhere")
    assert source_directory(str(tmp_path), declare()) == str(tmp_path / "elsewhere")
    declared = declare(subdirectory="runs/checkpoint-5")
    assert source_directory(str(tmp_path), declared) == str(tmp_path / "elsewhere" / "runs" / "checkpoint-5")
    # Whether it exists is a matter of its files.
    assert source_directory(str(tmp_path), declare(subdirectory="none")) == str(tmp_path / "elsewhere" / "none")


def test_source_directory_behind_a_link_needs_link_dirs(tmp_path: pathlib.Path, declare: Declare) -> None:
    (tmp_path / "private" / "checkpoint-5").mkdir(parents=True)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "last").symlink_to(tmp_path / "private" / "checkpoint-5")
    declared = declare(subdirectory="last")
    with pytest.raises(DeliveryError, match=f"list {tmp_path}/private in link_dirs"):
        source_directory(str(tmp_path), declared, [str(tmp_path / "priv")])
    assert source_directory(str(tmp_path), declared, [str(tmp_path / "private")]) == str(tmp_path / "private" / "checkpoint-5")


def test_tokenizer_above_the_subdirectory_is_warned_of(tmp_path: pathlib.Path, declare: Declare) -> None:
    (tmp_path / "adapter" / "runs" / "grammar").mkdir(parents=True)
    declared = declare(subdirectory="runs/grammar")
    assert tokenizer_above(str(tmp_path), declared, [CONFIG]) is None
    (tmp_path / "adapter" / "tokenizer.json").write_text("{}")
    warning = tokenizer_above(str(tmp_path), declared, [CONFIG])
    assert warning is not None
    assert f"without the tokenizer in {tmp_path}/adapter" in warning
    assert tokenizer_above(str(tmp_path), declared, [CONFIG, "tekken.json"]) is None
    assert tokenizer_above(str(tmp_path), declare(), [CONFIG]) is None


def test_listed_names_a_thousand_of_any_number_of_other_files() -> None:
    items = [Excluded(f"file{number}", "documentation") for number in range(10_001)]
    assert listed(items[:1000]) == [item.to_json() for item in items[:1000]]
    assert listed(items) == [*listed(items[:1000]), {"path": "...", "reason": "and 9001 more names"}]
