# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Level ``structure`` of the load test: exactly the tensors that PEFT expects, with sane values."""

from __future__ import annotations

import re
import typing as t

from .._base.architecture import (
    Module,
    base_modules,
    code_problems,
    is_known,
)
from .._errors import DeliveryError, Problem
from .._formats.tensor_scan import TensorScan
from .._text import count, first, shown
from .lora_config import (
    Config,
    is_well_formed,
    matches_any,
    rank_of,
    saves,
    targets,
)

_PREFIX = "base_model.model."
_LORA_TENSOR = re.compile(
    r"base_model\.model\.(?P<module>[A-Za-z0-9_.]+)\."
    r"(?P<part>lora_A\.weight|lora_B\.weight|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
)
_DTYPES = ("F32", "BF16", "F16")
# A size that only the base determines.
_ANY = -1

Shape = t.Tuple[int, ...]


def expected_tensors(config: Config, modules: t.Mapping[str, Module]) -> dict[str, Shape]:
    """Return the names and shapes of the tensors that PEFT saves for ``config``.

    ``modules`` are the modules of the base.
    """
    expected: dict[str, Shape] = {}
    for name, module in modules.items():
        prefix = _PREFIX + name
        if saves(config, name):
            expected[f"{prefix}.weight"] = module.weight
        elif targets(config, name):
            rank = rank_of(config, name)
            down, up = (rank, module.in_features), (module.out_features, rank)
            if module.embedding:
                expected.update({f"{prefix}.lora_embedding_A": down, f"{prefix}.lora_embedding_B": up})
            else:
                expected.update({f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up})
            if config.get("use_dora"):
                expected[f"{prefix}.lora_magnitude_vector"] = (module.out_features,)
    return expected


def structure_problems(
    name: str, tensors: t.Sequence[TensorScan], config: Config, base_config: dict[str, t.Any] | None
) -> list[Problem]:
    """Return the problems of the tensors of adapter ``name``.

    If ``config`` is not well-formed, which ``config_problems`` reports, only the values are
    checked. Without ``base_config``, or if its type is unknown, the modules are derived from the
    names of the tensors; ``unchecked`` returns what that cannot detect.
    """
    found = {tensor.name: tensor for tensor in tensors}
    subject = f"base of adapter {name}"
    problems: list[Problem] = []
    if is_well_formed(config):
        try:
            if base_config is None or not is_known(base_config):
                problems += code_problems(base_config or {}, subject)
                modules = _modules_of(tensors)
            else:
                modules = base_modules(base_config, subject)
            problems += _name_problems(name, found, config, modules)
        except DeliveryError as exc:
            problems += exc.problems
    return [*problems, *_value_problems(name, found)]


def structure_checks(tensors: t.Sequence[TensorScan], config: Config) -> list[str]:
    """Return the facts that hold if ``config_problems`` and ``structure_problems`` find nothing."""
    return [
        f"The configuration is LoRA as declared: rank {config['r']}, alpha {config['lora_alpha']}, no key that can load code.",
        f"The weights are strict safetensors: {count(len(tensors), 'tensor')} with the names and shapes of"
        f" {first(sorted(config['target_modules']))}, none missing, none extra.",
        "No value is NaN or infinite, and the tensors are not those of an untrained adapter.",
    ]


def unchecked(base_config: dict[str, t.Any] | None) -> list[str]:
    """Return the checks that level structure cannot make, given what is known about the base."""
    if base_config is not None and is_known(base_config):
        return []
    what = "so level structure cannot detect missing modules or sizes that only the base determines; level adapter can"
    if base_config is None:
        return [f"The config of its base is not known on this host, {what}."]
    return [f"The modules of base type {shown(base_config['model_type'])} are not known, {what}."]


def _modules_of(tensors: t.Iterable[TensorScan]) -> dict[str, Module]:
    """Return the modules that the tensors belong to, with the sizes that the tensors imply."""
    modules: dict[str, Module] = {}
    for tensor in tensors:
        lora = _LORA_TENSOR.fullmatch(tensor.name)
        if lora is None:
            if tensor.name.startswith(_PREFIX) and tensor.name.endswith(".weight") and len(tensor.shape) == 2:
                modules.setdefault(tensor.name[len(_PREFIX) : -len(".weight")], Module(*tensor.shape))
            continue
        module = modules.get(lora["module"], Module(_ANY, _ANY))
        part = lora["part"]
        if part.startswith("lora_embedding"):
            module = module._replace(embedding=True)
        if part in ("lora_A.weight", "lora_embedding_A") and len(tensor.shape) == 2:
            module = module._replace(in_features=tensor.shape[1])
        elif part in ("lora_B.weight", "lora_embedding_B") and len(tensor.shape) == 2:
            module = module._replace(out_features=tensor.shape[0])
        modules[lora["module"]] = module
    return modules


