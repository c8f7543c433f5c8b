# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of docs/compatibility.md: the verdict on each adapter in tests/fixtures/trainers.

tests/contract/test_trainers.py compares the table with the product's verdicts.
"""

from __future__ import annotations

import json
import pathlib
import typing as t

from tests.support.paths import FIXTURES

TRAINERS = FIXTURES / "trainers"
# The base of most adapters.
BASE = FIXTURES / "bases" / "llama_with_tokenizer"
MADE: dict[str, dict[str, t.Any]] = json.loads((FIXTURES / "trainers.json").read_text(encoding="utf-8"))

DELIVERED, NOTE, REJECTED = "delivered", "delivered with a note", "rejected"


class Row(t.NamedTuple):
    """One adapter: its directory, its kind, the verdict on it, and why.

    ``says`` are words of the note or message, which the reason explains.
    """

    fixture: str
    kind: str
    verdict: str
    why: str = ""
    says: str = ""

    @property
    def tool(self) -> str:
        return str(MADE[self.fixture.partition("/")[0]]["tool"])

    @property
    def base(self) -> pathlib.Path:
        return FIXTURES / "bases" / str(MADE[self.fixture.partition("/")[0]]["base"])

    @property
    def packages(self) -> list[str]:
        return t.cast("list[str]", MADE[self.fixture.partition("/")[0]]["packages"])


_NO_TASK = "`task_type` is null."
_NO_TASK_SAYS = "task_type in adapter_config.json is null"
_MAPPING = "`auto_mapping` names transformers' class of the base, which does nothing."
_MAPPING_SAYS = "auto_mapping in adapter_config.json"
_NO_BASE = "It names no base."
_NO_BASE_SAYS = "names no base"
_PATH = "The base is a path of the training host."
_PATH_SAYS = "so only the tensors show which base it is"
_CHANGES_BASE = "Loading it changes the base. Convert it when saving."
_OTHER_METHOD = "Another method. Train LoRA, or convert it with `peft.save_as_lora`."
_HEADLESS = "Trained on the base without its head: PEFT would ignore every tensor."
_HEADLESS_SAYS = "without its head (AutoModel)"
_QUANTIZES = "Loading it changes the base. Deliver it with the base that LoftQ quantized, as PEFT's example saves it."
_PARTLY = "Level `structure` knows its tensors in part."
_UNKNOWN = "Level `structure` does not know the modules of this base."
_CONVERT = "Not PEFT's format. The message says how to convert it."


ROWS = (
    Row("peft-plain", "LoRA", DELIVERED),
    *(
        Row(f"peft-{version}", f"LoRA of PEFT {version}", DELIVERED)
        for version in ("0.5.0", "0.7.1", "0.9.0", "0.11.1", "0.13.2")
    ),
    Row("peft-all-linear", 'LoRA, `target_modules="all-linear"`', DELIVERED),
    Row("peft-default-targets", "LoRA, no `target_modules`", DELIVERED),
    Row("peft-regex-targets", "LoRA, `target_modules` as a pattern", DELIVERED),
    Row("peft-regex-excluded", "LoRA, `exclude_modules` as a pattern", DELIVERED),
    Row("peft-layers", "LoRA on some layers", DELIVERED),
    Row("peft-rank-pattern", "LoRA, patterns for ranks and alphas", DELIVERED),
    Row("peft-no-task-type", "LoRA without `task_type`", NOTE, _NO_TASK, _NO_TASK_SAYS),
    Row("peft-bf16", "LoRA in bfloat16", DELIVERED),
    Row("peft-mixed-dtypes", "LoRA in two dtypes", NOTE, "PEFT loads all tensors as one dtype.", "different dtypes: BF16, F32"),
    Row("peft-rslora", "rsLoRA", DELIVERED),
    Row("peft-dora", "DoRA", DELIVERED),
    Row("peft-lora-bias", "LoRA with biases of its own (`lora_bias`)", DELIVERED),
    Row("peft-bias-lora-only", '`bias="lora_only"`, base without biases', NOTE, "The base has no bias.", "bias in"),
    Row("peft-bias-all", '`bias="all"`, base without biases', NOTE, "The base has no bias.", "bias in"),
    Row("peft-trainable-tokens", "LoRA and trainable tokens", DELIVERED),
    Row(
        "peft-target-parameters",
        "LoRA on parameters (`target_parameters`)",
        NOTE,
        _PARTLY,
        "target_parameters",
    ),
    Row("peft-saved-head", "LoRA and a whole `lm_head`", DELIVERED),
    Row("peft-saved-norms", "LoRA and whole norms", DELIVERED),
    Row("peft-embedding-target", "LoRA on the embeddings, saved without those of the base", DELIVERED),
    Row(
        "peft-embedding-target-auto",
        "LoRA on the embeddings, saved with those of the base",
        NOTE,
        "Level `model` makes sure that they are those of the node's base.",
        "has embeddings of the base",
    ),
    Row(
        "peft-enlarged-vocabulary",
        "LoRA with an enlarged vocabulary",
        REJECTED,
        "Nodes need the enlarged base. On it, the adapter is delivered with a note.",
        "enlarged the vocabulary from 320 to 328 tokens",
    ),
    Row(
        "peft-weight-tying-unused",
        "`ensure_weight_tying` where nothing is tied",
        NOTE,
        "It changes nothing.",
        "ensure_weight_tying",
    ),
    Row("peft-gaussian", "LoRA, initialized by `gaussian`", DELIVERED),
    Row("peft-orthogonal", "LoRA, initialized by `orthogonal`", DELIVERED),
    Row("peft-mica", "LoRA, initialized by MiCA", DELIVERED),
    Row("peft-eva", "LoRA, initialized by EVA", DELIVERED),
    Row("peft-eva-redistributed", "LoRA, initialized by EVA with redistributed ranks", DELIVERED),
    Row("peft-loftq", "LoftQ of PEFT 0.13.2", REJECTED, _QUANTIZES, "quantizes the base again"),
    Row("peft-loftq-quantized-base", "LoftQ of PEFT 0.13.2, for the base that it quantized", NOTE, _PATH, _PATH_SAYS),
    Row("peft-pissa-converted", "PiSSA, converted", DELIVERED),
    Row("peft-olora-converted", "OLoRA, converted", DELIVERED),
    Row("peft-pissa", "PiSSA", REJECTED, _CHANGES_BASE, "which changes the base"),
    Row("peft-pissa-fast", "PiSSA with fast decomposition (`pissa_niter_4`)", REJECTED, _CHANGES_BASE, "random numbers"),
    Row("peft-olora", "OLoRA", REJECTED, _CHANGES_BASE, "which changes the base"),
    Row("peft-alora", "Activated LoRA", DELIVERED),
    Row("peft-bdlora", "BD-LoRA", NOTE, _PARTLY, "use_bdlora"),
    Row("peft-velora", "VeLoRA", DELIVERED),
    Row("peft-monteclora", "MonteCLoRA", DELIVERED),
    Row("peft-qalora", "QALoRA", NOTE, _PARTLY, "use_qalora"),
    Row("peft-kasa", "KaSA", REJECTED, "Loading it changes the base.", "change the base itself"),
    Row("peft-layer-replication", "Layer replication", REJECTED, "It adds layers to the base.", "change the base itself"),
    Row("peft-two-adapters", "Two adapters in one directory, the outer one", DELIVERED),
    Row(
        "peft-two-adapters/second",
        "Two adapters in one directory, the untrained inner one",
        REJECTED,
        "It was never trained.",
        "has no effect",
    ),
    Row("peft-save-as-lora", "LoKr, converted by `save_as_lora`", NOTE, _NO_TASK, _NO_TASK_SAYS),
    Row("peft-save-as-lora-threshold", "LoKr, converted by `save_as_lora` with a threshold", NOTE, _NO_TASK, _NO_TASK_SAYS),
    Row("peft-compiled", "LoRA on a compiled base (`torch.compile`)", REJECTED, "Its names have `_orig_mod`.", "_orig_mod"),
    Row("peft-without-head", "LoRA on `AutoModel`", REJECTED, _HEADLESS, _HEADLESS_SAYS),
    Row("peft-classifier", "LoRA of a classifier", REJECTED, "Not a causal language model.", '"SEQ_CLS"'),
    *(
        Row(f"peft-{name.lower()}", title, REJECTED, _OTHER_METHOD, says)
        for name, title, says in (
            ("ADALORA", "AdaLoRA", "is AdaLoRA, not LoRA"),
            ("IA3", "(IA)³", "not LoRA"),
            ("LOHA", "LoHa", "is LoHa, not LoRA"),
            ("LOKR", "LoKr", "is LoKr, not LoRA"),
            ("OFT", "OFT", "is OFT, not LoRA"),
            ("VERA", "VeRA", "is VeRA, not LoRA"),
            ("PREFIX-TUNING", "Prefix tuning", "is prefix tuning, not LoRA"),
            ("PROMPT-TUNING", "Prompt tuning", "is prompt tuning, not LoRA"),
        )
    ),
    Row("transformers-trainer/checkpoint-2", "Checkpoint of transformers' Trainer", DELIVERED),
    Row(
        "transformers-trainer",
        "The directory above checkpoints",
        REJECTED,
        "Name the checkpoint in `subdirectory`.",
        "subdirectory: checkpoint-2",
    ),
    Row("trl-sft", "SFTTrainer, `LoraConfig()`", NOTE, _NO_TASK, _NO_TASK_SAYS),
    Row("trl-sft-all-linear", "SFTTrainer, all linear layers", NOTE, _NO_TASK, _NO_TASK_SAYS),
    Row("trl-sft-saved-modules", "SFTTrainer, whole embeddings and `lm_head`", NOTE, _NO_TASK, _NO_TASK_SAYS),
    Row("trl-dpo", "DPOTrainer", DELIVERED),
    Row("trl-cli", "`trl sft --use_peft`", DELIVERED),
    Row("trl-moe", "SFTTrainer on a Qwen 3 MoE, all linear layers", NOTE, _PARTLY, "target_parameters"),
    Row("trl-moe-parameters", "SFTTrainer on a Qwen 3 MoE, `target_parameters`", NOTE, _PARTLY, "target_parameters"),
    Row("trl-vision", "SFTTrainer on a Qwen 2.5 VL, all linear layers", NOTE, _UNKNOWN, "The modules of base type"),
    Row("axolotl", "`lora_target_linear`", DELIVERED),
    Row("axolotl-saved-modules", "`lora_modules_to_save` with embeddings and `lm_head`", DELIVERED),
    Row("unsloth", "`FastLanguageModel.get_peft_model`", NOTE, _MAPPING, _MAPPING_SAYS),
    Row("unsloth-regex", "`FastModel.get_peft_model`, `target_modules` as a pattern", NOTE, _MAPPING, _MAPPING_SAYS),
    Row("llamafactory", "`llamafactory-cli train`", DELIVERED),
    Row("swift", "`swift sft --tuner_type lora`", NOTE, _PATH, _PATH_SAYS),
    Row("swift-dora", "`swift sft --use_dora true`", NOTE, _PATH, _PATH_SAYS),
    Row("mergekit-extracted", "`mergekit-extract-lora`", NOTE, _PATH, _PATH_SAYS),
    Row("mergekit-embeddings", "`mergekit-extract-lora --embed-lora`", NOTE, _PATH, _PATH_SAYS),
    Row("mergekit-without-undecomposable", "`mergekit-extract-lora --skip-undecomposable`", NOTE, _PATH, _PATH_SAYS),
    Row(
        "mergekit-rank-0",
        "`mergekit-extract-lora --sv-epsilon`, ranks of 0",
        REJECTED,
        "PEFT cannot load a module of rank 0.",
        "expected ranks of at least 1",
    ),
    Row("torchtune", "LoRA recipe", NOTE, _NO_TASK, _NO_TASK_SAYS),
    Row("torchtune-head", "LoRA recipe with `apply_lora_to_output`", NOTE, _NO_TASK, _NO_TASK_SAYS),
    Row(
        "torchtune-without-repository",
        "LoRA recipe, base not downloaded by `tune`",
        NOTE,
        f"{_NO_TASK} {_NO_BASE}",
        _NO_BASE_SAYS,
    ),
    Row(
        "torchtune-dora",
        "DoRA recipe",
        REJECTED,
        "torchtune does not write `use_dora`, so PEFT would ignore the magnitudes. Add it by hand.",
        "where torchtune leaves it out",
    ),
    Row("verl", "`verl.model_merger`", NOTE, _NO_BASE, _NO_BASE_SAYS),
    Row(
        "verl-without-meta",
        "`verl.model_merger` without `lora_train_meta.json`",
        REJECTED,
        "verl writes `lora_alpha` 0: no effect.",
        "lora_alpha in adapter_config.json: is 0",
    ),
    Row("tinker", "`build_lora_adapter`", DELIVERED),
    Row("sentence-transformers", "`SentenceTransformer.add_adapter`", REJECTED, _HEADLESS, _HEADLESS_SAYS),
    Row("adapterhub", "`save_adapter(use_safetensors=True)`", REJECTED, _CONVERT, "AdapterHub"),
    Row("mlx", "`mlx_lm.lora --train`", REJECTED, _CONVERT, "is an adapter of mlx-lm"),
    Row("paddleformers", "`LoRAModel.save_pretrained`", REJECTED, _CONVERT, "is an adapter of PaddleFormers"),
    Row("keras", "`save_lora_weights`", REJECTED, "Not PEFT's format, and without the layers' names.", "is an adapter of Keras"),
)

# The verdicts on tests/fixtures/public_configs.json: words of the message, and how many.
PUBLIC_ACCEPTED: dict[str, int] = {"accepted": 67, "accepted with a note": 15}
PUBLIC_REJECTED: dict[str, tuple[str, int]] = {
    "of a classifier, token classifier or encoder-decoder": ("task_type in adapter_config.json", 5),
    "without `peft_type`, of no known tool": ("peft_type in adapter_config.json: is missing", 4),
    "of mlx-lm": ("mlx-lm", 3),
    "of AdapterHub": ("AdapterHub", 1),
    "with another `revision` of the base, until it is declared": ("revision in adapter_config.json", 1),
    'with `peft_type` "none"': ('peft_type in adapter_config.json: is "none"', 1),
}
