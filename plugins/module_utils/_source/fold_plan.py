# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Plan the folded form of an adapter: an equivalent one that no engine can misread. Pure.

Each module's factor is multiplied into its lora_B, all matrices are padded with zeros to one rank,
and lora_alpha is the rank, so that the factor that is left is 1 for every module. A reader that
looks at nothing but the tensors is right, and so is one that divides lora_alpha by the rank.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import typing as t

from .._adapter.config_keys import KEYS_OF_MODULES, is_empty
from .._adapter.files import CONFIG_FILE, SAFETENSORS_FILE
from .._adapter.manifest import Manifest, TensorEntry
from .._adapter.module_selection import Config
from .._adapter.patterns import PatternError
from .._adapter.scaling import Scaling, scalings
from .._adapter.tensor_names import PREFIX
from .._errors import DeliveryError, Problem
from .._formats.safetensors import Header
from .._forms import FOLDED
from .._load_test.worker.fold import FoldRequest, FoldTensor
from .._text import first, shown

_TENSOR = re.compile(rf"{re.escape(PREFIX)}(?P<module>.+)\.lora_(?P<part>[AB])\.weight")
_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
# What an adapter with these keys computes cannot be written as B times A times one factor for each
# module, or not every engine would compute it.
_UNFIT_KEYS = {
    "alora_invocation_tokens": "Activated LoRA",
    "lora_bias": "biases of lora_B",
    "modules_to_save": "whole modules",
    "monteclora_config": "MonteCLoRA",
    "target_parameters": "LoRA on parameters",
    "trainable_token_indices": "trained tokens",
    "use_bdlora": "block-diagonal LoRA",
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "velora_config": "VeLoRA",
}
# PEFT does not merge Activated LoRA, nor biases into layers without one, as nearly all are. It does
# not save a merged model whose layers share weights.
_UNMERGEABLE_KEYS = ("alora_invocation_tokens", "layer_replication", "lora_bias")
# The embeddings are often the head, too, which a merge then changes as well.
_MAYBE_TIED = re.compile(r"\.(embed_tokens|lm_head)\.lora_")
# Keys that keep their values, where the file has them.
_KEPT = (*KEYS_OF_MODULES, "auto_mapping", "base_model_name_or_path", "fan_in_fan_out", "peft_version", "revision", "task_type")
# Keys that get the value of plain LoRA, where the file has them: old versions of PEFT reject a
# configuration with a key that they do not know. All keys that are in no table do nothing.
_RESET: Config = {"alpha_pattern": {}, "rank_pattern": {}, "use_dora": False, "use_rslora": False}
_SET: Config = {
    "bias": "none",
    "inference_mode": True,
    "init_lora_weights": True,
    "lora_dropout": 0.0,
    "modules_to_save": None,
    "peft_type": "LORA",
}
_AS_TRAINED = "Deliver it as trained."
_MERGE = (
    "Deliver it as trained, or merge it into the base in float32{condition}. A merge in bfloat16 was measured to change"
    " log-probabilities by up to 0.35, one in float32 by 1.5e-5."
)
_IF_UNTIED = ", if the base has a head of its own"


class _Name(t.NamedTuple):
    """A tensor's module, and which of its two matrices it is, A or B."""

    module: str
    part: str


@dataclasses.dataclass(frozen=True)
class FoldPlan:
    """What becomes of an adapter.

    ``tensors`` are those of the original, ``scalings`` those of its modules. ``exact`` is whether
    no value is to be rounded. Then, and with form ``folded_same_dtype``, each tensor keeps its
    dtype; otherwise all of them become float32.
    """

    form: str
    config: Config
    rank: int
    scalings: dict[str, Scaling]
    tensors: tuple[TensorEntry, ...]
    exact: bool

    @property
    def factors(self) -> tuple[float, ...]:
        """The different factors, in order."""
        return tuple(sorted({scaling.factor for scaling in self.scalings.values()}))

    @property
    def keeps_dtype(self) -> bool:
        return self.exact or self.form != FOLDED

    def config_text(self) -> str:
        """Return the content of adapter_config.json, as PEFT writes it."""
        return json.dumps(self.config, indent=2, sort_keys=True)

    def in_float32(self) -> FoldPlan:
        """Return the plan after a product was found that its dtype does not have."""
        return dataclasses.replace(self, exact=False)

    def request(self, source: str, target: str, header: Header) -> FoldRequest:
        """Return what the worker has to do. ``header`` is that of the weights file ``source``."""
        dtypes, shapes, starts, end = {}, {}, {}, 0
        for tensor in self.tensors:
            dtypes[tensor.name] = tensor.dtype if self.keeps_dtype else "F32"
            is_down = _name_of(tensor.name).part == "A"
            rows, columns = tensor.shape
            shapes[tensor.name] = (self.rank, columns) if is_down else (rows, self.rank)
        entries: dict[str, t.Any] = {"__metadata__": {"format": "pt"}}
        # In the order of the safetensors library.
        for name in sorted(dtypes, key=lambda name: (-_BYTES[dtypes[name]], name)):
            starts[name], end = end, end + math.prod(shapes[name]) * _BYTES[dtypes[name]]
            entries[name] = {"dtype": dtypes[name], "shape": list(shapes[name]), "data_offsets": [starts[name], end]}
        text = json.dumps(entries, separators=(",", ":"))
        folded = tuple(
            FoldTensor(
                name=info.name,
                dtype=info.dtype,
                rows=info.shape[0],
                columns=info.shape[1],
                factor=1.0 if _name_of(info.name).part == "A" else self.scalings[_name_of(info.name).module].factor,
                folded_dtype=dtypes[info.name],
                folded_rows=shapes[info.name][0],
                folded_columns=shapes[info.name][1],
                start=starts[info.name],
            )
            for info in header.tensors
        )
        return FoldRequest(source, target, text + " " * (-len(text) % 8), folded, exact=self.exact)


