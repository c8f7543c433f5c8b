# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The load test itself: a program of its own, run as C(python -I -B COPY request.json result.json).

It runs in the interpreter that serves the adapters, so it knows nothing of Ansible or of this collection and imports
torch, transformers, peft and safetensors only inside functions. C(_load_test) starts it and reads its result.

Request: C(device), C(memory_limit) (bytes, or null), C(dtype) and C(attention) (null: what suits the device), and
C(adapters), each with C(name), C(directory), C(weights_file), C(allow_pickle), C(level) (adapter, model or golden),
C(base_config) and C(base_path) (either may be null, not both), C(questions) (for level golden, see C(_golden_worker)) and
C(recording) (null, or C(prompts), C(length) and C(top): record a golden once level model is reached).
Result: C(adapters) (name to report), C(current) (the adapter in work, for a crash), C(versions), C(seconds) and
C(error) (what stopped the whole run: C(kind), C(detail)). It is written after every adapter.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import json
import math
import os
import platform
import re
import resource
import signal
import sys
import time
import typing as t
import warnings

# Relative, because the program is a package of its own where it runs: these files and nothing else of the collection.
from ._base_weights import base_weights
from ._device import (
    GIB,
    CannotRun,
    adapter_need,
    describe_device,
    first_match,
    free_memory,
    model_need,
    open_device,
    out_of_memory,
    shortage,
)
from ._golden_worker import answer, record

# PEFT's name for the adapter under test. Ours may hold dots, which PEFT cannot have in a name.
INSIDE = "delivery"
# float32 against float64 differs by about 3e-7; TF32 or a wrong kernel by 1e-3 and more.
TOLERANCE = 1e-4
TOKENS = 16
# With older ones even torch.load(weights_only=True) corrupts memory (CVE-2026-24747) or runs code (CVE-2025-32434).
SAFE_PICKLE_TORCH = (2, 10)


class Refused(Exception):
    """One thing that is wrong with an adapter or its base."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


class BaseRefused(Refused):
    """One thing that is wrong with a base: it says nothing of the adapter."""


class Shortage(Exception):
    """Memory does not suffice: it says nothing of the adapter nor of its base."""


@contextlib.contextmanager
def reading_base() -> t.Iterator[None]:
    """Makes a BaseRefused of what the user of this process may not read of a base."""
    try:
        yield
    except PermissionError as exc:
        problem = f"its base cannot be read by user {os.geteuid()}: {exc.filename}: {exc.strerror}."
        raise BaseRefused(problem, "Let this user read the whole base, and pass through all directories above it.") from exc


def go_offline(home: str) -> None:
    """Must run before the first import: huggingface_hub reads these while it is imported."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")):
            del os.environ[name]
    os.environ.update(
        HF_HOME=home,
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        DO_NOT_TRACK="1",
        TOKENIZERS_PARALLELISM="false",
        # cuda:1 is the one that nvidia-smi calls 1, not the second fastest.
        CUDA_DEVICE_ORDER="PCI_BUS_ID",
        # With a fixed workspace cuBLAS gives the same bits for the same input.
        CUBLAS_WORKSPACE_CONFIG=":4096:8",
    )


