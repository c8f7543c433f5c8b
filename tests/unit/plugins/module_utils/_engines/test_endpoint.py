# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.declared import declared_engines
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.endpoint import SERVING, Endpoint, needed_keys
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.engines.table import CLIENTS

URL = "http://127.0.0.1:8000"


def endpoint(**keys: t.Any) -> t.Optional[Endpoint]:
    [declared] = declared_engines({"name": "vllm", **keys}, "engines")
    return declared.endpoint


def test_engine_without_url_has_no_endpoint() -> None:
    assert endpoint(max_lora_rank=64) is None


def test_endpoint_has_its_keys_and_settings_do_not() -> None:
    [declared] = declared_engines({"name": "vllm", "url": f"{URL}/", "drain_timeout": 5, "max_lora_rank": 64}, "engines")
    assert declared.settings == {"max_lora_rank": 64}
    assert declared.endpoint == Endpoint(URL, drain_timeout=5)


@pytest.mark.parametrize("url", ["http://localhost:8000", "http://127.9.9.9:1", "https://[::1]:8443"])
def test_endpoint_on_loopback_is_accepted(url: str) -> None:
    found = endpoint(url=url)
    assert found is not None and found.url == url


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:8000", "http://gpu1:8000", "http://[2001:db8::1]:8000", "http://127.0.0.1.example:8000"]
)
def test_endpoint_of_other_hosts_needs_allow_remote(url: str) -> None:
    with pytest.raises(
        DeliveryError, match=r"which other hosts can reach: .* Let the engine listen on 127.0.0.1, or set allow_remote."
    ):
        endpoint(url=url)
    assert endpoint(url=url, allow_remote=True) is not None


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://127.0.0.1:8000",
        "http://127.0.0.1",
        "http://127.0.0.1:80000",
        f"{URL}/v1",
        f"{URL}?a=b",
        "http://[::1:8000",
    ],
)
def test_endpoint_with_url_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(DeliveryError, match=r"is not the address of a server. Write one like http://127.0.0.1:8000."):
        endpoint(url=url)


def test_endpoint_with_user_name_is_refused_without_quoting_it() -> None:
    for url in ("http://me:secret@127.0.0.1:8000", "http://me:secret@127.0.0.1/v1"):
        with pytest.raises(DeliveryError, match="has a user name in url") as caught:
            endpoint(url=url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"api_key_file": "/etc/key"}, "has api_key_file for engine vllm, but no url."),
        ({"url": URL, "api_key_file": "key"}, "which is not an absolute path."),
        ({"url": URL, "public_name": "yes"}, 'has public_name "yes" for engine vllm, which is not alias or none.'),
        ({"url": URL, "drain_timeout": -1}, "which is not a number of seconds"),
        ({"url": URL, "restart": "a b.service"}, "which is not the name of a systemd unit, or a list of arguments"),
        ({"url": URL, "restart": ["systemctl", "restart"]}, "which is not the name of a systemd unit, or a list of arguments"),
        ({"url": URL, "name": "tgi", "restart": "tgi.service", "public_name": "none"}, "which takes no names with an @."),
        ({"url": URL, "drain_timout": 5}, "has the unknown key drain_timout for engine vllm. Write drain_timeout."),
    ],
)
def test_endpoint_with_a_mistake_is_refused(keys: dict[str, t.Any], problem: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        endpoint(**keys)
    assert problem in str(caught.value)


def test_endpoint_takes_unit_or_command_for_restart() -> None:
    for restart in ("vllm@3b.service", ["/usr/bin/docker", "restart", "tgi"]):
        found = endpoint(url=URL, restart=restart)
        assert found is not None and found.restart == restart


def test_endpoint_of_engine_that_cannot_be_told_to_serve_is_refused() -> None:
    with pytest.raises(DeliveryError) as caught:
        declared_engines({"name": "openvino", "url": URL}, "engines")
    assert str(caught.value) == (
        "engines: has url for engine openvino, which is not supported for serving. Remove url, or use one of these"
        " engines: llama_cpp, lmdeploy, mistralrs, own, sglang, tgi, vllm."
    )
    assert {client.name for client in CLIENTS} == set(SERVING)


UNIT, COMMAND = "engine.service", ["/usr/local/bin/convert"]


@pytest.mark.parametrize(
    ("engine", "missing"),
    [
        ({"name": "vllm"}, []),
        ({"name": "lmdeploy"}, ["restart"]),
        ({"name": "llama.cpp"}, ["restart", "convert"]),
        ({"name": "llama.cpp", "restart": UNIT}, ["convert"]),
        ({"name": "llama.cpp", "restart": UNIT, "convert": COMMAND}, []),
        # The router loads at run time.
        ({"name": "llama.cpp", "preset": "/etc/llama.ini"}, ["convert"]),
        ({"name": "llama.cpp", "preset": "/etc/llama.ini", "convert": COMMAND}, []),
    ],
)
def test_endpoint_without_a_key_that_its_engine_needs_is_refused(engine: dict[str, t.Any], missing: list[str]) -> None:
    problems: t.Sequence[Problem] = ()
    try:
        declared_engines({**engine, "url": URL}, "engines")
    except DeliveryError as exc:
        problems = exc.problems
    subject = f"has url for engine {engine['name']}, but no "
    assert [one.problem.partition(":")[0] for one in problems] == [f"{subject}{key}" for key in missing]
    assert [one.remedy.partition(":")[0] for one in problems] == [f"State {key}" for key in missing]
    # Without a url, nothing is loaded.
    assert len(declared_engines({"name": engine["name"]}, "engines")) == 1


def test_endpoint_of_each_engine_that_gets_its_adapters_at_its_start_needs_restart() -> None:
    forms = {client: {"preset": "/etc/llama.ini"} if "router" in client.form else {} for client in CLIENTS}
    assert [client.restarts for client in CLIENTS] == ["restart" in needed_keys(client.name, forms[client]) for client in CLIENTS]
