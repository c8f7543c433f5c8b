# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files with the keys of signers. ssh-keygen would accept most of what is refused here."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import (
    KRL_MAGIC,
    MAX_LINES,
    check_revoked_keys,
    read_allowed_signers,
)

from tests.support.signing import NOW, Keys, signer_line

NAMESPACES = 'namespaces="release@lorafleet.delivery"'


def test_read_allowed_signers_returns_signers_with_their_times(keys: Keys) -> None:
    alice, authority = keys.public("alice"), keys.public("authority")
    text = (
        "# people\n\n"
        + signer_line("alice", alice, 'valid-after="20260101Z"', 'valid-before="202801011230Z"')
        + signer_line("ci@lab", authority, "cert-authority")
    )
    first, second = read_allowed_signers(text, "file")
    assert (first.name, first.key, first.authority) == ("alice", alice, False)
    assert first.after == datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    assert first.before == datetime.datetime(2028, 1, 1, 12, 30, tzinfo=datetime.timezone.utc)
    assert (second.name, second.key, second.authority, second.after, second.before) == ("ci@lab", authority, True, None, None)
    # What ssh-keygen gets means the same.
    assert read_allowed_signers(f"{first.line()}\n{second.line()}\n", "file") == (first, second)
    assert 'valid-before="20280101123000"' in first.line()


def test_signer_is_in_force_between_its_times(keys: Keys) -> None:
    [signer] = read_allowed_signers(
        signer_line("alice", keys.public("alice"), 'valid-after="20260101Z"', 'valid-before="20270101Z"'), "file"
    )
    year = datetime.timedelta(days=365)
    assert [signer.in_force(NOW + n * year) for n in (-1, 0, 1)] == [False, True, False]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("alice ssh-ed25519 KEY", "has not the four parts"),
        ("alice ssh-ed25519 KEY alice@lab", "has options of another form|lacks the option"),
        ('alice namespaces="git" TYPE KEY', "lacks the option"),
        ('alice namespaces="*" TYPE KEY', "lacks the option"),
        ('alice namespaces="git,release@lorafleet.delivery" TYPE KEY', "lacks the option"),
        ("alice cert-authority TYPE KEY", "lacks the option"),
        (f"* {NAMESPACES} TYPE KEY", "a pattern or a list"),
        (f"alice,bob {NAMESPACES} TYPE KEY", "a pattern or a list"),
        (f"!alice {NAMESPACES} TYPE KEY", "a pattern or a list"),
        (f"alice {NAMESPACES},{NAMESPACES} TYPE KEY", "twice"),
        # ssh-keygen reads no option behind it, and refuses the line.
        (f"alice {NAMESPACES}, TYPE KEY", "has options of another form"),
        (f"alice {NAMESPACES},verify-required TYPE KEY", "unknown option verify-required"),
        (f'alice {NAMESPACES},cert-authority="yes" TYPE KEY', "a value for cert-authority"),
        (f'alice {NAMESPACES},valid-before="tomorrow" TYPE KEY', "a time of another form"),
        (f'alice {NAMESPACES},valid-before="2026010112Z" TYPE KEY', "a time of another form"),
        (f'alice {NAMESPACES},valid-before="20260230Z" TYPE KEY', "does not exist"),
        (f'alice {NAMESPACES},valid-after="20270101Z",valid-before="20260101Z" TYPE KEY', "ends before it begins"),
        (f"alice {NAMESPACES} ssh-rsa KEY", "not of the type ssh-rsa"),
        (f"alice {NAMESPACES} TYPE AAAA", "ends too early"),
    ],
)
def test_read_allowed_signers_with_another_line_is_error(keys: Keys, line: str, words: str) -> None:
    key_type, text = str(keys.public("alice")).split()
    with pytest.raises(DeliveryError, match=f"file: line 2 .*({words})") as caught:
        read_allowed_signers("# people\n" + line.replace("TYPE", key_type).replace("KEY", text), "file")
    assert "docs/signing.md" in str(caught.value)


def test_read_allowed_signers_with_one_key_for_two_people_is_error(keys: Keys) -> None:
    key = keys.public("alice")
    with pytest.raises(DeliveryError, match="line 2 gives bob the key of alice, who could then count as two"):
        read_allowed_signers(signer_line("alice", key) + signer_line("bob", key), "file")


def test_read_allowed_signers_with_certificate_is_error(keys: Keys) -> None:
    with open(keys.certificate("authority", "short", "ci", "always:forever"), encoding="utf-8") as stream:
        key_type, text = stream.read().split()[:2]
    with pytest.raises(DeliveryError, match="has a certificate; expected the key of its authority"):
        read_allowed_signers(f"ci {NAMESPACES} {key_type} {text}", "file")


def test_read_allowed_signers_with_too_many_lines_is_error() -> None:
    with pytest.raises(DeliveryError, match=f"more than {MAX_LINES} lines"):
        read_allowed_signers("\n" * MAX_LINES, "file")


def test_check_revoked_keys_accepts_lists_of_both_kinds(keys: Keys) -> None:
    check_revoked_keys(b"", "file")
    check_revoked_keys(f"# lost\n{keys.public('alice')} alice\n".encode(), "file")
    check_revoked_keys(keys.krl(f"{keys.private('alice')}.pub"), "file")
    assert keys.krl(f"{keys.private('alice')}.pub").startswith(KRL_MAGIC)


@pytest.mark.parametrize("line", [b"alice", b"SHA256:abc", b"ssh-ed25519 AAAA", b"\xff\xfe", b"serial: 1"])
def test_check_revoked_keys_with_line_that_ssh_keygen_passes_over_is_error(line: bytes) -> None:
    with pytest.raises(DeliveryError, match=r"file: line 1 (has|ends)"):
        check_revoked_keys(line, "file")
