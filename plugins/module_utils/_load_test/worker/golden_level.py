# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Part of the load test's program (C(_load_worker)): level golden, log-probabilities along given tokens and their recording.

A question is C(ids) (token ids of prompt and answer), C(start) (how many of them are the prompt) and C(tokens) (for each
token of the answer the ids whose log-probabilities are asked for). An answer has C(on) and C(off), with and without the
adapter: for each question, for each token of its answer, the log-probabilities of those ids.
"""

from __future__ import annotations

import contextlib
import json
import os
import typing as t

from ..._adapter.files import TOKENIZER_CONFIG
from .errors import Refused

# Differences below this are noise on any device, and every digit travels.
DECIMALS = 4

Question = t.Dict[str, t.Any]
Answer = t.Dict[str, t.List[t.List[t.List[float]]]]


def answer(model: t.Any, questions: t.Sequence[Question]) -> Answer:
    """Ask the model each question, with the adapter and without."""
    return {
        "on": [_asked(model, question) for question in questions],
        "off": [_asked(model, question, adapter=False) for question in questions],
    }


def record(model: t.Any, adapter: dict[str, t.Any]) -> dict[str, t.Any]:
    """Let the model answer prompts greedily, and make questions of that. Raises Refused.

    The adapter's C(recording) has C(prompts), C(length) (how many tokens an answer has at most) and C(top): asked for are, at
    each token, so many of the likeliest with the adapter and without it. Returns C(questions), their C(answer), and the answer
    with another attention kernel (C(other), null where the model has no other), with the names C(attention) and
    C(other_attention).
    """
    wanted = adapter["recording"]
    attention = _attention(model)
    questions: list[Question] = []
    first: Answer = {"on": [], "off": []}
    for prompt in _tokenized(model, adapter):
        ids = [*prompt, *_greedy(model, prompt, wanted["length"])]
        on, off = (_log_probabilities(model, ids, len(prompt), with_adapter) for with_adapter in (True, False))
        likeliest = (rows.topk(wanted["top"]).indices.tolist() for rows in (on, off))
        # The order is that of the ids, so that it does not hang on noise.
        tokens = [sorted({*here, *there}) for here, there in zip(*likeliest)]
        questions.append({"ids": ids, "start": len(prompt), "tokens": tokens})
        first["on"].append(_picked(on, tokens))
        first["off"].append(_picked(off, tokens))
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


def _tokenized(model: t.Any, adapter: dict[str, t.Any]) -> list[list[int]]:
    """The prompts of the adapter's recording as token ids, by its own tokenizer where it has one. Raises Refused."""
    from transformers import AutoTokenizer

    wanted = adapter["recording"]
    own = os.path.exists(os.path.join(adapter["directory"], TOKENIZER_CONFIG))
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
    return prompts


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


def _asked(model: t.Any, question: Question, adapter: bool = True) -> list[list[float]]:
    return _picked(_log_probabilities(model, question["ids"], question["start"], adapter), question["tokens"])


def _picked(rows: t.Any, tokens: list[list[int]]) -> list[list[float]]:
    import torch

    return [
        [round(value, DECIMALS) for value in row[torch.tensor(ids, device=row.device)].tolist()] for row, ids in zip(rows, tokens)
    ]


def _log_probabilities(model: t.Any, ids: list[int], start: int, adapter: bool) -> t.Any:
    """For each of the tokens from C(start) on: the log-probability of every id to stand there, in float32."""
    import torch

    count = len(ids) - start
    known = torch.tensor([ids[:-1]], device=model.device)
    with torch.no_grad(), contextlib.nullcontext() if adapter else model.disable_adapter():
        # Logits of the prompt would take gigabytes for a long one.
        logits = model(input_ids=known, use_cache=False, logits_to_keep=count).logits[0, -count:]
    return logits.float().log_softmax(-1)


def _greedy(model: t.Any, prompt: t.Sequence[int], length: int) -> list[int]:
    """The likeliest continuation, token by token, up to and with the end of the text."""
    import torch

    end = model.generation_config.eos_token_id
    ends = set(end) if isinstance(end, list) else {end}
    tokens: list[int] = []
    step, cache = list(prompt), None
    with torch.no_grad():
        while len(tokens) < length and not (tokens and tokens[-1] in ends):
            asked = torch.tensor([step], device=model.device)
            out = model(input_ids=asked, past_key_values=cache, use_cache=True, logits_to_keep=1)
            step, cache = [int(out.logits[0, -1].argmax())], out.past_key_values
            tokens += step
    return tokens


def _attention(model: t.Any) -> str:
    return str(model.config._attn_implementation)


@contextlib.contextmanager
def _using(model: t.Any, attention: str) -> t.Iterator[bool]:
    """Compute with another attention kernel for a while; says whether the model has it."""
    before = _attention(model)
    base = model.get_base_model()
    try:
        base.set_attn_implementation(attention)
    # What it raises differs between models and versions. Without it there is one measure of noise less.
    except Exception:
        yield False
        return
    try:
        yield _attention(model) == attention
    finally:
        base.set_attn_implementation(before)
