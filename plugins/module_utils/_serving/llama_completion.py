# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The completion of llama-server, with one model and as a router."""

from __future__ import annotations

import typing as t

from .asking import Pairs, ask, check_computed, fields_in
from .contract import NotFinite
from .http import Client


def completed(client: Client, ids: t.Sequence[int], count: int, **options: t.Any) -> dict[str, t.Any]:
    """Return the answer with the ``count`` likeliest tokens. Raises NotFinite and Refused."""
    body = {"prompt": list(ids), "n_predict": 1, "temperature": 0, "n_probs": count, **options}
    answer = ask(client, "POST", "/completion", body)
    check_computed(client, answer)
    return fields_in(answer)


def likeliest(answer: dict[str, t.Any]) -> Pairs:
    """Return the likeliest tokens of such an answer. Raises NotFinite if it has none."""
    try:
        rows = answer["completion_probabilities"][0]["top_logprobs"]
        return [(row["id"], row["logprob"]) for row in rows]
    except (IndexError, KeyError, TypeError):
        raise NotFinite("returns no log-probabilities") from None
