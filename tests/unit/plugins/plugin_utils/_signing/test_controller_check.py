# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller refuses before a node is asked, with real keys and signatures."""

from __future__ import annotations

import datetime
import pathlib
import typing as t

import pytest
from ansible import constants as C
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._signing.controller_check import check_signed
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._signing.signature_files import SignatureFiles

from tests.support.releases import NAME, manifest_of, release_of
from tests.support.signing import DAY, Keys, signer_line, statement_about, write_trust


class Controller:
    """A controller with a trust and signatures. A run has the directory ``run``."""

    def __init__(self, path: pathlib.Path, keys: Keys) -> None:
        self.keys, self.path, self.signatures = keys, path, path / "signatures"
        self.signatures.mkdir()
        self.write_trust()

    def write_trust(self, **policy: t.Any) -> None:
        self.trust = write_trust(self.path, signer_line("alice", self.keys.public("alice")), **policy).directory

    def sign(self, version: int, signer: str = "alice", days: int = 1) -> None:
        """Sign a version; with a negative number of days, it has expired."""
        now = datetime.datetime.now(tz=datetime.timezone.utc)
        statement = statement_about(manifest_of(version), 7, issued=now - 9 * DAY, expires=now + days * DAY)
        files = SignatureFiles(str(self.signatures), NAME, release_of(version))
        pathlib.Path(files.directory).mkdir(exist_ok=True)
        pathlib.Path(files.text).write_bytes(statement.to_bytes())
        pathlib.Path(files.signature("key")).write_bytes(self.keys.sign(statement.to_bytes(), signer))

    def check(self, version: int = 1, **changes: t.Any) -> None:
        arguments = {"manifests": [manifest_of(version).to_text()], "signatures": str(self.signatures), "trust": self.trust}
        check_signed({**arguments, **changes})

    def refusal(self, version: int = 1, **changes: t.Any) -> str:
        with pytest.raises(DeliveryError) as caught:
            self.check(version, **changes)
        [problem] = caught.value.problems
        assert problem.adapter == (NAME if "on the controller" in str(problem) else None)
        return str(problem)


@pytest.fixture
def controller(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    for name in ("run", "keys"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path / "run"))
    return Controller(tmp_path, Keys(tmp_path / "keys"))


def test_check_signed_accepts_what_a_signer_has_signed(controller: Controller) -> None:
    controller.sign(1)
    controller.check()


def test_check_signed_refuses_unsigned_release_as_a_node_does(controller: Controller) -> None:
    said = "is not signed; this node serves signed releases only. Sign it with playbooks/sign.yml."
    about = f"adapter {NAME}, release {release_of(1)}, compared with {controller.trust} on the controller"
    for signatures in (str(controller.signatures), "", None):
        assert controller.refusal(signatures=signatures) == f"{about}: {said}"


def test_check_signed_names_all_adapters_that_are_refused(controller: Controller) -> None:
    controller.sign(2, "mallory")
    with pytest.raises(DeliveryError) as caught:
        controller.check(manifests=[manifest_of(1, "other_lora").to_text(), manifest_of(2).to_text()])
    unsigned, stranger = caught.value.problems
    assert (unsigned.adapter, unsigned.problem) == ("other_lora", "is not signed; this node serves signed releases only.")
    assert (stranger.adapter, stranger.problem.partition("which")[2]) == (NAME, " this node does not know.")


def test_check_signed_leaves_expiry_to_the_node(controller: Controller) -> None:
    controller.sign(1, days=-1)
    controller.check()


def test_check_signed_of_unsigned_release_that_is_permitted_accepts_it(controller: Controller) -> None:
    controller.write_trust(required=False)
    controller.check()


@pytest.mark.parametrize("trust", ["", None])
def test_check_signed_without_trust_checks_nothing(controller: Controller, trust: t.Optional[str]) -> None:
    controller.check(trust=trust)


def test_check_signed_with_missing_trust_is_error(controller: Controller) -> None:
    message = f"trust: is {controller.trust}/none, which does not exist. Make it as docs/signing.md shows."
    assert controller.refusal(trust=f"{controller.trust}/none") == message


def test_check_signed_verifies_a_release_once_a_run(
    controller: Controller, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = controller.refusal()
    controller.sign(1)
    assert controller.refusal() == refused
    # Nodes with other signatures and another trust.
    signatures = controller.signatures.rename(tmp_path / "signed")
    controller.check(signatures=str(signatures))
    lenient = write_trust(tmp_path / "lenient", signer_line("bob", controller.keys.public("bob")), required=False)
    controller.signatures.mkdir()
    controller.check(trust=lenient.directory)
    signatures.rename(controller.signatures)
    # Another run.
    (tmp_path / "another").mkdir()
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path / "another"))
    controller.check()
