# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The file of llama-server's router: a section for each model, and ours for each release.

Everything else in it is the site's, and is kept as it is.
"""

from __future__ import annotations

import os
import re
import typing as t

from .._errors import DeliveryError
from .._files import fsync_directory, open_regular
from .contract import Refused

_LIMIT = 1 << 20
_SECTION = re.compile(r"\[(.+)\]\s*")
_SETTING = re.compile(r"([^=;#\s]+)\s*=\s*(.*?)\s*")
_LORA, _MODEL = "lora", "model"


class Section(t.NamedTuple):
    """A section: its lines, with that of its name, and what they set."""

    lines: tuple[str, ...]
    settings: dict[str, str]

    @property
    def lora(self) -> str | None:
        return self.settings.get(_LORA)

    @property
    def model(self) -> str | None:
        return self.settings.get(_MODEL)


class Preset:
    """The file as it was read. Raises Refused."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            with open_regular(path) as stream:
                data = stream.read(_LIMIT + 1)
            self._mode = os.stat(path).st_mode & 0o777
            lines = data.decode().splitlines()
        except (OSError, UnicodeDecodeError, DeliveryError) as exc:
            raise Refused(f"has no file that can be read at {path}", "Correct preset of this engine in engines.") from exc
        self._head: list[str] = []
        self.sections: dict[str, Section] = {}
        name, block = None, self._head
        for line in lines:
            found = _SECTION.fullmatch(line)
            if found:
                self._keep(name, block)
                name, block = found[1], []
            block.append(line)
        self._keep(name, block)

    def _keep(self, name: str | None, lines: list[str]) -> None:
        if name is not None:
            settings = [found for found in map(_SETTING.fullmatch, lines) if found]
            self.sections[name] = Section(tuple(lines), {found[1]: found[2] for found in settings})

    def base(self, stated: str | None) -> str:
        """Return the name of the base's section. Raises Refused if there is not exactly one."""
        names = [name for name, section in self.sections.items() if section.model and section.lora is None]
        chosen = [stated] if stated in names else names
        if len(chosen) != 1:
            problem = f"has {len(names)} sections without an adapter in {self._path}"
            raise Refused(problem, "State base of this engine in engines: the section of the base.")
        return chosen[0]

    def add(self, name: str, base: str, file: str) -> None:
        """Add a section like that of the base, with an adapter, and write the file."""
        others = [line for line in self.sections[base].lines[1:] if line.strip()]
        lines = (f"[{name}]", *others, f"{_LORA} = {file}")
        self.sections[name] = Section(lines, {**self.sections[base].settings, _LORA: file})
        self._write()

    def remove(self, name: str) -> None:
        """Remove a section and write the file."""
        if self.sections.pop(name, None) is not None:
            self._write()

    def _write(self) -> None:
        blocks = [list(section.lines) for section in self.sections.values()]
        text = "\n".join("\n".join(block).rstrip("\n") + "\n" for block in ([self._head] if self._head else []) + blocks)
        temporary = f"{self._path}.new"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                os.fchmod(stream.fileno(), self._mode)
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(temporary, self._path)
            fsync_directory(os.path.dirname(self._path))
        except OSError as exc:
            raise Refused(f"cannot be told anything: {self._path} cannot be written: {exc.strerror}") from exc
