# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Describing adapters that PEFT saved: what travels, what is refused, and when the cache may be believed."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import pathlib
import pickle
import subprocess
import sys
import time
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter import describe as describing
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declared import Declared
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import Description, describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

from tests.support import tiny_adapters

Declare = t.Callable[..., Declared]

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ALWAYS = [CONFIG, WEIGHTS, "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "cache" / "entry.json"


@pytest.fixture
def look(adapter: pathlib.Path, declare: Declare, cache: pathlib.Path) -> t.Callable[..., Description]:
    """Describes the adapter, declared as it is but for the keywords given."""

    def look_at(remember: bool = True, versions: t.Optional[dict[str, str]] = None, **row: t.Any) -> Description:
        return describe(str(adapter), declare(**row), versions or {}, str(cache), remember)

    return look_at


Look = t.Callable[..., Description]


def let_time_pass(directory: pathlib.Path) -> None:
    """Return when the files in a directory are old enough for a cache entry: some hundredths of a second."""
    newest = max(path.stat().st_ctime_ns for path in directory.iterdir())
    while time.time_ns() <= newest + 2 * describing._CLOCK_TICK_NS:
        pass


def edit_config(adapter: pathlib.Path, **changes: t.Any) -> None:
    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    config.update(changes)
    (adapter / CONFIG).write_text(json.dumps(config), encoding="utf-8")


def refused(look: Look, **row: t.Any) -> str:
    with pytest.raises(DeliveryError) as caught:
        look(**row)
    assert all(problem.subject and problem.remedy for problem in caught.value.problems)
    return str(caught.value)


def test_a_manifest_describes_every_byte(adapter: pathlib.Path, look: Look) -> None:
    found = look(versions={"torch": "2.13.0"})
    assert [entry.path for entry in found.manifest.files] == ALWAYS
    for entry in found.manifest.files:
        data = (adapter / entry.path).read_bytes()
        assert (entry.size, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    # Two layers of seven linear modules, each with lora_A and lora_B.
    assert len(found.manifest.tensors) == 28
    assert {tensor.dtype for tensor in found.manifest.tensors} == {"F32"}
    assert found.manifest.config == json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    assert found.manifest.versions == {"torch": "2.13.0", "peft": found.manifest.config["peft_version"]}
    assert found.manifest.name == "adapter"
    assert found.left_behind == []
    assert not found.cached
    assert Manifest.from_json(json.loads(json.dumps(found.manifest.to_json()))) == found.manifest


def test_versions_that_are_known_say_more_than_the_config(look: Look) -> None:
    assert look(versions={"peft": "0.99"}).manifest.versions == {"peft": "0.99"}


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
def test_every_kind_of_adapter_as_peft_saves_it(
    tiny: pathlib.Path, declare: Declare, cache: pathlib.Path, name: str, row: dict[str, t.Any]
) -> None:
    found = describe(str(tiny / name), declare(name=name, **row), {}, str(cache))
    assert [entry.path for entry in found.manifest.files] == ALWAYS
    assert found.left_behind == ["README.md"]


def test_without_the_base_the_adapter_is_described_all_the_same(look: Look) -> None:
    assert look(base_config=None).manifest == look().manifest


def test_a_tokenizer_may_have_more_files(adapter: pathlib.Path, look: Look) -> None:
    more = ["added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer.model", "vocab.json"]
    for name in more:
        (adapter / name).write_text("{}")
    found = look()
    assert [entry.path for entry in found.manifest.files] == sorted([*ALWAYS, *more])
    assert found.left_behind == []


def test_an_adapter_needs_no_tokenizer(adapter: pathlib.Path, look: Look) -> None:
    for name in ALWAYS[2:]:
        (adapter / name).unlink()
    assert [entry.path for entry in look().manifest.files] == [CONFIG, WEIGHTS]


def test_what_is_no_part_of_the_adapter_stays_behind(adapter: pathlib.Path, look: Look) -> None:
    clean = look(remember=False).manifest
    for name in ("README.md", "optimizer.pt", "rng_state.pth", "training_args.bin", ".gitattributes", "handler.py"):
        (adapter / name).write_bytes(b"cpickle\n")
    (adapter / "checkpoint-500").mkdir()
    (adapter / "checkpoint-500" / WEIGHTS).write_bytes(b"old")
    (adapter / "runs").symlink_to("/")
    os.mkfifo(adapter / "fifo")
    found = look(remember=False)
    assert found.manifest == clean
    assert found.left_behind == sorted(
        [
            *("README.md", "optimizer.pt", "rng_state.pth", "training_args.bin", ".gitattributes", "handler.py"),
            *("checkpoint-500", "runs", "fifo"),
        ]
    )


def test_extra_files_travel_where_they_exist(adapter: pathlib.Path, look: Look) -> None:
    (adapter / "README.md").write_text("card")
    found = look(extra_files=["README.md", "NOTICE"])
    assert [entry.path for entry in found.manifest.files] == sorted([*ALWAYS, "README.md"])
    assert found.left_behind == []


def test_a_directory_is_no_extra_file(adapter: pathlib.Path, look: Look) -> None:
    (adapter / "notes").mkdir()
    assert f"{adapter}/notes is not a plain file" in refused(look, extra_files=["notes"])


@pytest.mark.parametrize("name", ["modeling.py", "optimizer.pt", "training_args.bin", "Evil.PKL"])
def test_code_is_no_extra_file(adapter: pathlib.Path, look: Look, name: str) -> None:
    (adapter / name).write_text("boom", encoding="utf-8")
    assert look().left_behind == [name]
    assert f"shall have {name} with it, which is code or can carry it" in refused(look, extra_files=["README.md", name])


def test_a_tokenizer_with_code_is_refused(adapter: pathlib.Path, look: Look) -> None:
    (adapter / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.T", null]}}', encoding="utf-8")
    assert "adapter adapter, tokenizer_config.json: has auto_map" in refused(look)


def test_no_directory(adapter: pathlib.Path, look: Look) -> None:
    adapter.rename(adapter.with_name("elsewhere"))
    assert f"adapter: {adapter} does not exist" in refused(look)


def test_an_empty_directory(adapter: pathlib.Path, look: Look) -> None:
    for path in adapter.iterdir():
        path.unlink()
    assert f"adapter: {adapter} is empty" in refused(look)


def test_a_file_in_place_of_the_directory(adapter: pathlib.Path, look: Look) -> None:
    adapter.rename(adapter.with_name("elsewhere"))
    adapter.write_text("")
    assert f"{adapter} cannot be listed: Not a directory" in refused(look)


def test_no_config(adapter: pathlib.Path, look: Look) -> None:
    (adapter / CONFIG).unlink()
    assert f"{adapter} has no {CONFIG}" in refused(look)


def test_no_weights(adapter: pathlib.Path, look: Look) -> None:
    (adapter / WEIGHTS).unlink()
    assert f"{adapter} has no {WEIGHTS}" in refused(look)


def test_weights_in_both_forms(adapter: pathlib.Path, look: Look) -> None:
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps({}))
    assert f"has both {WEIGHTS} and adapter_model.bin" in refused(look)
    assert f"has both {WEIGHTS} and adapter_model.bin" in refused(look, allow_pickle=True)


def test_a_pickle_is_refused_unless_it_is_allowed(adapter: pathlib.Path, look: Look) -> None:
    (adapter / WEIGHTS).rename(adapter / "adapter_model.bin")
    assert "a pickle, which can carry code" in refused(look)
    found = look(allow_pickle=True).manifest
    assert found.weights_file == "adapter_model.bin"
    assert found.tensors == ()


class Bomb:
    def __reduce__(self) -> tuple[t.Any, ...]:
        return os.mkdir, ("opened",)


def test_a_pickle_is_never_opened(adapter: pathlib.Path, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(adapter.parent)
    (adapter / WEIGHTS).unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))
    look(allow_pickle=True)
    assert not (adapter.parent / "opened").exists()


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "tokenizer.json"])
def test_a_link_is_refused(adapter: pathlib.Path, look: Look, name: str) -> None:
    (adapter / name).rename(adapter.parent / name)
    (adapter / name).symlink_to(adapter.parent / name)
    assert f"{adapter}/{name} is a symbolic link" in refused(look)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "tokenizer.json"])
