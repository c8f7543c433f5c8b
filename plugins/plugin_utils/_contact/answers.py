# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The gate for answers: what the modules of this collection may return from a host.

Whoever owns a host decides what its modules print, and Ansible acts on some keys of a result: facts
of a host override the inventory, for instance. So only the keys below pass, in the forms that the
modules give them. To add a key to a module's RETURN, add it here too.
"""

from __future__ import annotations

import collections.abc as c
import re
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import MAX_TEXT
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._forms import FORMS
from ansible_collections.lorafleet.delivery.plugins.module_utils._isolation import ISOLATION
from ansible_collections.lorafleet.delivery.plugins.module_utils._levels import LEVELS
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.checklist import FAILED, OK, UNKNOWN, WARNING
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.actions import ACTIONS
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.contract import (
    PROVES_BYTES,
    PROVES_NAME,
    PROVES_NOTHING,
    PROVES_PATH,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.desired import SERVED, UNPROVED
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.evidence import STATES
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import MOST_SIGNATURES
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import escaped

from .forms import (
    Choice,
    Data,
    DictOf,
    Exact,
    Flag,
    Form,
    Integer,
    ListOf,
    Nullable,
    Number,
    Output,
    Record,
    Rows,
    Text,
    Time,
    UnexpectedForm,
    size_of,
)

INSPECT = "Inspect that host and the interpreter of Ansible's modules on it before you trust what it serves."

_FLAG, _INTEGER, _NUMBER, _TEXT, _TIME = Flag(), Integer(), Number(), Text(), Time()
_TEXTS, _LINES, _NAME = ListOf(_TEXT), Text(lines=True), Text(256)
_RELEASE = Exact(12, re.compile("[0-9a-f]{12}"), "the 12 digits of a release")
_SHA256 = Exact(64, re.compile("[0-9a-f]{64}"), "a sha256")
# Python has half a surrogate pair for each byte of a path that is not UTF-8: \udc80 to \udcff.
_CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udc7f\udd00-\udfff"
_PATH = Exact(4096, re.compile(f"/[^{_CONTROLS}]*"), "an absolute path without control characters")
_FILES = ListOf(Record({"path": _NAME, "size": _INTEGER, "sha256": _SHA256}))
_HISTORY = ListOf(Record({"release": _RELEASE, "at": _TIME}))
_DISTANCES = Nullable(Record(dict.fromkeys(("on", "off", "direction", "strength"), _NUMBER), {"top1": _NUMBER}))
_MANIFESTS = ListOf(Exact(MAX_TEXT), 1000)
_PROBLEMS = ListOf(Record({"adapter": Nullable(_NAME), "subject": _TEXT, "problem": _LINES, "remedy": _LINES}))
# What receipts and load tests have in common.
_LOAD_TEST: dict[str, Form] = {
    "level": Nullable(Choice(LEVELS)),
    "device": Nullable(_TEXT),
    "device_name": Nullable(_TEXT),
    "capability": Nullable(_TEXT),
    "dtype": Nullable(_TEXT),
    "versions": DictOf(Nullable(_TEXT)),
    "load_seconds": Nullable(_NUMBER),
    "peak_memory_bytes": Nullable(_INTEGER),
    "effect": Nullable(_NUMBER),
    "distances": _DISTANCES,
    "permitted": _DISTANCES,
    "notes": _TEXTS,
    "limited_by": Nullable(_TEXT),
    "checks": _TEXTS,
    "isolation": Nullable(ListOf(Choice(ISOLATION), len(ISOLATION))),
}
_RECEIPT = Nullable(
    Record(
        {"level": _LOAD_TEST["level"]},
        {
            **_LOAD_TEST,
            "schema": _INTEGER,
            "name": _NAME,
            "release": _RELEASE,
            "at": Nullable(_TIME),
            **dict.fromkeys(("environment", "base", "golden"), Nullable(_NAME)),
        },
    )
)
_MADE_OF = Record(
    {"digest": _SHA256, "form": Choice(FORMS), "factors": ListOf(_NUMBER), "rounded": _INTEGER, "difference": Nullable(_NUMBER)}
)
_ENGINES = ListOf(
    Record(
        {
            "engine": _NAME,
            "version": Nullable(_NAME),
            "state": Choice(("right", "refused", "wrong", "unknown")),
            "kinds": _TEXTS,
            "message": _TEXT,
            "figure": Nullable(_NUMBER),
            "remedy": _TEXT,
            "held_back": _FLAG,
        }
    ),
    100,
)
_CONTENT: dict[str, Form] = {"digest": Nullable(_SHA256), "size": Nullable(_INTEGER), "files": _FILES}
_ACTIVE: dict[str, Form] = {
    "name": _NAME,
    "release": Nullable(_RELEASE),
    **_CONTENT,
    "made_of": Nullable(_MADE_OF),
    "previous": Nullable(_RELEASE),
    "history": _HISTORY,
    "activation": Nullable(_TEXT),
    "receipt": _RECEIPT,
}
_SIGNED = Nullable(
    Record({"signers": ListOf(_NAME, MOST_SIGNATURES), "serial": Nullable(_INTEGER), "expires": Nullable(Time(zone=True))})
)
_DIFF: dict[str, Form] = dict.fromkeys(("before_header", "after_header", "before", "after"), Text(1 << 20, lines=True))
_PLACE: dict[str, Form] = {
    "path": _PATH,
    "machine": _TEXT,
    "inodes": ListOf(ListOf(_INTEGER, 2), 256),
    "mark": Nullable(ListOf(_INTEGER, 2)),
    "shareable": _FLAG,
}
_LINKS = DictOf(_PATH)
# Where an adapter of a source is, see ``_store/source``.
DIRECTORY = Record(_PLACE, {"links": _LINKS, "original": Record(_PLACE, {"links": _LINKS})})
_DIRECTORIES = DictOf(DIRECTORY)

_TRANSFER: dict[str, Form] = {
    "name": _NAME,
    "release": _RELEASE,
    "stored": _FLAG,
    "downloaded": ListOf(_NAME),
    "downloaded_bytes": _INTEGER,
    "reused": DictOf(_TEXT),
    "reused_bytes": _INTEGER,
    "staging": _PATH,
    "staged_bytes": _INTEGER,
}
# An adapter in an engine.
_IN_ENGINE: dict[str, Form] = {"name": _NAME, "engine": _NAME, "url": _TEXT}
_FIGURES = Nullable(Record({"distances": _DISTANCES, "permitted": DictOf(_NUMBER), "tokens": _INTEGER}))
# Not of the phase that verifies.
_JUDGED: dict[str, Form] = {"engines": _ENGINES, "engine_notes": _TEXTS}

# The keys of each module's results, and those that only its action plugin gets.
_RESULTS: dict[str, dict[str, Form]] = {
    "adapter_golden": {
        "adapters": ListOf(
            Record(
                {
                    "name": _NAME,
                    "release": _RELEASE,
                    "action": Choice(("recorded", "kept")),
                    "path": _TEXT,
                    "positions": Nullable(_INTEGER),
                    "recorded": Nullable(Data()),
                    "noise": Nullable(DictOf(_DISTANCES)),
                    "permitted": _DISTANCES,
                }
            )
        ),
        "seconds": _NUMBER,
    },
    "adapter_info": {
        "manifests": _MANIFESTS,
        "goldens": DictOf(Choice(("recorded", "none", "stale"))),
        "excluded": DictOf(ListOf(Record({"path": _TEXT, "reason": _TEXT}))),
        "directories": _DIRECTORIES,
        "notes": DictOf(_TEXTS),
        "cached": ListOf(_NAME),
        "folded": ListOf(_NAME),
        "suggested_rows": DictOf(Rows()),
    },
    "adapter_load_test": {
        "adapters": ListOf(
            Record(
                {
                    "name": _NAME,
                    "release": Nullable(_RELEASE),
                    "required_level": Choice(LEVELS),
                    **_LOAD_TEST,
                    "from_receipt": _FLAG,
                }
            )
        ),
        "seconds": _NUMBER,
    },
    "adapter_release": {
        "adapters": ListOf(
            Record(
                {
                    **_ACTIVE,
                    "action": Choice(("activated", "rolled_back", "repaired", "unchanged")),
                    "path": _TEXT,
                    "served": _TEXT,
                    "engines": _ENGINES,
                    "signed": _SIGNED,
                    "adopted": Nullable(_TEXT),
                    "pruned": _TEXTS,
                    "drift": _TEXTS,
                }
            )
        ),
    },
    "adapter_release_info": {
        "adapters": ListOf(
            Record({**_ACTIVE, "since": Nullable(_TIME), "signed": _SIGNED, "engines": _ENGINES, "differences": _TEXTS})
        ),
        "active": ListOf(_NAME),
        "differences": _TEXTS,
        "others": ListOf(_TEXT),
        "summary": DictOf(_TEXTS),
    },
    "adapter_serve": {
        "adapters": ListOf(
            Record(
                {
                    **_IN_ENGINE,
                    "release": _RELEASE,
                    "version": Nullable(_NAME),
                    "action": Choice(ACTIONS),
                    "served": Nullable(_RELEASE),
                    "names": ListOf(_NAME),
                    "root": Nullable(_PATH),
                    "proof": Nullable(Choice((SERVED, UNPROVED))),
                    "why_unproved": Nullable(_TEXT),
                    "why": Nullable(_LINES),
                    "previous": Nullable(_RELEASE),
                    "figures": _FIGURES,
                    "seconds": DictOf(_NUMBER),
                    "notes": _TEXTS,
                }
            )
        ),
        "notes": _TEXTS,
        "rolled_back": ListOf(_NAME),
    },
    "adapter_serve_info": {
        "adapters": ListOf(
            Record(
                {
                    **_IN_ENGINE,
                    "state": Choice(STATES),
                    "why": _LINES,
                    "active": Nullable(_RELEASE),
                    "served": Nullable(_RELEASE),
                    "listed": Nullable(_NAME),
                    "root": Nullable(_TEXT),
                    "figures": _FIGURES,
                    "proved": Nullable(_TIME),
                }
            )
        ),
        "engines": ListOf(
            Record(
                {
                    "engine": _NAME,
                    "url": _TEXT,
                    "version": Nullable(_NAME),
                    "base": Nullable(_TEXT),
                    "proves": Choice((PROVES_NOTHING, PROVES_NAME, PROVES_PATH, PROVES_BYTES)),
                    "problem": _LINES,
                    "strangers": _TEXTS,
                }
            )
        ),
        "differences": ListOf(_LINES),
        "critical": ListOf(_NAME),
        "summary": DictOf(ListOf(_LINES)),
    },
    "adapter_sync": {
        "adapters": ListOf(Record(_TRANSFER, _JUDGED)),
        "rsync": Text(64),
        "zstd": _FLAG,
        "python": _PATH,
    },
    "adapter_up_to_date_info": {
        "up_to_date": _FLAG,
        "reasons": _TEXTS,
        "adapters": ListOf(
            Record({**_ACTIVE, "path": _TEXT, "required_level": Choice(LEVELS), "signed": _SIGNED, "engines": _ENGINES})
        ),
    },
    "node_trust": {
        "fleet": _NAME,
        "required": _FLAG,
        "threshold": _INTEGER,
        "version": _INTEGER,
        "signers": ListOf(_NAME),
        "roots": ListOf(_NAME),
        "root_threshold": Nullable(_INTEGER),
        "snapshot_hours": Nullable(_INTEGER),
    },
    "preflight_info": {
        "checks": ListOf(
            Record({"check": _TEXT, "state": Choice((OK, WARNING, FAILED, UNKNOWN)), "found": _LINES, "remedy": _LINES})
        ),
        "manifests": _MANIFESTS,
        "directories": _DIRECTORIES,
        "tokenizer_classes": DictOf(Nullable(_TEXT)),
        "download_bytes": Nullable(_INTEGER),
        "user": Text(256),
        "time": _NUMBER,
        "python": _PATH,
    },
}
# Of a module that has failed, as far as they are of another form.
_PARTIAL: dict[str, dict[str, Form]] = {
    # The adapters that an engine blocks.
    "adapter_sync": {"adapters": ListOf(Record({"name": _NAME}, {**_TRANSFER, **_JUDGED}))},
}
_DIFFS: dict[str, Form] = {
    "adapter_golden": Record(_DIFF),
    "adapter_load_test": Record(_DIFF),
    "adapter_release": ListOf(Record({**_DIFF, "before": DictOf(Data()), "after": DictOf(Data())})),
    "adapter_sync": Record(_DIFF),
    "node_trust": Record(_DIFF),
}
# The keys that are not always there when a module succeeds.
_SOMETIMES = frozenset({"rsync", "zstd", "python", "manifests", "directories", "tokenizer_classes", "download_bytes"})
# The results of every module.
_COMMON: dict[str, Form] = {
    "changed": _FLAG,
    "failed": _FLAG,
    "msg": Output(),
    "problems": _PROBLEMS,
    "warnings": ListOf(_TEXT),
}
# What Ansible returns about a module that did not end with a result.
_BROKEN: dict[str, Form] = {"module_stdout": Output(), "module_stderr": Output(), "rc": _INTEGER}
# The characters of an answer, without the manifests. The main process of Ansible keeps it, prints
# some of it, and the report has it in five forms.
_MOST_TEXT = 1 << 24
# Of the facts, only what Ansible found out on this host itself.
_INTERPRETER = "discovered_interpreter_python"
_INTERPRETER_PATH = re.compile(r"/[\w./+-]{1,255}", re.ASCII)


def results_of(module: str) -> c.Mapping[str, Form]:
    """Return the forms of a module's own results."""
    return _RESULTS[module]