def versions(packages: t.Iterable[str]) -> dict[str, str]:
    """Import the packages and return their versions. Raises CannotRun."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = str(__import__(package).__version__)
        except ModuleNotFoundError as exc:
            raise CannotRun("package", (exc.name or package).partition(".")[0]) from exc
        except (ImportError, OSError, RuntimeError) as exc:
            raise CannotRun("import", f"{package} cannot be imported: {exc}") from exc
    import torch

    if torch.version.cuda:
        found["cuda"] = str(torch.version.cuda)
    return found


def read_tensors(adapter: dict[str, t.Any]) -> dict[str, t.Any]:
    """All tensors of the weights file on the CPU, by name. Raises Refused."""
    import torch
    from safetensors import SafetensorError, safe_open

    path = os.path.join(adapter["directory"], adapter["weights_file"])
    if path.endswith(".safetensors"):
        try:
            with safe_open(path, framework="pt", device="cpu") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # it is no dict
        except (SafetensorError, OSError) as exc:
            if out_of_memory(exc):
                raise
            raise Refused(f"{path} cannot be read: {exc}.", "Deliver it again.") from exc
    else:
        tensors = _unpickle(path, adapter["allow_pickle"])
    if not tensors:
        raise Refused(f"{path} holds no tensors.", "Save the adapter again on the training server.")
    for name, tensor in tensors.items():
        # NaN and infinity go through to the least and greatest value, in a fifth of the time of looking at each.
        if not all(torch.isfinite(extreme) for extreme in torch.aminmax(tensor)):
            raise Refused(f"tensor {name} holds NaN or infinity.", "Train or save the adapter again.")
    gains = [tensor for name, tensor in tensors.items() if "lora_B" in name or "lora_embedding_B" in name]
    if gains and not any(tensor.any() for tensor in gains):
        raise Refused("all lora_B tensors are zero: the adapter has no effect.", "It was never trained; save it again.")
    return tensors


def _unpickle(path: str, allowed: bool) -> dict[str, t.Any]:
    import torch

    remedy = "Save the adapter as safetensors on the training server."
    if not allowed:
        raise Refused(f"{path} is a pickle, which may carry code.", f"{remedy} Or set allow_pickle for this adapter.")
    if _numbers(torch.__version__) < SAFE_PICKLE_TORCH:
        raise Refused(
            f"{path} is a pickle and torch {torch.__version__} cannot read one safely.",
            f"{remedy} Or install torch {'.'.join(map(str, SAFE_PICKLE_TORCH))} or newer on the node.",
        )
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged or hostile pickle raises nearly anything.
    except Exception as exc:
        if out_of_memory(exc):
            raise
        raise Refused(f"{path} cannot be read: {_text(exc)}.", remedy) from exc
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in loaded.items()
    ):
        raise Refused(f"{path} holds something else than tensors with names.", remedy)
    return {name: tensor.detach() for name, tensor in loaded.items()}


def read_base_config(adapter: dict[str, t.Any]) -> t.Any:
    """The base's configuration as transformers understands it. Raises Refused."""
    from transformers import AutoConfig

    raw = adapter["base_config"]
    if adapter["base_path"] is not None:
        with reading_base(), open(os.path.join(adapter["base_path"], "config.json"), encoding="utf-8") as stream:
            raw = json.load(stream)
    # For some such keys transformers 4.56 to 5.2 takes code from the Hub whatever it is told (CVE-2026-4372).
    hooks = sorted(set(re.findall(r'"(auto_map|\w*_internal\w*)":', json.dumps(raw))))
    if hooks:
        raise Refused(f"the base's config.json has {', '.join(hooks)}, which can bring in code.", "Use a base without it.")
    if not raw.get("model_type"):
        raise Refused("the declared config of its base has no model_type.", "Add it in the inventory, or set path.")
    try:
        if adapter["base_path"] is not None:
            return AutoConfig.from_pretrained(adapter["base_path"], local_files_only=True, trust_remote_code=False)
        return AutoConfig.for_model(**raw)
    except ValueError as exc:
        problem = f"its base is of type {raw['model_type']!r}, with which transformers cannot do anything: {_text(exc)[:200]}."
        raise BaseRefused(problem, "Correct the base, or install a version of transformers that knows it.") from exc


def adapter_parameters(model: t.Any) -> dict[str, t.Any]:
    """PEFT's own answer to: which parameters make the adapter, under the names that its file has."""
    from peft import get_peft_model_state_dict

    return t.cast(
        "dict[str, t.Any]",
        get_peft_model_state_dict(
            model, state_dict=model.state_dict(keep_vars=True), adapter_name=INSIDE, save_embedding_layers=False
        ),
    )


