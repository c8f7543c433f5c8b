# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdicts on one adapter of each kind, against the matrix that was measured.

The matrix is written down here a second time, independently of the rules: R is right, X refused,
W wrong with the measured difference, W- wrong without one, ? unknown. ``tests/engines`` measures it
again.
"""

from __future__ import annotations

import re
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.rules.table import all_rules, rules_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.verdicts import (
    REFUSED,
    RIGHT,
    UNKNOWN,
    WRONG,
    Engine,
    Verdict,
    verdicts,
)

from tests.support.manifests import LAYERS, adapter, pairs

PREFIX = "base_model.model."
_MODEL = f"{PREFIX}model."
# A Llama with a tied head, as transformers 4 saved it.
TIED: dict[str, t.Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "vocab_size": 320,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "tie_word_embeddings": True,
    "rope_theta": 100000.0,
}
UNTIED = {**TIED, "tie_word_embeddings": False}
TRANSFORMERS_5 = {**{key: value for key, value in TIED.items() if key != "rope_theta"}, "rope_parameters": {"rope_theta": 1e5}}

QUERIES = [name for name in LAYERS if name.endswith("q_proj")]
Shapes = t.Dict[str, t.Tuple[int, ...]]


def also(more: Shapes) -> Shapes:
    return {**pairs(), **more}


def without_b() -> Shapes:
    return {name: shape for name, shape in pairs().items() if not name.endswith("q_proj.lora_B.weight")}


def of_alpha_32(shapes: Shapes | None = None, **config: t.Any) -> Manifest:
    return adapter(shapes, **{"lora_alpha": 32, **config})


# An adapter of each kind, of rank 16 and with the factor 2 unless the kind says otherwise.
KINDS: dict[str, Manifest] = {
    "equal": adapter(),
    "plain": of_alpha_32(),
    "rslora": of_alpha_32(use_rslora=True),
    "dora": of_alpha_32(also({f"{_MODEL}{name}.lora_magnitude_vector": (32,) for name in LAYERS}), use_dora=True),
    "alphas": of_alpha_32(alpha_pattern={"q_proj": 8}),
    "ranks": of_alpha_32(also(pairs(QUERIES, rank=8)), rank_pattern={"q_proj": 8}),
    "one_ratio": of_alpha_32(also(pairs(QUERIES, rank=8)), rank_pattern={"q_proj": 8}, alpha_pattern={"q_proj": 16}),
    "layers": of_alpha_32(layers_to_transform=[1]),
    "excluded": of_alpha_32(exclude_modules=["k_proj"]),
    "regex": of_alpha_32(target_modules=r".*\.q_proj"),
    "lora_bias": of_alpha_32(also({f"{_MODEL}{name}.lora_B.bias": (32,) for name in LAYERS}), lora_bias=True),
    "bias": of_alpha_32(bias="lora_only"),
    "saved_head": of_alpha_32(also({f"{PREFIX}lm_head.weight": (320, 64)}), modules_to_save=["lm_head"]),
    "saved_embed": of_alpha_32(also({f"{_MODEL}embed_tokens.weight": (320, 64)}), modules_to_save=["embed_tokens"]),
    "saved_norm": of_alpha_32(also({f"{_MODEL}norm.weight": (64,)}), modules_to_save=["norm"]),
    "embed": of_alpha_32(
        also({f"{_MODEL}embed_tokens.lora_embedding_A": (16, 320), f"{_MODEL}embed_tokens.lora_embedding_B": (64, 16)})
    ),
    "head": of_alpha_32(also(pairs(["lm_head"], prefix=PREFIX))),
    "tokens": of_alpha_32(
        also({f"{_MODEL}embed_tokens.token_adapter.trainable_tokens_delta": (2, 64)}), trainable_token_indices=[1, 2]
    ),
    "bf16": adapter(dtype="BF16", lora_alpha=32),
    "fp16": adapter(dtype="F16", lora_alpha=32),
    "fan_in": of_alpha_32(fan_in_fan_out=True),
    # The factor of its configuration is 1.
    "r_32": of_alpha_32(r=32),
    "no_b": of_alpha_32(without_b()),
    "no_prefix": of_alpha_32(pairs(prefix="model.")),
    "headless": of_alpha_32(pairs(prefix=PREFIX)),
    "multimodal": of_alpha_32(pairs(prefix=f"{PREFIX}language_model.")),
    "alora": of_alpha_32(alora_invocation_tokens=[1, 2]),
    "bdlora": of_alpha_32(use_bdlora={"nblocks": 2}),
    "replicated": of_alpha_32(layer_replication=[[0, 2], [1, 2]]),
    "parameters": of_alpha_32(target_parameters=["mlp.experts.gate_up_proj"]),
    "qalora": of_alpha_32(use_qalora=True),
    "base_5": adapter(),
}
ENGINE = {
    "vllm": Engine("vllm", "0.32.0"),
    "mistral": Engine("mistralrs", "0.9.5"),
    "load_adapter": Engine("transformers", "5.24.0"),
    "openvino": Engine("openvino", "2026.4.1.0"),
    "ov_alpha": Engine("openvino_genai", "2026.4.1.0", {"alpha": "factor"}),
    "llama.cpp": Engine("llama.cpp", "0.3.36"),
    "lcp_alpha": Engine("llama_cpp", "0.3.36", {"alpha": "factor"}),
    "ort": Engine("onnxruntime-genai", "0.18.0"),
    "olive": Engine("olive", "0.13.0"),
    "mlx": Engine("mlx-lm", "0.32.2"),
    "mlx_scale": Engine("mlx-lm", "0.32.2", {"scale": "factor"}),
    "ct2": Engine("ctranslate2", "4.8.5"),
    "ct2_merged": Engine("ctranslate2", "4.8.5", {"merged": True}),
    "sglang": Engine("sglang", "0.5.23"),
    "lmdeploy": Engine("lmdeploy", "0.18.0"),
    "trtllm": Engine("trtllm", "1.2.1"),
    "tgi": Engine("tgi", "3.3.7"),
}

MEASURED = """
kind        vllm   mistral load_adapter openvino ov_alpha llama.cpp lcp_alpha ort    olive mlx    mlx_scale ct2 ct2_merged
equal       R      R       R            R        R        R         R         R      R     X      R         X   R
plain       R      R       R            W0.142   R        R         R         R      R     X      R         X   R
rslora      R      R       R            W1.302   R        W1.161    R         R      R     X      R         X   R
dora        X      X       W2.5         W2.55    W2.55    X         X         W2.488 X     X      X         X   R
alphas      R      R       R            W0.439   W0.439   W0.375    W0.375    R      W-    X      X         X   R
ranks       R      R       R            W0.454   W0.454   R         R         R      W-    X      X         X   R
one_ratio   R      R       R            W0.439   R        W0.375    W0.375    R      R     X      X         X   R
layers      R      R       R            W0.142   R        R         R         R      R     X      ?         X   R
excluded    R      R       R            W0.142   R        R         R         R      R     X      ?         X   R
regex       R      R       R            W0.142   R        R         R         R      R     X      ?         X   R
lora_bias   X      X       R            W2.91    W2.91    X         X         W2.906 ?     X      X         X   X
bias        X      X       R            W0.142   R        ?         ?         R      ?     X      X         X   R
saved_head  X      X       R            X        X        X         X         W1.95  ?     X      X         X   R
saved_embed X      X       R            W2.71    W2.71    X         X         W1.087 ?     X      X         X   R
saved_norm  X      X       ?            W0.142   ?        ?         ?         ?      ?     X      X         X   R
embed       R      X       R            W0.069   W0.069   X         X         W0.069 ?     X      X         X   W-
head        R      X       R            W0.142   R        X         X         X      ?     X      X         X   W-
tokens      X      X       R            W0.69    W0.69    X         X         X      ?     X      X         X   R
bf16        R      R       R            W0.142   R        R         R         R      R     X      ?         X   R
fp16        R      R       R            W0.142   R        R         R         R      R     X      ?         X   R
fan_in      R      R       R            W0.142   R        R         R         R      R     X      ?         X   R
r_32        W0.141 X       X            W-       W-       R         R         X      W-    X      X         X   X
no_b        X      X       R            X        X        X         X         R      ?     X      X         X   R
no_prefix   W-     W-      W-           R        R        W-        W-        R      ?     X      X         X   R
headless    R      X       W-           W-       W-       W-        W-        R      ?     X      X         X   R
multimodal  R      X       R            R        R        W-        W-        R      ?     X      X         X   R
base_5      R      X       R            R        R        R         R         R      ?     X      W1.758    X   R
"""
# Of these, most was read in the source, and nothing was measured on the same base.
READ = """
kind        vllm sglang lmdeploy trtllm tgi mistral load_adapter ov_alpha olive ort
equal       R    R      R        R      R
plain       R    R      R        R      R
rslora      R    W-     W-       R      R
dora        X    X      X        W-     W-
alphas      R    W-     W-       W-     W-
ranks       R    X      X        R      W-
one_ratio   R    X      X        W-     W-
layers      R    R      W-       R      W-
regex       R    X      X        R      R
lora_bias   X    W-     X        X      W-
saved_head  X    W-     X        W-     W-
saved_embed X    W-     X        W-     W-
saved_norm  X    X      X        X      W-
embed       R    R      X        W-     W-
head        R    R      X        W-     W-
tokens      X    W-     X        W-     W-
alora       X    W-     W-       W-     W-  X       W-           W-       W-    W-
bdlora      X    ?      ?        ?      ?   X       ?            ?        ?     ?
replicated  X    ?      ?        ?      ?   X       R            W-       ?     W-
parameters  ?    ?      ?        ?      W-  ?       ?            ?        ?     ?
qalora      X    ?      ?        ?      ?   X       ?            ?        ?     ?
no_prefix   W-   W-     X        W-     R
headless    R    W-     X        W-     R
multimodal  R    W-     X        W-     R
r_32        W0.141 X    X        R      W-
no_b        X    ?      W-       X      W-
"""
LETTERS = {"R": RIGHT, "X": REFUSED, "W": WRONG, "?": UNKNOWN}


def cells(table: str) -> t.Iterator[tuple[str, str, str]]:
    head, *rows = (line.split() for line in table.strip().splitlines())
    for kind, *found in rows:
        yield from ((kind, engine, cell) for engine, cell in zip(head[1:], found))


def verdict(kind: str, engine: Engine, base: dict[str, t.Any] | None = None) -> Verdict:
    return verdicts([engine], KINDS[kind], base or (TRANSFORMERS_5 if kind == "base_5" else TIED))[0]


@pytest.mark.parametrize("kind, engine, cell", [*cells(MEASURED), *cells(READ)])
def test_verdict_is_that_of_the_matrix(kind: str, engine: str, cell: str) -> None:
    found = verdict(kind, ENGINE[engine])
    figure = float(cell[1:]) if re.fullmatch(r"W\d.*", cell) else None
    assert (found.state, found.figure) == (LETTERS[cell[0]], figure), found
    assert (found.engine, found.version) == (rules_of(found.engine).name, ENGINE[engine].version)


def test_matrix_has_every_engine() -> None:
    named = {verdict("plain", ENGINE[engine]).engine for _kind, engine, _cell in [*cells(MEASURED), *cells(READ)]}
    assert named == {rules.name for rules in all_rules() if rules.rules}


@pytest.mark.parametrize("kind", ["saved_head", "saved_embed"])
def test_openvino_with_untied_head_is_unknown(kind: str) -> None:
    found = verdict(kind, ENGINE["ov_alpha"], UNTIED)
    assert (found.state, "a head of its own" in found.message) == (UNKNOWN, True)


@pytest.mark.parametrize("kind", ["head", "embed"])
def test_llama_cpp_with_untied_head_is_unknown(kind: str) -> None:
    assert verdict(kind, ENGINE["llama.cpp"], UNTIED).state == UNKNOWN
    # What is about other modules stays as it is.
    assert verdict("dora", ENGINE["llama.cpp"], UNTIED).state == REFUSED


@pytest.mark.parametrize(
    "version, kind, cell",
    [
        ("0.31.0", "alphas", "W"),
        ("0.29.0", "ranks", "W"),
        ("0.30.1", "alora", "W"),
        ("0.31.0", "dora", "X"),
        ("0.31.0", "rslora", "R"),
        ("0.33.0", "alphas", "?"),
        ("0.28.0", "alphas", "?"),
        ("0.34", "alphas", "?"),
        ("0.34.0", "alphas", "?"),
        ("0.31.0", "tokens", "?"),
    ],
)
def test_vllm_before_patterns_answers_otherwise(version: str, kind: str, cell: str) -> None:
    assert verdict(kind, Engine("vllm", version)).state == LETTERS[cell]


@pytest.mark.parametrize("version, cell", [("4.57.6", "W"), ("5.24.0", "R"), ("5.23.0", "?")])
def test_transformers_4_reads_another_rotary_base(version: str, cell: str) -> None:
    found = verdict("base_5", Engine("transformers", version))
    assert found.state == LETTERS[cell]
    assert cell != "W" or '"rope_theta": 100000.0' in found.remedy
