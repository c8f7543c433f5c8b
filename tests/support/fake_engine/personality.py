# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the personalities share: settings, calls and answers."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import json
import re
import shlex
import threading
import time
import types
import typing as t
import urllib.parse

from .faults import BASE_ANSWERS, OTHER_WEIGHTS, Faults
from .model import NONE, Model, Weights, weights_in

# The kinds of calls, which faults and tests name.
LOAD, UNLOAD, LIST, HEALTH, VERSION, METRICS, ANSWER, OTHER = (
    "load",
    "unload",
    "list",
    "health",
    "version",
    "metrics",
    "answer",
    "other",
)


@dataclasses.dataclass
class Settings:
    """How an engine is started.

    ``start`` is the path of a text with the adapters of the start, in the form of the engine's own
    options: NAME=PATH, several of these with commas, objects with name and path, or paths only. It
    is read at every start.
    """

    personality: str
    base: str
    version: str = ""
    base_name: str = "base"
    vocabulary: int = 512
    api_key: str = ""
    start: str = ""
    runtime_loading: bool = True
    max_loras: int = 4
    max_cpu_loras: int = 8
    max_loaded_loras: int | None = None
    max_lora_rank: int = 64
    max_logprobs: int = 20
    block: int = 16
    prefix_caching: bool = True
    adapter_root: str = ""
    preset: str = ""
    # What the API of a server of one's own has, and the path that says that it is up.
    lists_adapters: bool = True
    echo: bool = True
    ready: str = "/health"
    # The token that the tokenizer puts before a text.
    begin: int | None = None


class Call(t.NamedTuple):
    """A request to the engine."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: t.Mapping[str, str]
    content: bytes

    @classmethod
    def of(cls, method: str, target: str, headers: t.Mapping[str, str], content: bytes) -> Call:
        parts = urllib.parse.urlsplit(target)
        return cls(method, parts.path, urllib.parse.parse_qs(parts.query), headers, content)

    @property
    def route(self) -> str:
        return f"{self.method} {self.path}"

    def json(self) -> t.Any:
        """Return the body. Raises ValueError."""
        return json.loads(self.content)

    def field(self, name: str) -> str:
        """Return a text of the body, or an empty one."""
        try:
            body = self.json()
        except ValueError:
            return ""
        value = body.get(name) if isinstance(body, dict) else None
        return value if isinstance(value, str) else ""


class Answer(t.NamedTuple):
    """A response. ``body`` is JSON, except for text and for None, which have no content type."""

    status: int
    body: t.Any = None
    headers: t.Mapping[str, str] = types.MappingProxyType({})

    def encoded(self) -> bytes:
        if self.body is None:
            return b""
        if isinstance(self.body, str):
            return self.body.encode()
        return json.dumps(self.body, separators=(",", ":")).encode()

    @property
    def content_type(self) -> str | None:
        if "Content-Type" in self.headers:
            return self.headers["Content-Type"]
        return None if self.body is None or isinstance(self.body, str) else "application/json"


class Work(t.NamedTuple):
    """What a call does: its kind, the name of its adapter, and the rest of it.

    What a request finds when it arrives, the engine has looked up before ``finish`` is called, as
    real engines have before an answer in flight is complete.
    """

    kind: str
    name: str
    finish: t.Callable[[], Answer]


class Personality(abc.ABC):
    """An engine of one kind and version. ``lock`` is held while its state changes."""

    def __init__(self, settings: Settings, faults: Faults) -> None:
        self.settings, self.faults = settings, faults
        self.model = Model(settings.base, settings.vocabulary)
        self.lock = threading.RLock()
        self.dead = False
        self.spoiled = False
        self.created = int(time.time())
        self.start()

    @abc.abstractmethod
    def start(self) -> None:
        """Load the adapters of the start, and nothing else."""

    @abc.abstractmethod
    def begin(self, call: Call) -> Work:
        """Begin a call."""

    @contextlib.contextmanager
    def admitted(self, call: Call) -> t.Iterator[Work | None]:
        """Admit a call, or yield the work of an engine that refuses it at once."""
        yield None

    def without_engine(self, work: Work) -> Answer:
        """Return the answer of the HTTP server whose engine is dead."""
        return Answer(503 if work.kind == HEALTH else 500)

    def computed(self, name: str, directory: str) -> Weights:
        """Return what computes the answers of an adapter. Raises OSError."""
        if self.faults.change(BASE_ANSWERS, name):
            return NONE
        other = self.faults.change(OTHER_WEIGHTS, name)
        return weights_in(other.directory if other else directory)


def adapters_of_start(settings: Settings) -> list[tuple[str, str]]:
    """Return names and paths in the options of the start."""
    if not settings.start:
        return []
    try:
        with open(settings.start, encoding="utf-8") as stream:
            words = shlex.split(stream.read(), comments=True)
    except FileNotFoundError:
        return []
    found = []
    while words:
        word = words.pop(0)
        if re.match(r"[A-Z]+_[A-Z_]+=", word):
            # A line of an environment file: the options of the start in a variable.
            words = shlex.split(word.partition("=")[2]) + words
        elif word.startswith("{"):
            form = json.loads(word)
            found.append((form["name"], form["path"]))
        elif word.startswith("/"):
            found.append((word, word))
        elif not word.startswith("-"):
            pairs = (part.partition("=") for part in word.split(","))
            found += [(name, path) for name, equals, path in pairs if equals and re.match(r"[/~.]", path)]
    return found
