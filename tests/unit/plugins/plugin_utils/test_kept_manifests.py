# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

import pytest
from ansible import constants as C
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import packed
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._kept_manifests import (
    check_source,
    keep,
    record_source,
    text_of,
    with_packed,
    with_texts,
)

TEXT = '{"name": "ü", "tensors": {}}'


@pytest.fixture(autouse=True)
def _run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path))


def test_keep_manifest_reference_is_short_and_has_its_text() -> None:
    reference = keep(TEXT)
    assert len(reference) < 80
    assert text_of(reference) == TEXT


def test_keep_equal_manifests_are_kept_once(tmp_path: pathlib.Path) -> None:
    assert keep(TEXT) == keep(TEXT)
    assert keep("{}") != keep(TEXT)
    assert len(list(tmp_path.iterdir())) == 2


def test_text_of_text_is_unchanged() -> None:
    assert text_of(TEXT) == TEXT
    assert text_of("manifest:../../etc/passwd") == "manifest:../../etc/passwd"


def test_text_of_reference_of_another_run_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = keep(TEXT)
    (tmp_path / "next").mkdir()
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path / "next"))
    with pytest.raises(DeliveryError, match=r"manifests: refer to manifest:[0-9a-f]+, which this run has not described"):
        text_of(reference)


def test_with_texts_other_arguments_and_values_are_unchanged() -> None:
    assert with_texts({"manifests": [keep(TEXT), TEXT, 3], "store": "/s"}) == {"manifests": [TEXT, TEXT, 3], "store": "/s"}
    assert with_texts({"manifests": "no list"}) == {"manifests": "no list"}


def test_with_packed_other_arguments_and_values_are_unchanged() -> None:
    found = with_packed({"manifests": [TEXT, 3], "store": "/s"})
    assert found == {"manifests": [packed(TEXT), 3], "store": "/s"}
    assert with_packed({"manifests": "no list"}) == {"manifests": "no list"}


def test_check_source_accepts_only_a_host_that_described_the_manifest() -> None:
    # Nobody has described it in this run: the playbook has it from elsewhere.
    check_source([TEXT], "sbs29")
    record_source([TEXT, "{}"], "sbs29")
    record_source([TEXT], "../sbs30")
    check_source([TEXT, "{}"], "sbs29")
    check_source([TEXT], "../sbs30")
    with pytest.raises(DeliveryError, match=r"source: is localhost, but \.\./sbs30, sbs29 described the manifests\."):
        check_source([TEXT], "localhost")
    with pytest.raises(DeliveryError, match=r"source: is \.\./sbs30, but sbs29 described"):
        check_source([TEXT, "{}"], "../sbs30")
