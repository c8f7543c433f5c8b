# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""report.html: the report as one self-contained page, rendered from ``page.html.j2``."""

from __future__ import annotations

import pathlib
import typing as t

import jinja2
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import human_bytes

from .._steps import STEPS
from .model import NOT_SELECTED, Data, adapters_of
from .words import BAD, GOOD, device, state_words

_TEMPLATE = pathlib.Path(__file__).with_name("page.html.j2")
# The distances of a golden: key, name, how far a value is from equality, and the limit in words.
_MEASURES: tuple[tuple[str, str, t.Callable[[float], float], str], ...] = (
    ("on", "With the adapter", abs, "at most {:.3f}"),
    ("off", "Base alone", abs, "at most {:.3f}"),
    ("direction", "Direction of the effect", lambda value: 1 - value, "at least {:.3f}"),
    ("strength", "Strength of the effect", lambda value: abs(1 - value), "1 ± {:.3f}"),
)


def as_html(report: Data) -> str:
    """Return the page. Every value of the report is text in it, never markup."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["words"] = lambda state: state_words(state, report["check_mode"])
    environment.filters.update(shape=_shape, bytes=human_bytes, device=device, measures=_measures)
    pairs = adapters_of(report)
    # One column for each adapter, whatever the number of nodes that serve it.
    columns = {adapter["name"]: node["agent"] for node, adapter in pairs}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    covered = [adapter for _node, adapter in pairs if adapter["state"] != NOT_SELECTED]
    return template.render(
        report=report,
        columns=columns,
        good=sum(adapter["state"] in GOOD for adapter in covered),
        covered=len(covered),
        steps={step.key: step.done for step in STEPS},
        longest=max((sum(node["seconds"].values()) for node in report["nodes"]), default=0.0),
    )


def _shape(state: str) -> str:
    """Return the symbol of a state, which distinguishes it from others without colour."""
    return "good" if state in GOOD else "bad" if state in BAD else "waiting" if state != NOT_SELECTED else "none"


def _measures(test: Data) -> list[Data]:
    """Return the distances from the golden, their limits, and both in percent of the gauge."""
    found, permitted = test["distances"], test["permitted"]
    gauges = []
    for key, name, distance, text in _MEASURES:
        far, limit = distance(found[key]), distance(permitted[key]) if key == "direction" else permitted[key]
        scale = max(far, limit) * 1.25 or 1.0
        gauges.append(
            {
                "name": name,
                "found": f"{found[key]:.3f}",
                "permitted": text.format(permitted[key]),
                "within": far <= limit,
                "far": round(100 * far / scale, 1),
                "limit": round(100 * limit / scale, 1),
            }
        )
    return gauges
