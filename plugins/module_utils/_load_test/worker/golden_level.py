# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Level golden: log-probabilities along given tokens, and their recording.

Part of the load test's worker.

A question has ``ids`` (token ids of prompt and answer), ``start`` (the length of the prompt) and
``tokens`` (for each token of the answer, the ids whose log-probabilities are compared). An answer
has ``on`` and ``off``, with and without the adapter: for each question, for each token of its
answer, the log-probabilities of those ids.
"""

from __future__ import annotations

import contextlib
import json
import os
import typing as t

from ..._adapter.files import TOKENIZER_CONFIG
from .adapter_level import invocation_tokens
from .errors import CheckFailed
from .protocol import Recording, Target

# Smaller differences are noise on any device, and every digit is part of the manifest.
DECIMALS = 4

Question = t.Dict[str, t.Any]
Answer = t.Dict[str, t.List[t.List[t.List[float]]]]


def answer(model: t.Any, questions: t.Sequence[Question]) -> Answer:
    """Return the model's answer to all questions, with the adapter and without it."""
    return {
        "on": [_answered(model, question) for question in questions],
        "off": [_answered(model, question, adapter=False) for question in questions],
    }


def record(model: t.Any, target: Target) -> dict[str, t.Any]:
    """Have the model answer the prompts greedily and turn the answers into questions.

    Returns ``questions``, their ``answer``, and the answer with another attention kernel
    (``other``, None if the model has no other), with the names ``attention`` and
    ``other_attention``. Raises CheckFailed.
    """
    recording = t.cast(Recording, target.recording)
    attention = _attention(model)
    questions: list[Question] = []
    first: Answer = {"on": [], "off": []}
    for prompt in _tokenized(model, target, recording):
        ids = [*prompt, *_greedy(model, prompt, recording.length)]
        on, off = (_log_probabilities(model, ids, len(prompt), with_adapter) for with_adapter in (True, False))
        likeliest = (rows.topk(recording.top).indices.tolist() for rows in (on, off))
        # In the order of the ids, which does not depend on noise.
        tokens = [sorted({*here, *there}) for here, there in zip(*likeliest)]
        questions.append({"ids": ids, "start": len(prompt), "tokens": tokens})
        first["on"].append(_select(on, tokens))
        first["off"].append(_select(off, tokens))
    other_attention = "sdpa" if attention == "eager" else "eager"
    with _using(model, other_attention) as changed:
        other = answer(model, questions) if changed else None
    return {
        "questions": questions,
        "answer": first,
        "attention": attention,
        "other": other,
        "other_attention": other_attention,
    }


def _tokenized(model: t.Any, target: Target, recording: Recording) -> list[list[int]]:
    """Return the prompts as token ids, by the adapter's tokenizer if it has one.

    Raises CheckFailed.
    """
    from transformers import AutoTokenizer

    own = os.path.exists(os.path.join(target.directory, TOKENIZER_CONFIG))
    tokenizer = AutoTokenizer.from_pretrained(
        target.directory if own else target.base_path, local_files_only=True, trust_remote_code=False
    )
    invocation = invocation_tokens(model)
    prompts = [_invoked(_token_ids(tokenizer, prompt), invocation) for prompt in recording.prompts]
    most = getattr(model.config, "max_position_embeddings", None)
    for prompt, ids in zip(recording.prompts, prompts):
        if not ids or (most and len(ids) + recording.length > most):
            raise CheckFailed(
                f"the prompt {json.dumps(prompt, ensure_ascii=False)[:80]} has {len(ids)} tokens, none or too many for it.",
                "Correct it in prompts.",
            )
    return prompts


def _invoked(ids: list[int], invocation: list[int]) -> list[int]:
    """Return a prompt with the invocation tokens, without which Activated LoRA has no effect."""
    size = len(invocation)
    has_them = any(ids[start : start + size] == invocation for start in range(len(ids)))
    return ids if has_them else [*ids, *invocation]


def _token_ids(tokenizer: t.Any, prompt: str | dict[str, str]) -> list[int]:
    """Return the token ids of a text, or of messages in the form of the chat template."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    if not tokenizer.chat_template:
        raise CheckFailed(
            "its tokenizer has no chat template.", "Give its prompts as plain texts, or save the template with the tokenizer."
        )
    messages = [{"role": role, "content": prompt[role]} for role in ("system", "user") if role in prompt]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    # The template has added the special tokens.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _answered(model: t.Any, question: Question, adapter: bool = True) -> list[list[float]]:
    return _select(_log_probabilities(model, question["ids"], question["start"], adapter), question["tokens"])


def _select(rows: t.Any, tokens: list[list[int]]) -> list[list[float]]:
    import torch

    return [
        [round(value, DECIMALS) for value in row[torch.tensor(ids, device=row.device)].tolist()] for row, ids in zip(rows, tokens)
    ]


def _log_probabilities(model: t.Any, ids: list[int], start: int, adapter: bool) -> t.Any:
    """Return for each token from ``start`` on the log-probabilities of all ids, in float32."""
    import torch

    count = len(ids) - start
    known = torch.tensor([ids[:-1]], device=model.device)
    with torch.no_grad(), contextlib.nullcontext() if adapter else model.disable_adapter():
        # The logits of a long prompt would need gigabytes.
        logits = model(input_ids=known, use_cache=False, logits_to_keep=count).logits[0, -count:]
    return logits.float().log_softmax(-1)


def _greedy(model: t.Any, prompt: t.Sequence[int], length: int) -> list[int]:
    """Return the likeliest continuation, token by token, including the end of the text."""
    import torch

    end = model.generation_config.eos_token_id
    ends = set(end) if isinstance(end, list) else {end}
    tokens: list[int] = []
    # PEFT looks for the invocation of Activated LoRA among the ids that it is given.
    cached = not invocation_tokens(model)
    step, cache = list(prompt), None
    with torch.no_grad():
        while len(tokens) < length and not (tokens and tokens[-1] in ends):
            last = torch.tensor([step], device=model.device)
            out = model(input_ids=last, past_key_values=cache, use_cache=cached, logits_to_keep=1)
            tokens.append(int(out.logits[0, -1].argmax()))
            step, cache = (tokens[-1:], out.past_key_values) if cached else ([*prompt, *tokens], None)
    return tokens


def _attention(model: t.Any) -> str:
    return str(model.config._attn_implementation)


@contextlib.contextmanager
def _using(model: t.Any, attention: str) -> t.Iterator[bool]:
    """Compute with another attention kernel; yields whether the model has that kernel."""
    before = _attention(model)
    base = model.get_base_model()
    try:
        base.set_attn_implementation(attention)
    # The exception differs between models and versions. Without the kernel, the noise stays
    # unmeasured.
    except Exception:
        yield False
        return
    try:
        yield _attention(model) == attention
    finally:
        base.set_attn_implementation(before)
