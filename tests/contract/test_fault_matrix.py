# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fault matrix: each fault of an adapter, the lowest level that finds it, and its message.

Every fault is made from an adapter that PEFT saved. PEFT itself accepts most of them silently.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import typing as t

import numpy as np
import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.launch import WorkerRun, run_worker
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import Target
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.compare import differences

from tests.support import tiny_adapters
from tests.support.damage import (
    DOWN1_A,
    DOWN1_B,
    EMBED,
    LAYER,
    Q0_A,
    Q0_B,
    Damage,
    add,
    cast,
    change_tensors,
    drop,
    put,
    rename,
    reshape,
    rewrite,
    scale,
    zero,
)

# One process loads all adapters.
pytestmark = pytest.mark.xdist_group("fault_matrix")

Declare = t.Callable[..., Declaration]
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault: its changes to an adapter, and words of level structure's message."""

    words: tuple[str, ...] = ()
    tensors: Damage | None = None
    config: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    files: t.Callable[[pathlib.Path], t.Any] = lambda adapter: None
    # Where the inventory (or the base) differs from that of the plain adapter.
    declared: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    # Whether level structure finds it without knowing the base. Otherwise level adapter must find
    # it.
    without_base: bool = True

    def apply(self, adapter: pathlib.Path) -> None:
        """Apply the fault to an adapter directory."""
        if self.tensors is not None:
            change_tensors(adapter, self.tensors)
        if self.config:
            config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
            (adapter / CONFIG).write_text(json.dumps({**config, **self.config}), encoding="utf-8")
        self.files(adapter)

    def base_of(self, base_config: dict[str, t.Any]) -> dict[str, t.Any]:
        return {**base_config, **self.declared.get("base", {})}


_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


def add_token(adapter: pathlib.Path) -> None:
    for name, key, value in (
        (
            "tokenizer.json",
            "added_tokens",
            [{"id": 512, "content": "<|im_end|>", "special": True, **dict.fromkeys(_FLAGS, False)}],
        ),
        ("tokenizer_config.json", "eos_token", "<|im_end|>"),
    ):
        settings = json.loads((adapter / name).read_text(encoding="utf-8"))
        settings[key] = value if isinstance(value, str) else settings[key] + value
        (adapter / name).write_text(json.dumps(settings), encoding="utf-8")


def base(**changes: t.Any) -> dict[str, t.Any]:
    return {"base": changes}


def content(name: str, change: t.Callable[[bytes], bytes]) -> t.Callable[[pathlib.Path], t.Any]:
    return lambda adapter: (adapter / name).write_bytes(change((adapter / name).read_bytes()))


def as_dtype(dtype: str) -> t.Callable[[pathlib.Path], None]:
    """Declare one-byte values in the header as a dtype that numpy does not have."""

    def change(tensors: dict[str, t.Any]) -> None:
        tensors.update({name: (dtype, shape, raw) for name, (_old, shape, raw) in tensors.items()})

    return lambda adapter: rewrite(adapter / WEIGHTS, change)


def elsewhere(adapter: pathlib.Path) -> None:
    (adapter / WEIGHTS).rename(adapter.parent / "elsewhere")
    (adapter / WEIGHTS).symlink_to(adapter.parent / "elsewhere")