def plan_fold(manifest: Manifest, form: str) -> FoldPlan:
    """Return the plan for an adapter that PEFT loads as its manifest describes it.

    Raises DeliveryError if it has no folded form.
    """
    config = manifest.config
    problems = [*_unfit(manifest)]
    found: dict[str, Scaling] = {}
    if not problems:
        modules = list(dict.fromkeys(_name_of(tensor.name).module for tensor in manifest.tensors))
        try:
            found = scalings(config, modules)
        except PatternError as exc:
            problems.append(Problem(CONFIG_FILE, f"One of its patterns {exc}.", "List the names of the modules instead."))
        problems += _wrong_shapes(manifest.tensors, found)
    if problems:
        raise DeliveryError(*problems)
    # Also if no module has that rank: it then follows from the configuration alone.
    rank = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    kept = {key: _in_order(config[key]) for key in _KEPT if key in config}
    reset = {key: value for key, value in _RESET.items() if key in config}
    folded = {**kept, **reset, **_SET, "r": rank, "lora_alpha": rank}
    exact = all(_is_exact(found[_name_of(tensor.name).module].factor, tensor.dtype) for tensor in manifest.tensors)
    return FoldPlan(form, folded, rank, found, manifest.tensors, exact)


def _unfit(manifest: Manifest) -> t.Iterator[Problem]:
    """Yield why the adapter has no folded form."""
    if manifest.weights_file != SAFETENSORS_FILE:
        yield Problem("", f"cannot be folded: {manifest.weights_file} is a pickle.", "Save it as safetensors.")
        return
    keys = [key for key in _UNFIT_KEYS if not is_empty(manifest.config.get(key))]
    if keys:
        what = first(f"{_UNFIT_KEYS[key]} ({key})" for key in keys)
        yield Problem("", f"cannot be folded: it has {what}.", _remedy(manifest))
        return
    others = [shown(tensor.name) for tensor in manifest.tensors if not _TENSOR.fullmatch(tensor.name)]
    if others:
        problem = f"cannot be folded: only lora_A and lora_B of linear layers can, and it has {first(others)}."
        yield Problem("", problem, _remedy(manifest))


def _remedy(manifest: Manifest) -> str:
    """Return what helps an adapter that has no folded form."""
    if any(not is_empty(manifest.config.get(key)) for key in _UNMERGEABLE_KEYS):
        return _AS_TRAINED
    tied = any(_MAYBE_TIED.search(f".{tensor.name}") for tensor in manifest.tensors)
    return _MERGE.format(condition=_IF_UNTIED if tied else "")


def _wrong_shapes(tensors: t.Sequence[TensorEntry], found: dict[str, Scaling]) -> t.Iterator[Problem]:
    """Yield what is not two matrices of the layer's rank. Description has compared the rest."""
    shapes = {_name_of(tensor.name): tensor.shape for tensor in tensors}
    for module, scaling in found.items():
        down, up = shapes.get(_Name(module, "A"), ()), shapes.get(_Name(module, "B"), ())
        if len(down) != 2 or len(up) != 2 or down[0] != scaling.rank or up[1] != scaling.rank:
            problem = f"cannot be folded: {module} has rank {scaling.rank} and matrices of the shapes {[*down]} and {[*up]}."
            yield Problem("", problem, "Its rank or its base differs from its configuration.")
            return


@functools.lru_cache(maxsize=1 << 12)
def _name_of(tensor: str) -> _Name:
    found = t.cast("re.Match[str]", _TENSOR.fullmatch(tensor))
    return _Name(found["module"], found["part"])


def _is_exact(factor: float, dtype: str) -> bool:
    """Return whether a product with this factor needs no rounding, unless it is very small.

    It is an addition to the exponent for a power of two, of either sign. The exponents of float16
    are small. PEFT also loads a factor of 0.
    """
    return factor in (0.0, 1.0) or (dtype != "F16" and abs(math.frexp(factor)[0]) == 0.5)


def _in_order(value: t.Any) -> t.Any:
    """Return a list of names sorted: PEFT writes them in the order of a set."""
    return sorted(value) if isinstance(value, list) and all(isinstance(name, str) for name in value) else value
