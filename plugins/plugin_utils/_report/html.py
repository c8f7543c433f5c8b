# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""report.html: the report as one page that needs nothing else, by the template beside this file."""

from __future__ import annotations

import pathlib
import typing as t

import jinja2

from .model import NOT_SELECTED, Data, adapters_of
from .words import (
    BAD,
    GOOD,
    PHASES,
    device,
    in_bytes,
    what_happened,
)

_TEMPLATE = pathlib.Path(__file__).with_name("page.html.j2")
# What the golden compares: its name, what it is, and how far a value is from equal.
_MEASURES: tuple[tuple[str, str, t.Callable[[float], float], str], ...] = (
    ("on", "With the adapter", abs, "at most {:.3f}"),
    ("off", "The base alone", abs, "at most {:.3f}"),
    ("direction", "Direction of its effect", lambda value: 1 - value, "at least {:.3f}"),
    ("strength", "Strength of its effect", lambda value: abs(1 - value), "1 ± {:.3f}"),
)


def as_html(report: Data) -> str:
    """Return the page. Whatever the report says is text in it, never markup."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["happened"] = lambda state: what_happened(state, report["check_mode"])
    environment.filters.update(shape=_shape, bytes=in_bytes, device=device, measures=_measures)
    pairs = adapters_of(report)
    # A column for each adapter, whatever the number of nodes that serve it.
    columns = {adapter["name"]: node["agent"] for node, adapter in pairs}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    wanted = [adapter for _node, adapter in pairs if adapter["state"] != NOT_SELECTED]
    return template.render(
        report=report,
        columns=columns,
        good=sum(adapter["state"] in GOOD for adapter in wanted),
        wanted=len(wanted),
        phases=PHASES,
        longest=max((sum(node["seconds"].values()) for node in report["nodes"]), default=0.0),
    )


def _shape(state: str) -> str:
    """The symbol of a state: what can be told from another one without its colour."""
    return "good" if state in GOOD else "bad" if state in BAD else "waiting" if state != NOT_SELECTED else "none"


def _measures(test: Data) -> list[Data]:
    """The distances from the golden, each with what was permitted, and both as shares of what is drawn, in percent."""
    found, permitted = test["distances"], test["permitted"]
    drawn = []
    for key, name, distance, text in _MEASURES:
        far, limit = distance(found[key]), distance(permitted[key]) if key == "direction" else permitted[key]
        scale = max(far, limit) * 1.25 or 1.0
        drawn.append(
            {
                "name": name,
                "found": f"{found[key]:.3f}",
                "permitted": text.format(permitted[key]),
                "within": far <= limit,
                "far": round(100 * far / scale, 1),
                "limit": round(100 * limit / scale, 1),
            }
        )
    return drawn