def _name_problems(name: str, found: dict[str, TensorScan], config: Config, modules: dict[str, Module]) -> t.Iterator[Problem]:
    expected = expected_tensors(config, modules)
    for key in ("target_modules", "modules_to_save"):
        unknown = [entry for entry in config.get(key) or () if not any(matches_any([entry], module) for module in modules)]
        if unknown:
            problem = f"{key} names {first(unknown)}, which neither the base nor the file has."
            yield Problem("", problem, "It belongs to another base, or its configuration was changed.", name)

    missing = [tensor for tensor in expected if tensor not in found]
    if missing:
        problem = f"lacks {len(missing)} of {count(len(expected), 'tensor')}: {first(missing)}."
        yield Problem("", problem, "PEFT would use untrained tensors instead. Save the complete adapter again.", name)

    extra = [tensor for tensor in found if tensor not in expected]
    # PEFT loads every tensor whose name matches a weight of the model, even one of the base.
    overwriting = [tensor for tensor in extra if tensor.startswith(_PREFIX) and "lora_" not in tensor]
    if overwriting:
        listed = first(map(shown, overwriting))
        problem = f"has {count(len(overwriting), 'tensor')} that would overwrite weights of the base: {listed}."
        remedy = (
            "Save the adapter again with save_embedding_layers=False, or train with modules_to_save and declare that"
            " in its peft_config; never load this file into a base that others use."
        )
        yield Problem("", problem, remedy, name)
    ignored = [tensor for tensor in extra if tensor not in overwriting]
    if ignored:
        problem = f"has {count(len(ignored), 'tensor')} that PEFT would silently ignore: {first(map(shown, ignored))}."
        remedy = "Either the base has no such module, or target_modules does not name it. Correct the one that is wrong."
        yield Problem("", problem, remedy, name)

    misshapen = [key for key, shape in expected.items() if key in found and not _fits(found[key].shape, shape)]
    if misshapen:
        shapes = (f"{key} is {_shape_text(found[key].shape)}, expected {_shape_text(expected[key])}" for key in misshapen)
        problem = f"has {count(len(misshapen), 'tensor')} with a wrong shape: {first(shapes)}."
        yield Problem("", problem, "Its rank or its base differs from its configuration.", name)


def _value_problems(name: str, found: dict[str, TensorScan]) -> t.Iterator[Problem]:
    wrong = [f"{shown(tensor.name)} is {tensor.dtype}" for tensor in found.values() if tensor.dtype not in _DTYPES]
    if wrong:
        problem = f"has {count(len(wrong), 'tensor')} with an unsupported dtype: {first(wrong)}; expected {', '.join(_DTYPES)}."
        yield Problem("", problem, "Save the adapter in one of them.", name)
    # Saved modules keep the dtype of the base, so only the LoRA tensors must agree.
    dtypes = {tensor.dtype: tensor.name for tensor in found.values() if "lora_" in tensor.name}
    if len(dtypes) > 1:
        examples = first(f"{shown(tensor)} is {dtype}" for dtype, tensor in sorted(dtypes.items()))
        yield Problem("", f"mixes dtypes: {examples}; expected one dtype.", "Save the adapter in one of them.", name)

    broken = [shown(tensor.name) for tensor in found.values() if not tensor.finite]
    if broken:
        problem = f"has NaN or infinite values in {len(broken)} of {count(len(found), 'tensor')}: {first(broken)}."
        yield Problem("", problem, "The training diverged: deliver an earlier checkpoint.", name)

    pairs: dict[str, list[bool]] = {}
    dead: list[str] = []
    for tensor in found.values():
        lora = _LORA_TENSOR.fullmatch(tensor.name)
        if lora is None or lora["part"] == "lora_magnitude_vector":
            continue
        pairs.setdefault(lora["module"], []).append(tensor.zero)
        if tensor.zero and lora["part"] in ("lora_A.weight", "lora_embedding_A"):
            dead.append(tensor.name)
    if pairs and all(any(zero) for zero in pairs.values()):
        problem = "has no effect: in every LoRA layer lora_A or lora_B is all zeros, as before training."
        yield Problem("", problem, "Deliver the trained adapter.", name)
    elif dead:
        # A zero lora_B is accepted in single layers, which may not have learned anything. lora_A is
        # random from the start.
        problem = f"has only zeros in {count(len(dead), 'tensor')} that training never sets to zero: {first(dead)}."
        yield Problem("", problem, "The file was damaged when it was written: save the adapter again.", name)


def _fits(found: Shape, expected: Shape) -> bool:
    return len(found) == len(expected) and all(size > 0 and wanted in (size, _ANY) for size, wanted in zip(found, expected))


def _shape_text(shape: Shape) -> str:
    return f"[{', '.join('?' if size == _ANY else str(size) for size in shape)}]"