def test_a_fifo_is_refused(adapter: pathlib.Path, look: Look, name: str) -> None:
    (adapter / name).unlink()
    os.mkfifo(adapter / name)
    assert f"{adapter}/{name} is not a plain file" in refused(look)


def test_the_directory_itself_may_be_a_link(adapter: pathlib.Path, look: Look) -> None:
    expected = look(remember=False).manifest
    adapter.rename(adapter.with_name("elsewhere"))
    adapter.symlink_to("elsewhere")
    assert look().manifest == expected


def test_another_rank_names_both(look: Look) -> None:
    message = refused(look, rank=32)
    assert "is 16" in message
    assert "declares rank 32" in message


def test_another_alpha_names_both(look: Look) -> None:
    message = refused(look, alpha=64.0)
    assert "is 32" in message
    assert "declares alpha 64" in message


def test_another_base_names_both(look: Look) -> None:
    message = refused(look, base="meta-llama/Llama-3.2-3B-Instruct")
    assert tiny_adapters.BASE_NAME in message
    assert "meta-llama/Llama-3.2-3B-Instruct" in message


def test_other_targets_name_both(look: Look) -> None:
    message = refused(look, target_modules=["q_proj", "v_proj"])
    assert "q_proj, v_proj" in message
    assert "down_proj" in message


