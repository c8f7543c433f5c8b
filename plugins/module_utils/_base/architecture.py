# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The modules of a base that LoRA layers can be added to, derived from its config.json."""

from __future__ import annotations

import typing as t

from .._errors import DeliveryError, Problem
from .._formats.strict_json import is_integer
from .._text import shown
from .remote_code import code_keys


class Module(t.NamedTuple):
    """A linear layer, an embedding, whose ``in_features`` is the number of tokens, or a norm.

    A norm has one weight for each of its ``out_features``. A convolution has a ``kernel``.
    """

    out_features: int
    in_features: int
    embedding: bool = False
    norm: bool = False
    kernel: tuple[int, ...] = ()

    @property
    def weight(self) -> tuple[int, ...]:
        """The shape of its weight in the base."""
        if self.norm:
            return (self.out_features,)
        return (self.in_features, self.out_features) if self.embedding else (self.out_features, self.in_features)


_HEAD_DIM = "head_dim"
_KV_HEADS = "num_key_value_heads"
# The supported model types, which have the same modules, and the keys that their config.json may
# omit because transformers derives the value from others. For any other omitted key, transformers
# uses a constant that is right for few models.
_MODEL_TYPES: dict[str, frozenset[str]] = {
    "llama": frozenset({_HEAD_DIM, _KV_HEADS}),
    "mistral": frozenset({_HEAD_DIM}),
    "qwen2": frozenset({_HEAD_DIM}),
    "qwen3": frozenset(),
    "gemma": frozenset(),
    "gemma2": frozenset(),
    "gemma3_text": frozenset(),
}

# The norms of a layer beside those that every supported model has.
# No base has more than a few hundred.
_MOST_LAYERS = 1000

_HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
_FEEDFORWARD_NORMS = ("pre_feedforward_layernorm", "post_feedforward_layernorm")
_NORMS: dict[str, tuple[str, ...]] = {
    "qwen3": _HEAD_NORMS,
    "gemma2": _FEEDFORWARD_NORMS,
    "gemma3_text": _FEEDFORWARD_NORMS + _HEAD_NORMS,
}


def vocabulary_size(config: dict[str, t.Any] | None) -> int | None:
    """Return the number of tokens of a base, None if its config does not say it."""
    known = config or {}
    inner = known.get("text_config")
    size = known.get("vocab_size", inner.get("vocab_size") if isinstance(inner, dict) else None)
    return size if is_integer(size) else None


def code_problems(config: dict[str, t.Any], subject: str) -> list[Problem]:
    """Return a problem for each key of a config.json that can make transformers load code."""
    return [
        Problem(subject, f"has the key '{key}', which can make transformers load code.", "Use a base without it.")
        for key in sorted(code_keys(config))
    ]


def is_known(config: dict[str, t.Any]) -> bool:
    """Return whether the modules of such a base are known."""
    # Without a model type, the config is invalid, which base_modules() reports.
    model_type = config.get("model_type")
    return not isinstance(model_type, str) or model_type in _MODEL_TYPES


def base_modules(config: dict[str, t.Any], subject: str) -> dict[str, Module]:
    """Return the modules of a base by name, such as ``model.layers.0.self_attn.q_proj``.

    Raises DeliveryError about ``subject`` with all problems: an unknown model_type, keys that are
    missing or not positive numbers, and keys that can make transformers load code.
    """
    problems = code_problems(config, subject)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in _MODEL_TYPES:
        problem = f"has model_type {shown(model_type)}; supported are {', '.join(_MODEL_TYPES)}."
        remedy = "Use such a base, or omit the config of the base. Then shapes are not compared with it."
        raise DeliveryError(*problems, Problem(subject, problem, remedy))

    def number(key: str) -> int:
        value = config.get(key)
        if is_integer(value) and value > 0:
            return value
        found = f"is {shown(value)}" if key in config else "is missing"
        problem = f"key '{key}' {found}; expected a positive number."
        problems.append(Problem(subject, problem, "Copy it from the config.json of the base."))
        return 1

    def derivable(key: str, value: int) -> int:
        return value if key in _MODEL_TYPES[model_type] and config.get(key) is None else number(key)

    hidden, inner, vocab = number("hidden_size"), number("intermediate_size"), number("vocab_size")
    layers, heads = number("num_hidden_layers"), number("num_attention_heads")
    head_dim = derivable(_HEAD_DIM, hidden // heads)
    queries, keys = heads * head_dim, derivable(_KV_HEADS, heads) * head_dim
    if layers > _MOST_LAYERS:
        # Its config may come from another host.
        problem = f"key 'num_hidden_layers' is {shown(layers)}; at most {_MOST_LAYERS} are accepted."
        problems.append(Problem(subject, problem, "Copy it from the config.json of the base."))
    if problems:
        raise DeliveryError(*problems)

    layer = {
        "self_attn.q_proj": Module(queries, hidden),
        "self_attn.k_proj": Module(keys, hidden),
        "self_attn.v_proj": Module(keys, hidden),
        "self_attn.o_proj": Module(hidden, queries),
        "mlp.gate_proj": Module(inner, hidden),
        "mlp.up_proj": Module(inner, hidden),
        "mlp.down_proj": Module(hidden, inner),
    }
    for name in ("input_layernorm", "post_attention_layernorm", *_NORMS.get(model_type, ())):
        layer[name] = Module(head_dim if name in _HEAD_NORMS else hidden, 1, norm=True)
    return {
        "model.embed_tokens": Module(hidden, vocab, embedding=True),
        **{f"model.layers.{n}.{name}": module for n in range(layers) for name, module in layer.items()},
        "model.norm": Module(hidden, 1, norm=True),
        "lm_head": Module(vocab, hidden),
    }