def answer_of(module: str, host: str, found: c.Mapping[str, t.Any], delegated: bool = False) -> dict[str, t.Any]:
    """Return a module's result as plain data, with the keys of that module only.

    ``found`` is what Ansible returned for the module on ``host``; ``delegated`` is whether another
    host gets the result. Raises DeliveryError if a value does not have its form.
    """
    results = _RESULTS[module]
    failed = found.get("failed") is True
    try:
        answer = Record({}, _COMMON).read({**found, "warnings": _warnings(found.get("warnings"))})
        if failed:
            answer.update(Record({}, {**results, **_PARTIAL.get(module, {})}).read(found))
        else:
            needed = {key: form for key, form in results.items() if key not in _SOMETIMES}
            answer.update(Record(needed, results).read(found))
        if module in _DIFFS and "diff" in found:
            answer["diff"] = _DIFFS[module].read(found["diff"], "diff")
        if failed and "problems" not in answer:
            answer.update(Record({}, _BROKEN).read(found))
        if size_of({key: value for key, value in answer.items() if key != "manifests"}) > _MOST_TEXT:
            raise UnexpectedForm("the answer", f"has more than {_MOST_TEXT} characters")
    except UnexpectedForm as exc:
        raise DeliveryError.of(
            host,
            f"gave an answer that module {module} does not give: {escaped(exc.key)[:200]} {exc.problem}.",
            INSPECT,
        ) from exc
    if not answer["warnings"]:
        del answer["warnings"]
    facts = found.get("ansible_facts")
    interpreter = facts.get(_INTERPRETER) if isinstance(facts, dict) else None
    # A fact of the host that the task was delegated to would be one of the host that gets it.
    if not delegated and isinstance(interpreter, str) and _INTERPRETER_PATH.fullmatch(interpreter):
        answer["ansible_facts"] = {_INTERPRETER: str.__str__(interpreter)}
    return answer


def _warnings(warnings: t.Any) -> t.Any:
    """Return the texts of warnings, which are objects for ansible-core 2.19 and newer."""
    if not isinstance(warnings, list):
        return warnings or []
    return [getattr(getattr(one, "event", None), "msg", one) for one in warnings]
