# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PEFT's own judgement of an adapter, in one long-lived process of the PEFT interpreter.

Run as a program, it reads requests as lines of JSON and answers each with one line. ``Oracle`` is
the other end. An adapter is good if PEFT loads it, each tensor of the file is in the model as PEFT
would save it again or is one of the base's own, nothing else was expected, the answers change, and
the base is as before once the adapter is switched off.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import typing as t

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
SECONDS = 60


class Oracle:
    """The process: ``make`` an adapter from the options of LoraConfig, and ``judge`` one."""

    def __init__(self, python: str, base: pathlib.Path) -> None:
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  # open as long as the process
        self._child = subprocess.Popen(
            [python, "-B", __file__, str(base)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            bufsize=1,
        )

    def make(self, options: dict[str, t.Any], directory: pathlib.Path, embeddings: bool | str = False) -> str:
        """Save an adapter of these options. Returns why PEFT cannot, otherwise nothing.

        ``embeddings`` is PEFT's ``save_embedding_layers``.
        """
        return str(self._ask({"make": options, "directory": str(directory), "embeddings": embeddings})["error"])

    def judge(self, directory: pathlib.Path) -> dict[str, t.Any]:
        """Return the ``faults`` that PEFT shows, and why level model rejects it (``refused``)."""
        return self._ask({"directory": str(directory)})

    def close(self) -> None:
        self._child.kill()
        self._child.wait()

    def _ask(self, request: dict[str, t.Any]) -> dict[str, t.Any]:
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(json.dumps(request) + "\n")
        ready = select.select([self._child.stdout], [], [], SECONDS)[0]
        answer = self._child.stdout.readline() if ready else ""
        if not answer:
            self.close()
            self._stderr.seek(0)
            raise AssertionError(f"PEFT hangs or crashed on {request}:\n{self._stderr.read()[-3000:]}")
        return t.cast("dict[str, t.Any]", json.loads(answer))


class Judge:
    """The other end of ``Oracle``, in the PEFT interpreter."""

    def __init__(self, base: str) -> None:
        import torch
        import transformers
        from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker import model_level

        torch.set_num_threads(1)
        self.base_path = base
        self.base = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        self.ids = torch.arange(40, 72)[None]
        self.logits = self.answers(self.base)
        self.device = torch.device("cpu")
        self.loaded = model_level.LoadedBase(base, self.device, 0)

    def answers(self, model: t.Any) -> t.Any:
        import torch

        with torch.no_grad():
            return model(input_ids=self.ids, use_cache=False).logits

    def make(self, options: dict[str, t.Any], directory: str, embeddings: bool | str) -> None:
        import peft
        import torch

        torch.manual_seed(1)
        config = peft.LoraConfig(**options)
        model = peft.get_peft_model(copy.deepcopy(self.base), config)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_A" not in name:
                parameter.data.add_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(directory, save_embedding_layers=embeddings)

    def faults(self, directory: str) -> list[str]:
        import peft
        import torch
        from safetensors.torch import load_file

        base = copy.deepcopy(self.base)
        try:
            config = peft.PeftConfig.from_pretrained(directory)
            config.inference_mode = True
            kind = peft.MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, peft.PeftModel)
            model = kind(base, config, "default")
            loaded = model.load_adapter(directory, "default", torch_device="cpu")
            found = load_file(os.path.join(directory, "adapter_model.safetensors"))
            saved = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
            model.eval()
            adapted = self.answers(model)
            with model.disable_adapter():
                without = self.answers(model)
        # PEFT raises any exception.
        except Exception as exc:
            return [f"error: {type(exc).__name__}: {str(exc)[:300]}"]
        faults = [f"missing: {key}" for key in loaded.missing_keys] + [f"unexpected: {key}" for key in loaded.unexpected_keys]
        faults += [f"not in the file: {key}" for key in saved if key not in found]
        weights = {f"base_model.model.{name}": one for name, one in self.base.state_dict().items()}
        for key, tensor in found.items():
            if key not in saved:
                weight = weights.get(key.replace(".base_layer.", "."))
                if key in model.state_dict() and weight is not None and torch.equal(weight, tensor.to(weight.dtype)):
                    continue
                faults.append(f"not in the model: {key}")
            elif saved[key].shape != tensor.shape or not torch.equal(saved[key].float(), tensor.float()):
                faults.append(f"other values in the model: {key}")
        if not torch.isfinite(adapted).all():
            faults.append("the answers are not finite")
        if torch.equal(adapted, self.logits):
            faults.append("no effect")
        if not torch.equal(without, self.logits):
            faults.append("the base has changed")
        return faults

    def refused(self, directory: str) -> list[str]:
        """Return the problems of level model of the load test."""
        from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker import levels, protocol

        target = protocol.Target("adapter", directory, "adapter_model.safetensors", "model", None, self.base_path, False)
        report = levels.run_levels(target, self.loaded, self.device, {})
        return [f"{failure.problem} {failure.remedy}" for failure in report.failures]


def main() -> None:
    """Answer requests until there are no more. Only the answers go to stdout."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    sys.path.insert(0, str(CHECKOUT / ".collections"))
    judge = Judge(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        if "make" in request:
            error = ""
            try:
                judge.make(request["make"], request["directory"], request["embeddings"])
            except Exception as exc:
                error = f"{type(exc).__name__}: {exc}"[:300] or "failed"
            answer: dict[str, t.Any] = {"error": error}
        else:
            answer = {"faults": judge.faults(request["directory"]), "refused": judge.refused(request["directory"])}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
