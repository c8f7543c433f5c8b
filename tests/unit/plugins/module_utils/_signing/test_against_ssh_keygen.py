# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the readers accept means the same to a real ssh-keygen."""

from __future__ import annotations

import base64
import os
import pathlib
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import (
    NAMESPACE,
    read_allowed_signers,
    ssh_time,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_formats import FormatError, read_signature
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_signatures import OLDEST
from hypothesis import given
from hypothesis import strategies as st

from tests.support.signing import NOW, Keys

TEXT = b"statement"
# OpenSSH 9.1 reads a Z behind a time.
READS_Z = (9, 1)
NAMES = st.sampled_from(["alice", "alice", "bob", "alice@lab"])
STRANGE_NAMES = st.sampled_from(["alice", "alice,bob", "*", "!alice", "al?ce", '"alice"', "#alice"])
GOOD = st.tuples(
    st.just(f'namespaces="{NAMESPACE}"'),
    st.sampled_from(["", "", "", "cert-authority"]),
    st.sampled_from(["", 'valid-after="20260101"', 'valid-after="202606011300"', 'valid-after="20260601115959Z"']),
    st.sampled_from(["", 'valid-before="20270101Z"', 'valid-before="202606011159"', 'valid-before="20260601"']),
).flatmap(lambda options: st.permutations([option for option in options if option]))
BAD = st.sampled_from(
    [
        f'namespaces="{NAMESPACE},git"',
        f"namespaces={NAMESPACE}",
        'namespaces="git"',
        'namespaces="*"',
        f'NAMESPACES="{NAMESPACE}"',
        'cert-authority="yes"',
        'valid-before="2026"',
        'valid-before="20261301"',
        "no-touch-required",
        "",
    ]
)
OPTIONS = GOOD.map(",".join)
STRANGE_OPTIONS = st.builds(
    lambda good, bad, comma: comma.join([*good, *bad]),
    GOOD,
    st.lists(BAD, max_size=2),
    st.sampled_from([",", ",", ", ", " ", ",,"]),
)
SPACE = st.sampled_from([" ", " ", "  ", "\t"])


@pytest.fixture(scope="module")
def signature(keys: Keys) -> bytes:
    return keys.sign(TEXT, "alice")


def version() -> tuple[int, ...]:
    shown = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    return tuple(map(int, shown.partition("_")[2].partition("p")[0].split(".")))


def is_good(directory: pathlib.Path, allowed: str, signature: bytes) -> bool:
    """Return whether ssh-keygen takes a signature for one by alice, in UTC."""
    (directory / "allowed").write_bytes(allowed.encode())
    (directory / "signature").write_bytes(signature)
    command = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-s", "signature", "-I", "alice", "-n", NAMESPACE]
    command.append(f"-Overify-time={ssh_time(NOW)}")
    done = subprocess.run(command, input=TEXT, capture_output=True, cwd=directory, check=False, env={**os.environ, "TZ": "UTC0"})
    return done.returncode == 0


@pytest.mark.fuzz
# Nothing is compared about a line that is not read, so strange lines alone would compare little.
@pytest.mark.parametrize(("names", "options"), [(NAMES, OPTIONS), (STRANGE_NAMES, STRANGE_OPTIONS)], ids=["good", "strange"])
@given(data=st.data())
def test_allowed_signers_that_are_read_mean_the_same_to_ssh_keygen(
    keys: Keys,
    signature: bytes,
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    names: st.SearchStrategy[str],
    options: st.SearchStrategy[str],
) -> None:
    def line() -> str:
        key = keys.public(data.draw(st.sampled_from(["alice"] * 5 + ["mallory"])))
        parts = [data.draw(names), data.draw(options), *str(key).split(), *data.draw(st.sampled_from([[], ["a comment"]]))]
        return data.draw(SPACE).join(parts)

    text = data.draw(st.sampled_from(["\n", "\r\n"])).join(line() for _each in range(data.draw(st.integers(1, 2)))) + "\n"
    try:
        signers = read_allowed_signers(text, "file")
    except DeliveryError:
        return
    expected = any(
        one.name == "alice" and one.key == keys.public("alice") and not one.authority and one.in_force(NOW) for one in signers
    )
    directory = tmp_path_factory.getbasetemp()
    # What the collection gives to ssh-keygen, and what people have written.
    assert is_good(directory, "".join(f"{one.line()}\n" for one in signers), signature) is expected
    if version() >= (READS_Z if 'Z"' in text else OLDEST):
        assert is_good(directory, text, signature) is expected


@pytest.mark.fuzz
@given(position=st.integers(0, 300), cut=st.integers(0, 4), more=st.binary(max_size=4), line=st.sampled_from([70, 64, 10**6]))
def test_signature_that_ssh_keygen_takes_is_read_as_one_by_that_key(
    keys: Keys, signature: bytes, tmp_path_factory: pytest.TempPathFactory, position: int, cut: int, more: bytes, line: int
) -> None:
    blob = base64.b64decode(b"".join(signature.split(b"\n")[1:-2]))
    text = base64.b64encode(blob[:position] + more + blob[position + cut :])
    lines = b"\n".join(text[start : start + line] for start in range(0, len(text), line))
    changed = b"-----BEGIN SSH SIGNATURE-----\n" + lines + b"\n-----END SSH SIGNATURE-----\n"
    allowed = f'alice namespaces="{NAMESPACE}" {keys.public("alice")}\n'
    good = is_good(tmp_path_factory.getbasetemp(), allowed, changed)
    try:
        found: t.Any = read_signature(changed)
    except FormatError:
        found = None
    if good:
        assert found is not None
        assert (found.key, found.namespace, found.touched) == (keys.public("alice"), NAMESPACE, True)
    assert good or changed != signature


def test_ssh_keygen_reads_what_the_tests_compare(keys: Keys, signature: bytes, tmp_path: pathlib.Path) -> None:
    """Otherwise both would refuse everything."""
    line = f'alice namespaces="{NAMESPACE}" {keys.public("alice")}\n'
    assert is_good(tmp_path, line, signature)
    assert not is_good(tmp_path, line.replace("alice", "bob", 1), signature)