def test_all_that_is_wrong_is_said_at_once(look: Look) -> None:
    message = refused(look, rank=32, alpha=64.0)
    assert "declares rank 32" in message
    assert "declares alpha 64" in message


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-1], "is truncated by 1 byte"),
        (lambda data: data + b"\0", "is too long by 1 byte"),
        (lambda data: b"", "is empty"),
        (lambda data: b"\0" * len(data), "is filled with zeros"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (lambda data: data[:-4] + b"\x00\x00\xc0\x7f", "has NaN or infinite values"),
    ],
)
def test_damaged_weights(adapter: pathlib.Path, look: Look, damage: t.Callable[[bytes], bytes], said: str) -> None:
    (adapter / WEIGHTS).write_bytes(damage((adapter / WEIGHTS).read_bytes()))
    assert said in refused(look)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"r": 16, "r": 32}', "\ufeff{}"])
def test_a_damaged_config(adapter: pathlib.Path, look: Look, text: str) -> None:
    (adapter / CONFIG).write_text(text, encoding="utf-8")
    assert f"{adapter}/{CONFIG}" in refused(look)


def test_a_refused_adapter_leaves_no_cache_entry(adapter: pathlib.Path, look: Look, cache: pathlib.Path) -> None:
    let_time_pass(adapter)
    refused(look, rank=32)
    assert not cache.exists()


def test_nothing_is_read_again_while_nothing_changes(adapter: pathlib.Path, look: Look, cache: pathlib.Path) -> None:
    let_time_pass(adapter)
    first = look()
    again = look()
    assert (first.cached, again.cached) == (False, True)
    assert again.manifest == first.manifest
    assert cache.stat().st_mode & 0o777 == 0o600
    assert cache.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(cache.parent)) == [cache.name, f"{cache.name}.lock"]


def test_what_is_cached_is_still_compared_with_the_inventory(adapter: pathlib.Path, look: Look) -> None:
    let_time_pass(adapter)
    look()
    assert "declares rank 32" in refused(look, rank=32)
    assert "declares alpha 64" in refused(look, alpha=64.0)
    assert "mixes" not in refused(look, target_modules=["q_proj"])


def test_what_stays_behind_does_not_touch_the_cache(adapter: pathlib.Path, look: Look) -> None:
    let_time_pass(adapter)
    look()
    (adapter / "README.md").write_text("card")
    found = look()
    assert found.cached
    assert found.left_behind == ["README.md"]


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "tokenizer.json"])
def test_other_bytes_of_the_same_size_and_time_are_seen(adapter: pathlib.Path, look: Look, name: str) -> None:
    let_time_pass(adapter)
    before = look()
    status = (adapter / name).stat()
    data = bytearray((adapter / name).read_bytes())
    if name == CONFIG:
        data = data.replace(b'"lora_dropout": 0.0', b'"lora_dropout": 0.1')
    else:
        data[-1] ^= 1
    with open(adapter / name, "r+b") as stream:
        stream.write(data)
    os.utime(adapter / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = (adapter / name).stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (status.st_ino, status.st_size, status.st_mtime_ns)
    found = look()
    assert not found.cached
    assert found.manifest.digest != before.manifest.digest
    assert {entry.path: entry.sha256 for entry in found.manifest.files}[name] == hashlib.sha256(data).hexdigest()


def test_a_file_more_or_less_is_seen(adapter: pathlib.Path, look: Look) -> None:
    let_time_pass(adapter)
    look()
    (adapter / "special_tokens_map.json").write_text("{}")
    let_time_pass(adapter)
    more = look()
    assert not more.cached
    (adapter / "special_tokens_map.json").unlink()
    less = look()
    assert not less.cached
    assert len(less.manifest.files) == len(more.manifest.files) - 1


def test_a_file_that_changed_a_moment_ago_is_read_again(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    # A second write within the same tick of the file system's clock would leave size and times as they are.
    monkeypatch.setattr(describing, "_CLOCK_TICK_NS", 3600 * 10**9)
    assert not look().cached
    assert not look().cached


def test_without_remember_nothing_is_written(adapter: pathlib.Path, look: Look, cache: pathlib.Path) -> None:
    let_time_pass(adapter)
    look(remember=False)
    assert not cache.parent.exists()
    look()
    assert look(remember=False).cached


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "null",
        lambda text: "[]",
        lambda text: '"text"',
        lambda text: "7",
        lambda text: "{}",
        lambda text: text.replace('"schema": 2', '"schema": 1'),
        lambda text: text.replace('"sha256"', '"sha"'),
        lambda text: text.replace('"files"', '"file"'),
        lambda text: json.dumps({**json.loads(text), "files": 7}),
        lambda text: json.dumps({**json.loads(text), "files": [7]}),
        lambda text: json.dumps({**json.loads(text), "tensors": [7]}),
        lambda text: json.dumps({**json.loads(text), "tensors": {"shape": 7}}),
    ],
)
def test_a_damaged_cache_entry_is_made_anew(
    adapter: pathlib.Path, look: Look, cache: pathlib.Path, damage: t.Callable[[str], str]
) -> None:
    let_time_pass(adapter)
    expected = look()
    text = cache.read_text(encoding="utf-8")
    cache.write_text(damage(text), encoding="utf-8")
    found = look()
    assert not found.cached
    assert found.manifest == expected.manifest
    assert look().cached


