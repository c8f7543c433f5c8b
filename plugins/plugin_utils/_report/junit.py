# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""junit.xml: the report for CI, with a suite for each node and a case for each of its adapters.

It follows Jenkins' junit-10.xsd, which other tools read too.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.words import line_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.words import signature_line

from .run import Data
from .states import NOT_REACHED, NOT_SELECTED, NOT_STARTED, SKIPPED
from .words import BAD, device, sentence, state_words

_SKIPPED = {
    NOT_SELECTED: "The run did not cover it.",
    NOT_REACHED: "The run ended before it.",
    NOT_STARTED: "An earlier wave of its agent failed.",
    SKIPPED: "Another adapter of its node failed.",
}
# Characters that XML does not allow, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_junit(report: Data) -> str:
    suites = ElementTree.Element("testsuites")
    for node in report["nodes"]:
        cases = [_case(report, node, adapter) for adapter in node["adapters"]]
        failed, skipped = (sum(case.find(tag) is not None for case in cases) for tag in ("failure", "skipped"))
        attributes = {
            "name": f"{report['kind']} {node['node']}",
            "hostname": node["node"],
            "timestamp": report["started"].partition("+")[0],
            "tests": str(len(cases)),
            "failures": str(failed),
            "errors": "0",
            "skipped": str(skipped),
            "time": f"{sum(node['seconds'].values()):.3f}",
        }
        suite = ElementTree.SubElement(suites, "testsuite", attributes)
        suite.extend(cases)
    ElementTree.indent(suites, " ")
    text = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{_FORBIDDEN.sub(chr(0xFFFD), text)}\n'


def _case(report: Data, node: Data, adapter: Data) -> ElementTree.Element:
    state = adapter["state"]
    # The steps handle all adapters of a node together, so each gets an equal share of the time.
    seconds = sum(node["seconds"].values()) / len(node["adapters"])
    attributes = {"name": adapter["name"], "classname": f"{adapter['agent']}.{node['node']}", "time": f"{seconds:.3f}"}
    case = ElementTree.Element("testcase", attributes)
    about = [
        failure
        for failure in report["failures"]
        if failure["node"] == node["node"] and failure["adapter"] in (None, adapter["name"])
    ]
    if state in BAD:
        message = "; ".join(map(_problem, about)) or state_words(state)
        failure = ElementTree.SubElement(case, "failure", {"message": message, "type": state})
        failure.text = "\n".join(map(_sentence, about)) or "\n".join(adapter["drift"])
    elif state in _SKIPPED:
        ElementTree.SubElement(case, "skipped", {"message": _SKIPPED[state]})
    else:
        test = adapter["test"] or {}
        words = (state_words(state, report["check_mode"]), adapter["release"], test.get("level"), device(adapter))
        lines = [*filter(None, (*words, signature_line(adapter.get("signed")))), *map(line_of, adapter["engines"])]
        ElementTree.SubElement(case, "system-out").text = "\n".join(lines)
    return case


def _problem(failure: Data) -> str:
    """Return a problem on one line. A host that is not the node of the suite is named."""
    elsewhere = failure["subject"] == failure["host"] != failure["node"]
    return " ".join([*([failure["host"]] if elsewhere else []), *failure["problem"].split()])


def _sentence(failure: Data) -> str:
    elsewhere = failure["host"] != failure["node"]
    return f"{failure['host']}: {sentence(failure)}" if elsewhere else sentence(failure)