# By the names in the matrix below. Level structure finds all of these.
FAULTS: dict[str, Fault] = {
    # Missing tensors
    "one lora_B missing": Fault(("lacks 1 of 28 tensors", Q0_B), drop(Q0_B)),
    "one lora_A missing": Fault(("lacks 1 of 28 tensors", Q0_A), drop(Q0_A)),
    "a module missing": Fault(("lacks 2 of 28 tensors", DOWN1_A, DOWN1_B), drop("1.mlp.down_proj"), without_base=False),
    "a layer missing": Fault(("lacks 14 of 28 tensors", "and 11 more"), drop("layers.1."), without_base=False),
    "only q and v": Fault(
        ("lacks 20 of 28", "k_proj.lora_A"), drop("k_proj", "o_proj", "gate", "up_", "down"), without_base=False
    ),
    "no tensors at all": Fault(("lacks 28 of 28",), dict.clear, without_base=False),
    "other prefix": Fault(("28 tensors that PEFT would ignore", "do not begin with"), rename("base_model.model.", "m.")),
    "adapter's name in the keys": Fault(
        ("28 tensors that PEFT would ignore", "name of the adapter"), rename(".weight", ".default.weight")
    ),
    "compiled": Fault(
        ("28 tensors that PEFT would ignore", "torch.compile"), rename("base_model.model.", "_orig_mod.base_model.model.")
    ),
    "distributed": Fault(
        ("28 tensors that PEFT would ignore", "DistributedDataParallel"), rename("base_model.", "module.base_model.")
    ),
    "multimodal class": Fault(
        ("28 tensors that PEFT would ignore", "begin with base_model.model.model.language_model, ", "the multimodal class"),
        rename("model.model.layers", "model.model.language_model.layers"),
        without_base=False,
    ),
    "class without a head": Fault(
        (
            "28 tensors that PEFT would ignore",
            "begin with base_model.model, those of its base with base_model.model.model.",
            "without its head",
        ),
        rename("model.model.layers", "model.layers"),
        without_base=False,
    ),
    # Extra tensors
    "a layer too many": Fault(
        ("has 1 tensor that", "silently ignore", "layers.2.self_attn"), add(Q0_A.replace("s.0.", "s.2.")), without_base=False
    ),
    "enlarged vocabulary": Fault(
        ("would overwrite weights of the base", EMBED, "enlarged the vocabulary from 512 to 513 tokens"),
        add(EMBED, (513, 64)),
        without_base=False,
    ),
    "a norm of the base": Fault(
        ("would overwrite weights of the base", "model.norm.weight"), add("base_model.model.model.norm.weight", (64,))
    ),
    "a base layer": Fault(
        ("would overwrite weights of the base", "q_proj.base_layer.weight"),
        add(LAYER.format(0) + "self_attn.q_proj.base_layer.weight", (64, 64)),
    ),
    "a plain weight of the base": Fault(
        ("would overwrite weights of the base", "q_proj.weight"), add(LAYER.format(0) + "self_attn.q_proj.weight", (64, 64))
    ),
    "empty name": Fault(("silently ignore", '""'), add("")),
    "name with a line break": Fault(("silently ignore", r'"../x\n"'), add("../x\n")),
    "long name": Fault(("silently ignore", "xxx..."), add("x" * 512)),
    "name beyond the bound": Fault(("xxx...", "at most 512 characters and 40 dots are accepted."), add("x" * 9999)),
    "config omits a target": Fault(
        ("4 tensors", "silently ignore", "v_proj.lora_A"),
        config={"target_modules": [name for name in tiny_adapters.ALL_LINEAR if name != "v_proj"]},
    ),
    "config leaves layers out": Fault(
        ("layers_to_transform in", "14 tensors", "silently ignore"), config={"layers_to_transform": [0]}
    ),
    "config excludes a module": Fault(
        ("exclude_modules in", "4 tensors", "silently ignore"), config={"exclude_modules": ["k_proj"]}
    ),
    "base with fewer layers": Fault(
        ("14 tensors", "silently ignore", "layers.1."), declared=base(num_hidden_layers=1), without_base=False
    ),
    # Targets
    "no targets": Fault(("20 tensors", "silently ignore"), config={"target_modules": None}, without_base=False),
    "targets as a text": Fault(
        ("target_modules in", "as a regular expression, it matches the whole name of no module of the base"),
        config={"target_modules": "q_proj, v_proj"},
        without_base=False,
    ),
    "targets as an invalid pattern": Fault(("is not a valid regular expression",), config={"target_modules": "*.q_proj"}),
    "targets as a pattern of less": Fault(
        ("24 tensors", "silently ignore"), config={"target_modules": ".*q_proj"}, without_base=False
    ),
    "targets wholly unknown": Fault(("28 tensors", "silently ignore"), config={"target_modules": ["c_attn"]}),
    "targets other than declared": Fault(
        ("target_modules in", "the inventory declares q_proj, v_proj"), declared={"target_modules": ["q_proj", "v_proj"]}
    ),
    # Shapes
    "other shape": Fault((f"{Q0_A} is [8, 64], expected [16, 64]",), reshape(Q0_A, (8, 64))),
    "transposed": Fault((f"{DOWN1_A} is [128, 16], expected [16, ",), reshape(DOWN1_A, (128, 16))),
    "1-D": Fault(("has 1 tensor without a complete matrix", f'"{Q0_A}" is [16]', "ZeRO-3"), reshape(Q0_A, (16,))),
    "all transposed": Fault(
        ("28 tensors with a wrong shape", "All are transposed"),
        lambda tensors: tensors.update({name: np.ascontiguousarray(tensor.T) for name, tensor in tensors.items()}),
        without_base=False,
    ),
    "0-size": Fault(("has 1 tensor without a complete matrix", Q0_B, "ZeRO-3"), reshape(Q0_B, (0, 16))),
    "r halved": Fault(
        ("r in adapter_config.json: is 8; the inventory declares rank 16", "28 tensors with a wrong shape", "expected [8, "),
        config={"r": 8},
    ),
    "r halved and declared": Fault(("28 tensors with a wrong shape",), config={"r": 8}, declared={"rank": 8}),
    "rank_pattern": Fault(
        ("4 tensors with a wrong shape", "is [16, 64], expected [8, 64]"),
        config={"rank_pattern": {"q_proj": 8}},
        declared={"peft_config": {"rank_pattern": {"q_proj": 8}}},
    ),
    "base with other hidden size": Fault(
        ("tensors with a wrong shape", "expected [16, 96]"), declared=base(hidden_size=96, head_dim=16), without_base=False
    ),
    "base with other inner size": Fault(
        ("6 tensors with a wrong shape",), declared=base(intermediate_size=256), without_base=False
    ),
    "base with more layers": Fault(("lacks 14 of 42",), declared=base(num_hidden_layers=3), without_base=False),
    "base without a type": Fault(
        ("base of adapter adapter: has model_type null",), declared=base(model_type=None), without_base=False
    ),
    # Scaling and kind, which the tensors do not show
    "alpha doubled": Fault(("lora_alpha in adapter_config.json: is 64; ",), config={"lora_alpha": 64}),
    "alpha 0": Fault(("lora_alpha in", "is 0"), config={"lora_alpha": 0}),
    "rsLoRA": Fault(("use_rslora in", "is true"), config={"use_rslora": True}),
    "alpha_pattern": Fault(("alpha_pattern in", '{"q_proj": 64}'), config={"alpha_pattern": {"q_proj": 64}}),
    "bias": Fault(
        ("would overwrite weights of the base", 'bias="none"'), add(LAYER.format(0) + "mlp.up_proj.bias", (128,)), {"bias": "all"}
    ),
    "lora_bias": Fault(("lora_bias in", "is true"), config={"lora_bias": True}),
    "DoRA": Fault(("use_dora in", "lacks 14 of 42", "lora_magnitude_vector"), config={"use_dora": True}),
    "modules_to_save": Fault(("modules_to_save in", "lm_head"), config={"modules_to_save": ["lm_head"]}),
    "modules_to_save, declared": Fault(
        ("base_model.model.lm_head.weight",),
        config={"modules_to_save": ["lm_head"]},
        declared={"peft_config": {"modules_to_save": ["lm_head"]}},
        without_base=False,
    ),
    "trainable tokens": Fault(("trainable_token_indices in",), config={"trainable_token_indices": [1]}),
    "tokens beyond the vocabulary": Fault(
        ("alora_invocation_tokens in", "has id 512, beyond the vocabulary of the base, which has 512"),
        config={"alora_invocation_tokens": [7, 512]},
        declared={"peft_config": {"alora_invocation_tokens": [7, 512]}},
        without_base=False,
    ),
    "embeddings of a larger vocabulary": Fault(
        ("1 tensor with a wrong shape", "enlarged the vocabulary from 512 to 513 tokens"),
        add(EMBED, (513, 64)),
        config={"modules_to_save": ["embed_tokens"]},
        declared={"peft_config": {"modules_to_save": ["embed_tokens"]}},
        without_base=False,
    ),
    **{
        f"begins as {value}": Fault(("init_lora_weights in", value), config={"init_lora_weights": value})
        for value in ("pissa", "pissa_niter_4", "olora", "loftq", "lora_ga", "corda", "bogus")
    },
    "other base": Fault(("base_model_name_or_path in", "other/base"), config={"base_model_name_or_path": "other/base"}),
    "other method": Fault(("peft_type in", "is LoHa, not LoRA"), config={"peft_type": "LOHA"}),
    "AdaLoRA": Fault(("the adapter is AdaLoRA, not LoRA",), config={"peft_type": "ADALORA", "target_r": 8}),
    "other task": Fault(("task_type in", "SEQ_CLS"), config={"task_type": "SEQ_CLS"}),
    "r as text": Fault(("r in", '"16"'), config={"r": "16"}),
    # Values
    "NaN": Fault(("NaN or infinite values in 1 of 28", DOWN1_B), put(DOWN1_B, np.nan)),
    "Inf": Fault(("NaN or infinite values in 1 of 28", Q0_A), put(Q0_A, -np.inf)),
    "NaN beside a damaged config": Fault(("NaN or infinite values in 1 of 28", "r in"), put(Q0_A, np.nan), {"r": None}),
    "untrained": Fault(("has no effect", "all zeros"), zero("lora_B")),
    "all lora_A zero": Fault(("has no effect", "all zeros"), zero("lora_A")),
    "one lora_A zero": Fault(("has only zeros in lora_A of 1 LoRA layer", "model.layers.1.mlp.down_proj"), zero(DOWN1_A)),
    # Dtypes
    "I8": Fault(("28 tensors with an unsupported dtype", "is I8", "without quantization"), cast("int8")),
    "NaN in F8": Fault(
        ("NaN or infinite values in 28 of 28",),
        lambda tensors: tensors.update({name: np.full(tensors[name].shape, 0x7F, np.int8) for name in tensors}),
        files=as_dtype("F8_E4M3"),
    ),
    # The whole file
    "a byte less": Fault(
        ("is truncated by 1 byte: its header describes 134616 bytes, it has 134615",),
        files=content(WEIGHTS, lambda data: data[:-1]),
    ),
    "half the file": Fault(("is truncated by 67308 bytes",), files=content(WEIGHTS, lambda data: data[: len(data) // 2])),
    "empty file": Fault(("is empty; expected a safetensors file",), files=content(WEIGHTS, lambda data: b"")),
    "zeros alone": Fault(
        ("is filled with zeros where its header should be",), files=content(WEIGHTS, lambda data: bytes(len(data)))
    ),
    "half of the data zero": Fault(
        ("has only zeros from the middle of tensor",),
        files=content(WEIGHTS, lambda data: data[: len(data) // 2] + bytes(len(data) // 2)),
    ),
    "a byte more": Fault(("is too long by 1 byte",), files=content(WEIGHTS, lambda data: data + b"x")),
    "cut header": Fault(("is truncated within its header",), files=content(WEIGHTS, lambda data: data[:100])),
    "weights missing": Fault((f"has no {WEIGHTS}",), files=lambda adapter: (adapter / WEIGHTS).unlink()),
    "weights a link": Fault((f"{WEIGHTS} is a symbolic link", "cp -rL"), files=elsewhere),
    "pickle": Fault(
        ("a pickle, which can carry code",), files=lambda adapter: (adapter / WEIGHTS).rename(adapter / "adapter_model.bin")
    ),
    "tokenizer cut": Fault(("tokenizer.json: is not valid JSON",), files=content("tokenizer.json", lambda data: data[:-9])),
    "added tokens": Fault(
        ("tokenizer.json: has 1 token beyond the vocabulary of the model, which has 512",), files=add_token, without_base=False
    ),
    "config cut": Fault((f"{CONFIG}: is not valid JSON",), files=content(CONFIG, lambda data: data[:-9])),
    "config with a mark": Fault(
        (f"{CONFIG}: begins with a byte order mark",), files=content(CONFIG, lambda data: b"\xef\xbb\xbf" + data)
    ),
    "config a list": Fault((f"{CONFIG}: is a JSON list; expected an object",), files=content(CONFIG, lambda data: b"[]")),
    "config empty": Fault(
        ("peft_type in adapter_config.json: is missing", "r in adapter_config.json: is missing"),
        files=content(CONFIG, lambda data: b"{}"),
    ),
    "alpha NaN": Fault(
        ("has the value NaN, which is not valid JSON",),
        files=content(CONFIG, lambda data: data.replace(b'"lora_alpha": 32', b'"lora_alpha": NaN')),
    ),
    "method missing": Fault(("peft_type in adapter_config.json: is null; expected",), config={"peft_type": None}),
    "method in lower case": Fault(("peft_type in", '"lora"'), config={"peft_type": "lora"}),
    "r 0": Fault(("r in", "is 0; expected a rank of at least 1"), config={"r": 0}),
    "r null": Fault(("r in", "is null; expected a rank of at least 1"), config={"r": None}),
    "bogus task": Fault(("task_type in", '"BOGUS"; expected "CAUSAL_LM" or null'), config={"task_type": "BOGUS"}),
    "Megatron's modules": Fault(("megatron_config in", "import Python modules"), config={"megatron_config": {"a": 1}}),
    "a library of its own": Fault(
        ("auto_mapping in", "import Python modules"), config={"auto_mapping": {"parent_library": "os"}}
    ),
    "PEFT is to look away": Fault(
        ("28 tensors with a wrong shape",),
        config={"ignore_mismatched_sizes": True, "r": 8},
    ),
}


class Row(t.NamedTuple):
    """A row of the matrix: PEFT 0.21's reaction to a fault, and the lowest level that finds it.

    PEFT is silent (S), warns (W) or raises (E). The faults of level golden are in BLIND.
    """

    fault: str
    peft: str
    level: str
    names: tuple[str, ...] = ()


# The levels in their order; the digest is compared before all of them.
LEVELS = ("digest", "structure", "adapter", "model", "golden")
MATRIX = [
    Row(
        "a tensor or a module missing",
        "W",
        "structure",
        ("one lora_B missing", "one lora_A missing", "a module missing", "a layer missing", "no tensors at all"),
    ),
    Row(
        "keys with another prefix",
        "W",
        "structure",
        (
            "other prefix",
            "adapter's name in the keys",
            "compiled",
            "distributed",
            "multimodal class",
            "class without a head",
        ),
    ),
    Row(
        "a key for a layer that does not exist",
        "S",
        "structure",
        ("a layer too many", "empty name", "name with a line break", "long name", "name beyond the bound"),
    ),
    Row(
        "a key that is no LoRA tensor and overwrites the base",
        "S",
        "structure",
        ("enlarged vocabulary", "a norm of the base", "a base layer", "a plain weight of the base"),
    ),
    Row("embeddings of the base, with other values", "S", "model", ("embeddings of another base",)),
    Row(
        "another shape, a 1-D tensor, a tensor of size 0",
        "E",
        "structure",
        ("other shape", "transposed", "all transposed", "1-D", "0-size"),
    ),
    Row("r or rank_pattern other than the tensors", "E", "structure", ("r halved", "r halved and declared", "rank_pattern")),
    Row("the same with ignore_mismatched_sizes", "W", "structure", ("PEFT is to look away",)),
    Row(
        "alpha, use_rslora, alpha_pattern other than declared",
        "S",
        "structure",
        ("alpha doubled", "alpha 0", "rsLoRA", "alpha_pattern"),
    ),
    Row(
        "alpha, use_rslora as declared, but other than trained", "S", "golden", ("alpha doubled and declared", "rsLoRA, declared")
    ),
    Row("alpha NaN", "S", "structure", ("alpha NaN",)),
    Row(
        "the configuration leaves out modules that the tensors have",
        "S",
        "structure",
        (
            "config omits a target",
            "config leaves layers out",
            "config excludes a module",
            "no targets",
            "targets other than declared",
        ),
    ),
    Row("tensors of q and v alone, the configuration names all", "W", "structure", ("only q and v",)),
    Row(
        "target_modules match nothing, other modules, or are no valid pattern",
        "E/S",
        "structure",
        ("targets wholly unknown", "targets as a pattern of less", "targets as an invalid pattern", "targets as a text"),
    ),
    Row("DoRA or lora_bias without tensors", "W", "structure", ("DoRA", "lora_bias")),
    Row("trained biases of the base", "S", "structure", ("bias",)),
    Row(
        "modules_to_save, trainable tokens without tensors",
        "E",
        "structure",
        ("modules_to_save", "modules_to_save, declared", "trainable tokens"),
    ),
    Row(
        "more tokens than the base has",
        "E",
        "structure",
        ("tokens beyond the vocabulary", "embeddings of a larger vocabulary"),
    ),
    Row("NaN or infinite values", "S", "structure", ("NaN", "Inf", "NaN in F8", "NaN beside a damaged config")),
    Row("finite values with which the model returns NaN", "S", "model", ("weights blown up",)),
    Row("all of lora_B zero: never trained", "S", "structure", ("untrained", "all lora_A zero", "one lora_A zero")),
    Row("values too small to change any answer", "S", "model", ("weights shrunk",)),
    Row("dtype I8", "S", "structure", ("I8",)),
    Row(
        "file truncated, empty, of zeros, with a tail, without its header",
        "E",
        "structure",
        ("a byte less", "half the file", "empty file", "zeros alone", "a byte more", "cut header"),
    ),
    Row("zeros from the middle of a tensor to the end", "S", "structure", ("half of the data zero",)),
    Row("a bit flipped, or the last tensors zero", "S", "digest", ("bit flip", "last tensors zero")),
    Row("another base of the same shapes", "S", "golden", ("base of other weights",)),
    Row(
        "another base of other sizes",
        "E",
        "structure",
        ("base with other hidden size", "base with other inner size", "base without a type"),
    ),
    Row("another base with more or fewer layers", "W/S", "structure", ("base with more layers", "base with fewer layers")),
    Row("base_model_name_or_path other", "S", "structure", ("other base",)),
    Row("a base that is damaged itself", "S/E", "model", ("base lacks a weight", "base of NaN")),
    Row(
        "init_lora_weights pissa, olora: rewrites the base",
        "S",
        "structure",
        ("begins as pissa", "begins as pissa_niter_4", "begins as olora"),
    ),
    Row(
        "init_lora_weights loftq, lora_ga, corda, bogus",
        "E/S",
        "structure",
        ("begins as loftq", "begins as lora_ga", "begins as corda", "begins as bogus"),
    ),
    Row(
        "peft_type missing, unknown, in lower case",
        "E/W",
        "structure",
        ("method missing", "method in lower case", "other method", "AdaLoRA"),
    ),
    Row("task_type SEQ_CLS, bogus", "S/E", "structure", ("other task", "bogus task")),
    Row("r a text, 0, null", "E", "structure", ("r as text", "r 0", "r null")),
    Row(
        "configuration truncated, with a byte order mark, a list, {}",
        "E",
        "structure",
        ("config cut", "config with a mark", "config a list", "config empty"),
    ),
    Row("a tokenizer that is not JSON, or has tokens that the model lacks", "S", "structure", ("tokenizer cut", "added tokens")),
    Row("weights file missing: PEFT asks the Hub", "E", "structure", ("weights missing",)),
    Row("weights a link, or a pickle", "S", "structure", ("weights a link", "pickle")),
    Row("keys that import Python modules", "S", "structure", ("Megatron's modules", "a library of its own")),
]
BY_STRUCTURE = [name for row in MATRIX if row.level == "structure" for name in row.names]
BY_DIGEST = {
    "bit flip": lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
    # Those of the last module, as a whole.
    "last tensors zero": lambda data: data[:-6144] + bytes(6144),
}
# What passes level structure without a base: words of level adapter's failure.
BY_ADAPTER = {
    "added tokens": "eos_token '<|im_end|>' has id 512, beyond the vocabulary",
    "a module missing": f"the weights file lacks {DOWN1_A}, {DOWN1_B}.",
    "a layer missing": "and 11 more.",
    "only q and v": "and 17 more.",
    "no tensors at all": "holds no tensors",
    "multimodal class": "the multimodal class of its base",
    "class without a head": "without its head (AutoModel)",
    "all transposed": "PEFT expects [16, 64]",
    "enlarged vocabulary": "has base_model.model.model.embed_tokens.weight, which PEFT does not make",
    "targets as a pattern of less": "which PEFT does not make for such an adapter",
    "targets as a text": "PEFT cannot add its layers to this base",
    "no targets": "which PEFT does not make for such an adapter",
    "tokens beyond the vocabulary": "its alora_invocation_tokens has id 512, beyond the vocabulary of the base, which has 512",
    "embeddings of a larger vocabulary": f"tensor {EMBED} has shape [513, 64], PEFT expects [512, 64]",
    "a layer too many": "layers.2.self_attn.q_proj.lora_A.weight, which PEFT does not make for such an adapter",
    "base with fewer layers": "layers.1.",
    "base with other hidden size": "has shape [16, 64], PEFT expects [16, 96]",
    "base with other inner size": "has shape [128, 16], PEFT expects [256, 16]",
    "base with more layers": "the weights file lacks base_model.model.model.layers.2.",
    "base without a type": "of its base has no model_type",
    "modules_to_save, declared": "the weights file lacks base_model.model.lm_head.weight.",
}
# What passes level adapter: the fault, and words of level model's failure.
BY_MODEL = {
    "weights blown up": (Fault(tensors=scale("lora_B", 1e30)), "the model returns NaN or infinity with this adapter"),
    "weights shrunk": (Fault(tensors=scale("lora_B", 1e-20)), "does not change the model's answer at all"),
    "embeddings of another base": (
        Fault(tensors=add(EMBED, (512, 64))),
        f"has embeddings other than this base's, which PEFT would overwrite with them: {EMBED}",
    ),
    "base lacks a weight": (Fault(), "lacks model.norm.weight."),
    "base of NaN": (Fault(), "returns NaN or infinity"),
}
# Found by level golden only: adapter, base and declaration are consistent.
BLIND = {
    "alpha doubled and declared": Fault(config={"lora_alpha": 64}, declared={"alpha": 64.0}),
    "rsLoRA, declared": Fault(config={"use_rslora": True}, declared={"peft_config": {"use_rslora": True}}),
    "base of other weights": Fault(),
}


def test_matrix_rows_and_faults_match() -> None:
    tested = {*FAULTS, *BY_DIGEST, *BY_MODEL, *BLIND}
    named = [name for row in MATRIX for name in row.names]
    assert sorted(named) == sorted(tested)
    assert set(BY_ADAPTER) == {name for name, fault in FAULTS.items() if not fault.without_base}
    for level, names in (("digest", BY_DIGEST), ("model", BY_MODEL), ("golden", BLIND)):
        assert {name for row in MATRIX if row.level == level for name in row.names} == set(names)
    assert {row.level for row in MATRIX} <= set(LEVELS)


def message_of(adapter: pathlib.Path, declared: Declaration, cache: pathlib.Path) -> str:
    """Return level structure's message about an adapter directory, empty if it passes."""
    try:
        describe(str(adapter), declared, {}, str(cache / "entry.json"))
    except DeliveryError as exc:
        assert all(problem.remedy and len(str(problem)) < 1000 for problem in exc.problems)
        return str(exc)
    return ""


@pytest.mark.parametrize("base_known", [True, False], ids=["base known", "base unknown"])
@pytest.mark.parametrize("name", BY_STRUCTURE)
def test_level_structure_names_fault(
    adapter: pathlib.Path, tmp_path: pathlib.Path, base_config: dict[str, t.Any], declare: Declare, name: str, base_known: bool
) -> None:
    fault = FAULTS[name]
    fault.apply(adapter)
    row = {key: value for key, value in fault.declared.items() if key != "base"}
    message = message_of(adapter, declare(**{"base_config": fault.base_of(base_config) if base_known else None, **row}), tmp_path)
    if base_known or fault.without_base:
        for words in fault.words:
            assert words in message


@pytest.mark.parametrize("name", BY_DIGEST)
def test_digest_finds_changed_bytes(adapter: pathlib.Path, tmp_path: pathlib.Path, declare: Declare, name: str) -> None:
    manifest = describe(str(adapter), declare(), {}, str(tmp_path / "entry.json")).manifest
    content(WEIGHTS, BY_DIGEST[name])(adapter)
    (found,) = differences(str(adapter), manifest)
    assert found.line().startswith(f"changed  {WEIGHTS}  sha256 ")
    # The files alone look like another valid adapter: an extraction leaves layers of zeros, too.
    assert message_of(adapter, declare(), tmp_path) == ""


@pytest.mark.parametrize("name", BLIND)
def test_level_structure_passes_faults_of_level_golden(
    adapter: pathlib.Path, tmp_path: pathlib.Path, declare: Declare, name: str
) -> None:
    BLIND[name].apply(adapter)
    assert message_of(adapter, declare(**BLIND[name].declared), tmp_path) == ""


@pytest.fixture(scope="module")
def loaded(tiny: pathlib.Path, tmp_path_factory: pytest.TempPathFactory, base_config: dict[str, t.Any]) -> WorkerRun:
    """The load test of all faults that level structure may miss, in one process."""
    work = tmp_path_factory.mktemp("loaded")
    targets: list[Target] = []

    def make(name: str, fault: Fault, level: str, base_path: pathlib.Path | None = None) -> None:
        directory = work / f"adapter-{len(targets)}"
        shutil.copytree(tiny / "adapter", directory)
        fault.apply(directory)
        config = None if base_path else fault.base_of(base_config)
        targets.append(Target(name, str(directory), WEIGHTS, level, config, str(base_path) if base_path else None, False))

    def damaged_base(name: str, change: Damage) -> pathlib.Path:
        shutil.copytree(tiny / "base", work / name)
        rewrite(work / name / "model.safetensors", change)
        return work / name

    def fill(raw: bytes) -> Damage:
        name = "model.layers.0.mlp.up_proj.weight"
        return lambda tensors: tensors.update({name: (*tensors[name][:2], raw * (len(tensors[name][2]) // len(raw)))})

    for name in BY_ADAPTER:
        make(name, FAULTS[name], "adapter")
    bases = {
        "base lacks a weight": damaged_base("lacking", lambda tensors: tensors.pop("model.norm.weight")),
        "base of NaN": damaged_base("of-nan", fill(b"\x00\x00\xc0\x7f")),
        "base of other weights": damaged_base("other", fill(b"\x0a\xd7\x23\x3c")),
    }
    for name, (fault, _words) in BY_MODEL.items():
        make(name, fault, "model", bases.get(name, tiny / "base"))
    for name, fault in BLIND.items():
        make(name, fault, "model", bases.get(name, tiny / "base"))
    outcome = run_worker(tiny_adapters.PEFT_PYTHON, "cpu", targets, 300, str(work))
    assert outcome.problems == ()
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_ADAPTER)
def test_level_adapter_finds_what_structure_misses_without_base(loaded: WorkerRun, name: str) -> None:
    report = loaded.reports[name]
    assert (report.passed, report.result.level) == (False, None)
    (failure,) = report.failures
    assert BY_ADAPTER[name] in failure.problem
    assert failure.remedy


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_MODEL)
def test_level_model_finds_what_adapter_misses(loaded: WorkerRun, name: str) -> None:
    report = loaded.reports[name]
    assert not report.passed
    (failure,) = report.failures
    assert BY_MODEL[name][1] in failure.problem
    assert failure.remedy


@pytest.mark.slow
@pytest.mark.parametrize("name", BLIND)
def test_level_model_passes_faults_of_level_golden(loaded: WorkerRun, name: str) -> None:
    assert (loaded.reports[name].passed, loaded.reports[name].failures) == (True, [])