def test_a_cache_that_cannot_be_written_costs_time_alone(adapter: pathlib.Path, look: Look, cache: pathlib.Path) -> None:
    let_time_pass(adapter)
    cache.parent.write_text("a file where its directory should be")
    expected = look()
    assert look() == expected
    assert not expected.cached


ASK = """\
import json, sys
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declared import Declared
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import describe
directory, cache, row, base = sys.argv[1:]
print(describe(directory, Declared.from_row(json.loads(row), json.loads(base)), {}, cache).cached)
"""


def test_of_two_nodes_that_ask_at_once_the_second_waits_for_the_first(
    adapter: pathlib.Path, look: Look, cache: pathlib.Path, declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_time_pass(adapter)
    declared = declare()
    row = {
        "name": declared.name,
        "base": declared.base,
        "rank": declared.rank,
        "alpha": declared.alpha,
        **dict.fromkeys(["target_modules", "peft_config", "extra_files", "allow_pickle"]),
    }
    command = [sys.executable, "-c", ASK, str(adapter), str(cache), json.dumps(row), json.dumps({})]
    second: list[subprocess.Popen[str]] = []

    def ask_too() -> None:
        second.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        inode = cache.with_name(f"{cache.name}.lock").stat().st_ino
        deadline = time.monotonic() + 60
        while not any("->" in line and f":{inode} " in line for line in pathlib.Path("/proc/locks").read_text().splitlines()):
            assert second[0].poll() is None, "the second did not wait"
            assert time.monotonic() < deadline

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    changed_while_read(monkeypatch, ask_too)
    assert not look().cached
    assert second[0].communicate(timeout=60)[0] == "True\n"


def changed_while_read(monkeypatch: pytest.MonkeyPatch, change: t.Callable[[], t.Any]) -> None:
    """Have something happen after the bytes of the small files were read."""
    read = describing.sha256_of_all

    def read_then_change(paths: t.Sequence[str]) -> list[tuple[int, str]]:
        found = read(paths)
        change()
        return found

    monkeypatch.setattr(describing, "sha256_of_all", read_then_change)


@pytest.mark.parametrize("name", ALWAYS)
def test_a_change_while_it_is_read_is_refused(
    adapter: pathlib.Path, look: Look, cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    let_time_pass(adapter)
    changed_while_read(monkeypatch, (adapter / name).touch)
    assert f"changed while it was read: {adapter} is still being written" in refused(look)
    assert not cache.exists()


def test_a_file_that_vanishes_while_it_is_read_is_refused(
    adapter: pathlib.Path, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_while_read(monkeypatch, (adapter / "tokenizer.json").unlink)
    assert "changed while it was read" in refused(look)


def test_a_file_that_vanishes_before_it_is_read_is_refused(
    adapter: pathlib.Path, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_directory = os.listdir

    def list_then_remove(path: str) -> list[str]:
        names = list_directory(path)
        (adapter / "tokenizer.json").unlink()
        return names

    monkeypatch.setattr(os, "listdir", list_then_remove)
    assert "changed while it was read" in refused(look)


def test_many_at_once_agree(tiny: pathlib.Path, declare: Declare, tmp_path: pathlib.Path) -> None:
    def one(number: int) -> str:
        return describe(str(tiny / "adapter"), declare(), {}, str(tmp_path / str(number) / "entry.json")).manifest.digest

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(one, range(8)))) == 1
