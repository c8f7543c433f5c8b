# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Where an engine serves adapters: the keys of an engine that are the same for every engine."""

from __future__ import annotations

import ipaddress
import os
import re
import typing as t
from urllib.parse import urlsplit

from .._errors import Problem
from .._text import shown
from .rules.form import ABSOLUTE_PATH, BOOLEAN, TEXT, Setting
from .rules.table import rules_of

ALIAS, NO_ALIAS = "alias", "none"
_AT_START = "it gets its adapters at its start only"
_GGUF = "it reads GGUF files only"
# The engines that can be made to load adapters, which have a client in _serving/engines, and the
# keys that they need besides url, with the reason.
SERVING: dict[str, dict[str, str]] = {
    "llama_cpp": {"restart": _AT_START, "convert": _GGUF},
    "lmdeploy": {"restart": _AT_START},
    "mistralrs": {},
    "own": {"restart": _AT_START},
    "sglang": {},
    "tgi": {"restart": _AT_START},
    "vllm": {},
}
# Those that read an @ in a name as something else.
_NO_VERSIONED_NAMES = ("tgi",)
_EXAMPLES = {
    "restart": "the systemd unit of the engine, or a command that restarts it",
    "convert": "a command that turns a release into a GGUF file",
}

# A systemd unit, as systemctl takes it.
_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@\\-]{0,254}")


def _is_seconds(value: t.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 86400


def _is_command(value: t.Any) -> bool:
    """Return whether a value is the arguments of a program, which no shell reads."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(part, str) and "\0" not in part for part in value)
        and os.path.isabs(value[0])
    )


_SECONDS = Setting("a number of seconds, at most 86400", _is_seconds)
_COMMAND = Setting("a list of arguments that begins with the absolute path of a program", _is_command)
_RESTART = Setting(
    "the name of a systemd unit, or a list of arguments that begins with the absolute path of a program",
    lambda value: _is_command(value) or (isinstance(value, str) and _UNIT.fullmatch(value) is not None),
)

KEYS: dict[str, Setting] = {
    "url": TEXT,
    "api_key_file": ABSOLUTE_PATH,
    "allow_remote": BOOLEAN,
    "base": TEXT,
    "public_name": Setting(f"{ALIAS} or {NO_ALIAS}", lambda value: value in (ALIAS, NO_ALIAS)),
    "drain_timeout": _SECONDS,
    "start_timeout": _SECONDS,
    "probe_timeout": _SECONDS,
    "restart": _RESTART,
    "convert": _COMMAND,
}


class Endpoint(t.NamedTuple):
    """Where and how an engine serves adapters.

    ``api_key_file`` is on the node. ``base`` is the name of the base that it serves, for an engine
    whose own list does not show it. ``public_name`` is ALIAS if the engine itself has the names of
    the adapters, and NO_ALIAS if a gateway leads them to the names of releases. ``drain_timeout``,
    ``start_timeout`` and ``probe_timeout`` are in seconds. ``restart`` is a systemd unit or the
    arguments of a program. ``convert`` are the arguments of a program that turns a release into a
    GGUF file.
    """

    url: str
    api_key_file: str | None = None
    allow_remote: bool = False
    base: str | None = None
    public_name: str = ALIAS
    drain_timeout: float = 60
    start_timeout: float = 300
    probe_timeout: float = 300
    restart: str | list[str] | None = None
    convert: list[str] | None = None


def endpoint_of(stated: t.Mapping[str, t.Any]) -> Endpoint | None:
    """Return the endpoint of an engine's keys, which ``endpoint_problems`` has checked."""
    if "url" not in stated:
        return None
    endpoint = Endpoint(**{key: value for key, value in stated.items() if key in KEYS})
    return endpoint._replace(url=endpoint.url.rstrip("/"))


def endpoint_problems(form: t.Mapping[str, t.Any], engine: str, option: str) -> t.Iterator[Problem]:
    """Yield what is wrong with these keys of an engine, which has rules."""
    stated = {key: form[key] for key in KEYS if form.get(key) is not None}
    for key, value in stated.items():
        if not KEYS[key].fits(value):
            wanted = KEYS[key].form
            yield Problem(option, f"has {key} {shown(value)} for engine {engine}, which is not {wanted}.", f"Write {wanted}.")
    url = stated.get("url")
    if url is None:
        for key in [*stated][:1]:
            yield Problem(option, f"has {key} for engine {engine}, but no url.", "Write the url that it serves adapters at.")
    elif rules_of(engine).name not in SERVING:
        remedy = f"Remove url, or use one of these engines: {', '.join(SERVING)}."
        yield Problem(option, f"has url for engine {engine}, which is not supported for serving.", remedy)
    else:
        if isinstance(url, str):
            yield from _url_problems(url, stated.get("allow_remote") is True, engine, option)
        if stated.get("public_name") == NO_ALIAS and rules_of(engine).name in _NO_VERSIONED_NAMES:
            problem = f"has public_name {NO_ALIAS} for engine {engine}, which takes no names with an @."
            yield Problem(option, problem, "Remove public_name.")
        for key, reason in needed_keys(engine, form).items():
            if key not in stated:
                problem = f"has url for engine {engine}, but no {key}: {reason}."
                yield Problem(option, problem, f"State {key}: {_EXAMPLES[key]}.")


def needed_keys(engine: str, form: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Return the keys that an engine with these keys needs to serve, each with the reason."""
    needed = SERVING[rules_of(engine).name]
    # The router of llama-server loads at run time.
    return {key: reason for key, reason in needed.items() if key != "restart" or form.get("preset") is None}


def _url_problems(url: str, remote: bool, engine: str, option: str) -> t.Iterator[Problem]:
    subject = f"has url {shown(url)} for engine {engine}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port is not None
    except ValueError:
        usable = False
    if "@" in url:
        yield Problem(
            option, f"has a user name in url for engine {engine}.", "Put an API key into a file, and its path into api_key_file."
        )
    elif not usable or parts.query or parts.fragment or parts.path.strip("/") or not url.isprintable() or " " in url:
        yield Problem(option, f"{subject}, which is not the address of a server.", "Write one like http://127.0.0.1:8000.")
    elif not remote and not _is_loopback(t.cast(str, parts.hostname)):
        yield Problem(
            option,
            f"{subject}, which other hosts can reach: any client that reaches it can load adapters.",
            "Let the engine listen on 127.0.0.1, or set allow_remote.",
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