def inject(adapter: dict[str, t.Any], base: t.Any, **options: t.Any) -> t.Any:
    """Put PEFT's layers into the base, as the adapter's configuration says."""
    from peft import LoraConfig, PeftModelForCausalLM

    # Not PeftConfig: before 0.15 that gives defaults in place of what an adapter says that a newer version has saved.
    return PeftModelForCausalLM(base, LoraConfig.from_pretrained(adapter["directory"]), INSIDE, **options).eval()


def check_names(expected: dict[str, t.Any], tensors: dict[str, t.Any]) -> None:
    """Raises Refused when the file has other tensors than PEFT wants for this configuration and base."""
    remedy = "The adapter does not belong to this base or configuration: check both, deliver the right one."
    missing = sorted(set(expected) - set(tensors))
    if missing:
        raise Refused(f"the weights file lacks {_some(missing)}.", remedy)
    extra = sorted(set(tensors) - set(expected))
    if extra:
        raise Refused(f"the weights file has {_some(extra)}, which PEFT does not make for such an adapter.", remedy)
    for name, wanted in expected.items():
        if tuple(wanted.shape) != tuple(tensors[name].shape):
            raise Refused(f"tensor {name} has shape {list(tensors[name].shape)}, PEFT expects {list(wanted.shape)}.", remedy)


def check_same(loaded: dict[str, t.Any], tensors: dict[str, t.Any], device: t.Any) -> None:
    """Raises Refused when a loaded parameter is elsewhere than on the device or differs from the file."""
    import torch

    for name, tensor in tensors.items():
        parameter = loaded[name].detach()
        if parameter.device != device:
            raise Refused(f"tensor {name} is on {parameter.device} after loading, not on {device}.", _REPORT)
        back = parameter.cpu()
        # LoRA tensors may only be widened; whole modules (modules_to_save) take the dtype of the base.
        wanted = tensor if "lora_" in name else tensor.to(back.dtype)
        # Comparing in the wider of the two dtypes loses nothing.
        wider = torch.promote_types(back.dtype, wanted.dtype)
        if not torch.equal(back.to(wider), wanted.to(wider)):
            raise Refused(f"tensor {name} differs from the file after it was loaded on {device}.", _REPORT)


