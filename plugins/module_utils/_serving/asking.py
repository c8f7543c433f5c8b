# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What clients share: requests in the words of the contract, and checked values of answers."""

from __future__ import annotations

import math
import typing as t

from .contract import Busy, Dead, NotFinite, Question, Refused, Row, Unanswered, Unauthorized, Unsupported, first_line
from .http import Answer, Client, TimedOut, Unreachable

# Tokens and their log-probabilities.
Pairs = t.List[t.Tuple[t.Any, t.Any]]

# A number of tokens that nearly always has the compared ones, and that of the largest vocabularies.
_MANY, _ALL = 1024, 1 << 18
WRONG_URL = "Correct url of this engine in engines."


def send(client: Client, method: str, path: str, body: t.Any = None) -> Answer:
    """Return an answer of any status. Raises Dead and Unanswered."""
    try:
        return client.get(path) if method == "GET" else client.post(path, body)
    except Unreachable as exc:
        if method == "POST" and _is_up(client):
            raise Unanswered(str(exc)) from exc
        raise Dead(str(exc)) from exc
    except TimedOut as exc:
        raise Unanswered(str(exc)) from exc


def ask(client: Client, method: str, path: str, body: t.Any = None) -> Answer:
    """Return an answer that the engine itself has given. Raises Dead, Busy and Unauthorized."""
    answer = send(client, method, path, body)
    if answer.status == 503:
        raise Dead(f"has failed: {message_of(answer)}")
    check_admitted(client, answer)
    return answer


def _is_up(client: Client) -> bool:
    """Return whether a connection that was closed is not the end of the engine."""
    try:
        return client.get(client.ready).status == 200
    except (Unreachable, TimedOut):
        return False


def check_up(client: Client) -> None:
    """Raise Dead unless the engine says that it is well, and Refused if it is another server."""
    health = ask(client, "GET", client.ready)
    if health.status != 200:
        raise Refused(f"has no {client.ready}: {message_of(health)}", WRONG_URL, health.status)


def check_computed(client: Client, answer: Answer) -> None:
    """Raise NotFinite or Refused for anything but an answer of the model, or Dead."""
    if answer.status >= 500:
        # The HTTP server may go on without its engine.
        ask(client, "GET", client.ready)
        raise NotFinite(f"fails to answer: {message_of(answer)}")
    if answer.status != 200:
        raise Refused(message_of(answer), status=answer.status)


def check_admitted(client: Client, answer: Answer) -> None:
    """Raise Busy or Unauthorized for an answer that says so."""
    if answer.status == 429:
        raise Busy(message_of(answer), answer.retry_after or 1)
    if answer.status in (401, 403):
        if client.has_key:
            does, remedy = "rejects the API key", "Write the key of the engine into the file that its api_key_file names."
        else:
            does = "demands an API key"
            remedy = "Put the key into a file on the node, and its path into api_key_file of this engine."
        raise Unauthorized(f"{does} (HTTP {answer.status})", remedy, answer.status)


def message_of(answer: Answer) -> str:
    """Return the message of an error, whose form differs between engines, with its status."""
    found = answer.json()
    error = found.get("error", found) if isinstance(found, dict) else None
    if isinstance(error, dict):
        error = next((error[key] for key in ("message", "error_message", "detail") if error.get(key)), None)
    line = first_line(error if isinstance(error, str) else answer.text)
    return f"{line} (HTTP {answer.status})" if line else f"HTTP {answer.status}"


def rows_in(answer: Answer, key: str, what: str) -> list[dict[str, t.Any]]:
    """Return the rows of a list. Raises Refused for an answer of another form."""
    found = answer.json()
    rows = found.get(key) if isinstance(found, dict) else None
    if answer.status != 200 or not isinstance(rows, list):
        raise Refused(f"has no list of {what}: {message_of(answer)}", WRONG_URL, answer.status)
    return [row for row in rows if isinstance(row, dict)]


def model_names(client: Client) -> list[str]:
    """Return the names in the list of an OpenAI server."""
    rows = rows_in(ask(client, "GET", "/v1/models"), "data", "models")
    return [name for name in (text(row.get("id")) for row in rows) if name is not None]


def base_among(names: t.Sequence[str], stated: str | None) -> str | None:
    """Return the name of the base: the stated one, else the first of the list."""
    return stated if stated in names else next(iter(names), None)


def fields_in(answer: Answer) -> dict[str, t.Any]:
    """Return the object in an answer, an empty one for anything else."""
    found = answer.json()
    return found if answer.status == 200 and isinstance(found, dict) else {}


def finite(value: t.Any) -> float:
    """Return a log-probability. Raises NotFinite."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise NotFinite("answers with values that are not finite")
    return float(value)


def row_of(pairs: t.Iterable[tuple[t.Any, t.Any]], question: Question) -> Row:
    """Return the wanted log-probabilities of pairs of tokens and log-probabilities.

    Raises Unsupported if that of the question's own token is missing.
    """
    wanted = {question.token, *question.others}
    row = {one: finite(value) for one, value in pairs if one in wanted}
    if question.token not in row:
        raise Unsupported("does not return the log-probabilities of given tokens")
    return row


def row_among(likeliest: t.Callable[[int], Pairs], question: Question) -> Row:
    """Return the same from the likeliest tokens: from many of them, else from all.

    ``likeliest`` takes their number. All tokens of a large vocabulary have ten megabytes.
    """
    try:
        return row_of(likeliest(_MANY), question)
    except Unsupported:
        return row_of(likeliest(_ALL), question)


def text(value: t.Any) -> str | None:
    return value if isinstance(value, str) else None