def adapter_level(
    adapter: dict[str, t.Any], tensors: dict[str, t.Any], device: t.Any, limit: t.Optional[int] = None
) -> tuple[float, list[str]]:
    """PEFT's injection over a base without weights, the adapter's tensors really on the device. Raises Refused, Shortage."""
    import torch
    from transformers import AutoModelForCausalLM

    need = adapter_need(sum(tensor.numel() for tensor in tensors.values()))
    reason = shortage("the adapter alone", need, free_memory(device), limit, str(device))
    if reason:
        raise Shortage(reason)
    started = time.monotonic()
    config = read_base_config(adapter)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model = inject(adapter, base, low_cpu_mem_usage=True, autocast_adapter_dtype=False)
    expected = adapter_parameters(model)
    check_names(expected, tensors)
    # PEFT would move the tensors to where its base is, which is nowhere here; so they are put in by hand.
    file_names = {id(parameter): name for name, parameter in expected.items()}
    placed = {
        name: tensors[file_names[id(parameter)]].to(device)
        for name, parameter in model.state_dict(keep_vars=True).items()
        if id(parameter) in file_names
    }
    model.load_state_dict(placed, strict=False, assign=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.monotonic() - started
    return seconds, prove(model, adapter, tensors, device)


def prove(model: t.Any, adapter: dict[str, t.Any], tensors: dict[str, t.Any], device: t.Any) -> list[str]:
    """What level adapter proves of a model whose names are checked and into which the tensors are loaded. Raises Refused."""
    check_same(adapter_parameters(model), tensors, device)
    computed, left_out = _compute(model, adapter, device)
    checks = [
        f"{len(tensors)} tensors have the names and shapes that PEFT expects.",
        f"{len(tensors)} tensors are bit-equal to the file on {device}.",
        f"{computed} modules compute the same as float64, within {TOLERANCE:g}.",
    ]
    if left_out:
        checks.append(f"{left_out} modules are not plain linear ones: names and bits were checked, no computation.")
    return checks


def _compute(model: t.Any, adapter: dict[str, t.Any], device: t.Any) -> tuple[int, int]:
    """Compare scaling * B(A(x)) of every module on the device with float64 on the CPU; counts of done and left out."""
    import torch
    from peft.tuners.lora import LoraLayer

    with open(os.path.join(adapter["directory"], "adapter_config.json"), encoding="utf-8") as stream:
        config = json.load(stream)
    random = torch.Generator().manual_seed(0)
    computed = left_out = 0
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        if INSIDE not in layer.lora_A or not isinstance(layer.lora_A[INSIDE], torch.nn.Linear):
            left_out += 1
            continue
        # What PEFT does too when it loads an adapter of half precision for use.
        down, up = layer.lora_A[INSIDE].float(), layer.lora_B[INSIDE].float()
        scaling = layer.scaling[INSIDE]
        wanted = _scaling(config, down.out_features)
        if wanted is not None and not math.isclose(scaling, wanted, rel_tol=1e-9):
            raise Refused(f"PEFT scales {name} by {scaling}, the configuration means {wanted}.", _REPORT)
        x = torch.randn(4, down.in_features, generator=random)
        with torch.no_grad():
            y = (up(down(x.to(device))) * scaling).cpu().double()
            exact = x.double() @ down.weight.cpu().double().T @ up.weight.cpu().double().T
            if up.bias is not None:
                exact = exact + up.bias.cpu().double()
            exact = exact * scaling
        if not torch.isfinite(y).all():
            raise Refused(f"{name} computes NaN or infinity on {device}.", "Train or save the adapter again.")
        if (y - exact).norm() > TOLERANCE * exact.norm():
            error = float((y - exact).norm() / exact.norm())
            raise Refused(f"{name} computes something else on {device} than in float64 (error {error:.1e}).", _HARDWARE)
        computed += 1
    return computed, left_out


def _scaling(config: dict[str, t.Any], rank: int) -> t.Optional[float]:
    """What lora_alpha and the rank mean; None where a pattern makes it differ between modules."""
    if config.get("alpha_pattern"):
        return None
    alpha = float(config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def checksums(model: t.Any) -> dict[str, int]:
    """For each weight and buffer of a model a sum over its bits, in which every row counts with its number."""
    import torch

    sums = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.numel():
            continue
        rows = tensor.detach().reshape(len(tensor) if tensor.dim() else 1, -1).contiguous().view(torch.uint8)
        # By words where that is possible, which is faster.
        rows = rows.view(torch.int32) if rows.shape[1] % 4 == 0 else rows
        weights = torch.arange(1, len(rows) + 1, device=rows.device)
        sums[name] = int((rows.sum(dim=1, dtype=torch.int64) * weights).sum())
    return sums


class LoadedBase:
    """A base with its weights on the device, loaded at the first use and kept for all adapters that share it.

    C(limit) is how many bytes may be taken at most, C(dtype) and C(attention) what it is computed with, where that is not
    what suits the device.
    """

    def __init__(
        self,
        path: str,
        device: t.Any,
        adapter_bytes: int,
        limit: t.Optional[int] = None,
        dtype: t.Optional[str] = None,
        attention: t.Optional[str] = None,
    ) -> None:
        self.path = path
        self.device = device
        self.adapter_bytes = adapter_bytes
        self.limit = limit
        # bfloat16 is what is served; on a CPU it is ten times slower than float32.
        self.dtype = dtype or ("bfloat16" if device.type == "cuda" else "float32")
        self.attention = attention
        self.model: t.Any = None
        self.ids: t.Any = None
        self.logits: t.Any = None
        self.checksums: t.Any = None

    def load(self, config: t.Any) -> None:
        """Load the base unless it is there. Raises BaseRefused, Shortage."""
        import torch
        import transformers

        if self.model is not None:
            return
        # What the last adapter left may hang in a cycle and would be counted as taken.
        self.drop()
        with reading_base():
            files = base_weights(self.path)
            absent = [path for path in files if not _opens(path)]
        if not files:
            raise BaseRefused(f"its base {self.path} has no safetensors weights.", "Put the base there, or correct path.")
        if absent:
            raise BaseRefused(f"its base lacks {_some(absent)}.", "Bring the whole base to the node.")
        on_gpu = self.device.type == "cuda"
        need = model_need(sum(map(os.path.getsize, files)), _config_dtype(config), self.dtype, self.adapter_bytes)
        reason = shortage(f"the base {self.path}", need, free_memory(self.device), self.limit, str(self.device))
        if reason:
            raise Shortage(reason)
        options: dict[str, t.Any] = {"attn_implementation": self.attention} if self.attention else {}
        if on_gpu:
            # Whatever goes wrong with the estimate, it goes wrong in this process and not in the one that serves.
            total = torch.cuda.get_device_properties(self.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, need / total), self.device)
            options["device_map"] = {"": str(self.device)}
        options["dtype" if _numbers(transformers.__version__) >= (4, 56) else "torch_dtype"] = getattr(torch, self.dtype)
        try:
            model, loading = transformers.AutoModelForCausalLM.from_pretrained(
                self.path,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
        # transformers raises what it likes.
        except Exception as exc:
            if out_of_memory(exc):
                raise
            raise BaseRefused(
                f"its base {self.path} cannot be loaded: {_text(exc)}.", "Bring the base to the node again, whole."
            ) from exc
        missing = sorted(loading["missing_keys"])
        if missing:
            raise BaseRefused(f"its base {self.path} lacks {_some(missing)}.", "Bring the whole base to the node.")
        self.model = model.eval()
        count = model.get_input_embeddings().num_embeddings
        self.ids = torch.tensor([[(11 + 7919 * place) % count for place in range(TOKENS)]], device=self.device)
        self.logits = self.forward()
        if not torch.isfinite(self.logits).all():
            self.drop()
            raise BaseRefused(f"its base {self.path} answers NaN or infinity.", "Bring the base to the node again.")
        self.checksums = checksums(self.model)

    def forward(self, model: t.Any = None) -> t.Any:
        """Logits over a fixed sequence of token ids, on the CPU."""
        import torch

        with torch.no_grad():
            return (self.model if model is None else model)(input_ids=self.ids, use_cache=False).logits[0].cpu()

    def take_back(self, model: t.Any) -> bool:
        """Take the adapter's layers out of the base for the next adapter; whether the base is what it was before them."""
        import torch

        if model.peft_config[INSIDE].modules_to_save:
            # Before 0.21 PEFT fails in several ways to take whole modules out, so they are switched off and the base is dropped.
            with model.disable_adapter():
                same = bool(torch.equal(self.forward(model), self.logits))
            self.drop()
            return same
        model.delete_adapter(INSIDE)
        self.model = model.base_model.unload()
        return bool(checksums(self.model) == self.checksums)

    def drop(self) -> None:
        """Give the base's memory back."""
        self.model = self.ids = self.logits = self.checksums = None
        give_back(self.device)


def give_back(device: t.Any) -> None:
    """Give the device what nothing refers to any more, be it in a cycle or in torch's cache."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def model_level(
    adapter: dict[str, t.Any], tensors: dict[str, t.Any], base: LoadedBase
) -> tuple[t.Any, float, float, list[str]]:
    """Level adapter on the loaded base, through PEFT's load_adapter, and the answers. Raises Refused.

    Returns the model, which C(base) is to take back, seconds, effect and checks.
    """
    import torch

    started = time.monotonic()
    model = inject(adapter, base.model)
    # Before anything is loaded: what has another name could overwrite the base, which others share.
    check_names(adapter_parameters(model), tensors)
    outcome = model.load_adapter(adapter["directory"], INSIDE, torch_device=str(base.device))
    if base.device.type == "cuda":
        torch.cuda.synchronize(base.device)
    seconds = time.monotonic() - started
    for keys, what in ((outcome.missing_keys, "missing"), (outcome.unexpected_keys, "unexpected")):
        if keys:
            raise Refused(f"PEFT reports {what} keys: {_some(sorted(keys))}.", "Deliver the right adapter.")
    nowhere = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if nowhere:
        raise Refused(f"PEFT left without values: {_some(nowhere)}.", _REPORT)
    checks = prove(model, adapter, tensors, base.device)
    with_adapter = base.forward(model)
    if not torch.isfinite(with_adapter).all():
        raise Refused("the model answers NaN or infinity with this adapter.", "Train or save the adapter again.")
    without = base.logits.float()
    effect = float((with_adapter.float() - without).norm() / without.norm())
    if effect == 0:
        raise Refused("the adapter does not change the model's answer at all.", "It has no effect: check its training.")
    return (
        model,
        seconds,
        effect,
        [
            *checks,
            f"The base was loaded in {base.dtype} on {base.device}, no weight missing.",
            "PEFT's own loading reports no tensor missing and none unexpected.",
            f"The logits are finite and the adapter changes them by {effect:.3g} of their norm.",
        ],
    )


def empty_report(**known: t.Any) -> dict[str, t.Any]:
    """A report in which nothing was tested yet."""
    return {
        "dtype": None,
        "passed": False,
        "level": None,
        "load_seconds": None,
        "peak_memory_bytes": None,
        "effect": None,
        "answer": None,
        "recorded": None,
        "checks": [],
        "why_not_more": None,
        "warnings": [],
        "problems": [],
        **known,
    }


def examine(
    adapter: dict[str, t.Any], base: t.Optional[LoadedBase], device: t.Any, limit: t.Optional[int] = None
) -> dict[str, t.Any]:
    """The report of one adapter; never raises for anything that is wrong with the adapter."""
    import torch

    on_gpu = device.type == "cuda"
    report = empty_report(**describe_device(device))
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _climb(adapter, base, device, report, limit)
            report["passed"] = report["level"] == adapter["level"]
        except Refused as exc:
            report["problems"].append(_problem(adapter, exc.problem, exc.remedy))
        # PEFT and transformers raise what they like; the adapter after this one is to be tested all the same.
        except Exception as exc:
            report["problems"].append(_problem(adapter, f"cannot be loaded: {_text(exc)}.", _REPORT))
            if base is not None:
                base.drop()
    from_peft = [one for one in caught if f"{os.sep}peft{os.sep}" in one.filename]
    report["warnings"] = sorted({str(one.message) for one in from_peft if issubclass(one.category, UserWarning)})
    if on_gpu:
        report["peak_memory_bytes"] = int(torch.cuda.max_memory_allocated(device))
        torch.cuda.empty_cache()
    return report


def _climb(
    adapter: dict[str, t.Any], base: t.Optional[LoadedBase], device: t.Any, report: dict[str, t.Any], limit: t.Optional[int]
) -> None:
    """Take the adapter as high as its level asks and memory permits, noting in the report what was reached. Raises Refused."""

    def fits(step: t.Callable[[], object]) -> bool:
        return _within_memory(step, base, device, report)

    tensors: dict[str, t.Any] = {}
    if not fits(lambda: tensors.update(read_tensors(adapter))):
        return
    broken = None
    if adapter["level"] != "adapter":
        try:
            if fits(lambda: _reach_model(adapter, tensors, base, report)):
                return
        except BaseRefused as exc:
            # Not the one that was raised: it keeps alive what the functions held that it came through.
            broken = BaseRefused(exc.problem, exc.remedy)
    # On the meta device: this level was asked for, or is what can be said without the base.
    fits(lambda: _reach_adapter(adapter, tensors, device, report, limit))
    if broken is not None:
        raise broken


def _within_memory(step: t.Callable[[], object], base: t.Optional[LoadedBase], device: t.Any, report: dict[str, t.Any]) -> bool:
    """Whether memory sufficed for a step. Where it did not, all that was taken is given back and the report says so."""
    try:
        step()
        return True
    except Shortage as exc:
        report["why_not_more"] = str(exc)
    except Exception as exc:
        if not out_of_memory(exc):
            raise
        report["why_not_more"] = f"memory ran out on {device}: {_text(exc)}."
    # Not before the exception is gone, which keeps alive what the functions held that it came through.
    if base is not None:
        base.drop()
    else:
        give_back(device)
    return False


def _reach_adapter(
    adapter: dict[str, t.Any], tensors: dict[str, t.Any], device: t.Any, report: dict[str, t.Any], limit: t.Optional[int]
) -> None:
    """Level adapter, and what the report says of it. Raises Refused, Shortage."""
    seconds, checks = adapter_level(adapter, tensors, device, limit)
    report.update(level="adapter", load_seconds=seconds, checks=checks)


def _reach_model(
    adapter: dict[str, t.Any], tensors: dict[str, t.Any], base: t.Optional[LoadedBase], report: dict[str, t.Any]
) -> None:
    """Level model with the questions of level golden, and what the report says of them. Raises Refused, Shortage."""
    if base is None:
        raise Refused(f"level {adapter['level']} needs the base's weights.", "Set its base's path, or ask for level adapter.")
    try:
        base.load(read_base_config(adapter))
        model, seconds, effect, checks = model_level(adapter, tensors, base)
        answered = answer(model, adapter["questions"]) if adapter["level"] == "golden" else None
        recorded = _record(adapter, model) if adapter.get("recording") else None
        if not base.take_back(model):
            raise Refused("the base is another one once the adapter is taken out of it.", "The adapter changes its base.")
    except Refused:
        # The base may carry the adapter's layers now, or be changed by it: the next adapter gets a fresh one.
        base.drop()
        raise
    checks.append("The base is bit-equal to before once the adapter is taken out of it.")
    report.update(level="model" if answered is None else "golden", dtype=base.dtype, load_seconds=seconds, effect=effect)
    report.update(answer=answered, recorded=recorded, checks=checks)


def _record(adapter: dict[str, t.Any], model: t.Any) -> dict[str, t.Any]:
    """A golden of the model as it is, with the adapter's own tokenizer. Raises Refused."""
    from transformers import AutoTokenizer

    wanted = adapter["recording"]
    own = os.path.exists(os.path.join(adapter["directory"], "tokenizer_config.json"))
    tokenizer = AutoTokenizer.from_pretrained(
        adapter["directory"] if own else adapter["base_path"], local_files_only=True, trust_remote_code=False
    )
    prompts = [_token_ids(tokenizer, prompt) for prompt in wanted["prompts"]]
    most = getattr(model.config, "max_position_embeddings", None)
    for prompt, ids in zip(wanted["prompts"], prompts):
        if not ids or (most and len(ids) + wanted["length"] > most):
            raise Refused(
                f"the prompt {json.dumps(prompt, ensure_ascii=False)[:80]} has {len(ids)} tokens, which is none or too many.",
                "Correct it in the inventory.",
            )
    return record(model, prompts, wanted["length"], wanted["top"])


def _token_ids(tokenizer: t.Any, prompt: t.Union[str, dict[str, str]]) -> list[int]:
    """A prompt as the model gets it: a text as it stands, or messages in the form of the chat template."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    if not tokenizer.chat_template:
        raise Refused("its tokenizer has no chat template.", "Give its prompts as plain texts, or save the template with it.")
    messages = [{"role": role, "content": prompt[role]} for role in ("system", "user") if role in prompt]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    # The template has put the special tokens in.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


_REPORT = "Try with the versions of PEFT and transformers that it was trained with."
_HARDWARE = "The device computes wrongly: look at its driver, its errors (dmesg, ECC), and the build of torch."


def _problem(adapter: dict[str, t.Any], problem: str, remedy: str) -> dict[str, str]:
    return {"subject": adapter["name"], "problem": problem, "remedy": remedy}


def _text(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {' '.join(str(exc).split())}".rstrip(". :")[:500]


def _some(names: t.Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _opens(path: str) -> bool:
    """Whether a file is there. Raises PermissionError where it may not be read."""
    try:
        with open(path, "rb"):
            return True
    except FileNotFoundError:
        return False


def _size(adapter: dict[str, t.Any]) -> int:
    path = os.path.join(adapter["directory"], adapter["weights_file"])
    return os.path.getsize(path) if os.path.isfile(path) else 0


def _numbers(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def _config_dtype(config: t.Any) -> str:
    dtype = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    return str(dtype).replace("torch.", "")


def run(request: dict[str, t.Any], save: t.Callable[[dict[str, t.Any]], None]) -> None:
    """Test all adapters of a request; C(save) gets the whole result whenever there is more of it."""
    started = time.monotonic()
    result: dict[str, t.Any] = {"adapters": {}, "current": None, "versions": {}, "error": None, "seconds": 0.0}
    try:
        result["versions"] = versions(request["packages"])
        device, limit = open_device(request["device"]), request.get("memory_limit")
        bases = sorted({adapter["base_path"] or "" for adapter in request["adapters"]})
        for path in bases:
            group = [adapter for adapter in request["adapters"] if (adapter["base_path"] or "") == path]
            options = (request.get("dtype"), request.get("attention"))
            base = LoadedBase(path, device, max(map(_size, group)), limit, *options) if path else None
            for adapter in group:
                result["current"] = adapter["name"]
                save(result)
                result["adapters"][adapter["name"]] = examine(adapter, base, device, limit)
            if base is not None:
                base.drop()
    except CannotRun as exc:
        if exc.kind == "memory":
            nothing = empty_report(device=request["device"], why_not_more=f"{exc.detail}.")
            result["adapters"] = {adapter["name"]: nothing for adapter in request["adapters"]}
        else:
            result["error"] = {"kind": exc.kind, "detail": exc.detail}
    result["current"] = None
    result["seconds"] = round(time.monotonic() - started, 3)
    save(result)


def die_with_parent() -> None:
    """Whoever started this may be killed, and a process left alone would hold the GPU's memory."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def confine(adapters: list[dict[str, t.Any]]) -> None:
    """Give up what this process does not need, and let nothing that serves on this host pay for its mistakes."""
    set_no_new_privileges = 38
    ctypes.CDLL(None).prctl(set_no_new_privileges, 1, 0, 0, 0)
    # A core dump of this would be as large as the base.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as stream:
        # Whoever makes memory run out, the kernel ends this process first.
        stream.write("1000")
    available = first_match("/proc/meminfo", r"MemAvailable:\s*(\d+) kB")
    if available:
        # Not the whole address space: CUDA reserves far more of it than there is memory. Files of weights are mapped, and count.
        most = int(available) * 1024 + sum(map(_size, adapters)) + 2 * GIB
        for base in {adapter["base_path"] for adapter in adapters if adapter["base_path"]}:
            # What may not be read is said when it is to be loaded.
            with contextlib.suppress(PermissionError):
                most += sum(os.path.getsize(path) for path in base_weights(base) if os.path.isfile(path))
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def main() -> None:
    die_with_parent()
    faulthandler.enable()
    request_path, result_path = map(os.path.abspath, sys.argv[1:])
    go_offline(os.path.join(os.path.dirname(result_path), "huggingface"))
    with open(request_path, encoding="utf-8") as stream:
        request = json.load(stream)
    confine(request["adapters"])

    def save(result: dict[str, t.Any]) -> None:
        temporary = f"{result_path}.new"
        with open(temporary, "w", encoding="utf-8") as opened:
            json.dump(result, opened)
        os.replace(temporary, result_path)

    run(request, save)


if __name__ == "__main__":
    main()
