# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order of calls and its way back, on a fake engine with vLLM's answers."""

from __future__ import annotations

import collections
import json
import os
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import golden_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.engines.vllm import Vllm
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.journal import read_pending
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.probe import some_of

from tests.support.fake_engine import faults, running
from tests.support.releases import NAME, release_of, write_version
from tests.support.serving import ServingNode

from .conftest import Start

OLD, NEW = f"{NAME}@{release_of(1)}", f"{NAME}@{release_of(2)}"


def changes(engine: running.FakeEngine, since: int = 0) -> list[str]:
    """The calls that changed the engine's list, after the first ``since`` of all calls."""
    return [str(seen) for seen in engine.calls()[since:] if seen.kind in ("load", "unload")]


def problems(result: dict[str, t.Any]) -> str:
    return "\n".join(map(str, result["problems"]))


def upgraded(start: Start, **keys: t.Any) -> tuple[ServingNode, running.FakeEngine]:
    """A node that serves version 1 and has version 2 active."""
    node, engine = start(**keys)
    node.deploy(1)
    assert problems(node.serve()) == ""
    node.deploy(2)
    return node, engine


def test_serve_first_release_proves_it_and_leaves_one_name(start: Start) -> None:
    node, engine = start()
    release = node.deploy(1)
    result = node.serve()
    assert problems(result) == ""
    [entry] = result["adapters"]
    assert (entry["action"], entry["served"], entry["names"], entry["proof"]) == ("served", release, [NAME], "served")
    assert entry["figures"]["distances"]["on"] < 0.0001
    assert node.listed() == {NAME: node.root(1)}
    assert changes(engine) == [f"load {OLD}", f"load {NAME}", f"unload {OLD}"]
    assert node.desired().adapters[NAME].root == node.root(1)


def test_serve_next_release_switches_the_public_name_to_its_own_directory(start: Start) -> None:
    node, engine = upgraded(start)
    before = len(engine.calls())
    result = node.serve()
    assert problems(result) == ""
    assert changes(engine, before) == [f"load {NEW}", f"unload {NAME}", f"load {NAME}", f"unload {NEW}"]
    assert node.listed() == {NAME: node.root(2)}
    assert not any("load_inplace" in seen.body for seen in engine.calls())
    # The answers of the old release may still be in work.
    assert node.desired().lingering == {OLD: node.root(1)}


def test_serve_again_proves_the_release_and_changes_nothing(start: Start) -> None:
    node, engine = start()
    node.deploy(1)
    node.serve()
    before = len(engine.calls())
    result = node.serve()
    assert (result["changed"], result["adapters"][0]["action"], problems(result)) == (False, "unchanged", "")
    assert changes(engine, before) == []
    assert any(seen.kind == "answer" for seen in engine.calls()[before:])


def test_serve_after_restart_of_the_engine_loads_the_release_again(start: Start) -> None:
    node, engine = start()
    node.deploy(1)
    node.serve()
    engine.restart()
    assert node.listed() == {}
    assert problems(node.serve()) == ""
    assert node.listed() == {NAME: node.root(1)}


def test_serve_refused_release_leaves_the_old_one(start: Start) -> None:
    node, engine = upgraded(start)
    engine.fault(faults.STATUS, on="load", name=NEW, status=500, body={"error": {"message": "first\nsecond"}})
    result = node.serve()
    assert f"first (HTTP 500). Release {release_of(1)} is still served, 0.0000 from its answers before." in problems(result)
    assert (result["adapters"][0]["action"], result["adapters"][0]["served"]) == ("went back", release_of(1))
    assert node.listed() == {NAME: node.root(1)}


def test_serve_release_that_answers_like_another_one_is_refused_before_the_switch(start: Start) -> None:
    node, engine = start()
    node.deploy(1)
    node.serve()
    node.deploy(2, golden_of=3)
    before = len(engine.calls())
    result = node.serve()
    assert f"{NEW} answers like another adapter than the recorded one" in problems(result)
    assert f"Release {release_of(1)} is still served, 0.0000 from its answers before." in problems(result)
    assert changes(engine, before) == [f"load {NEW}", f"unload {NEW}"]


def test_serve_next_release_asks_all_questions_only_of_its_own_name(start: Start) -> None:
    """A switch must not occupy an engine that is busy for longer than the proof takes."""
    node, engine = upgraded(start)
    before = len(engine.calls())
    assert problems(node.serve()) == ""
    asked = collections.Counter[str]()
    for seen in engine.calls()[before:]:
        body = json.loads(seen.body) if seen.kind == "answer" else {}
        # Other requests ask for fewer tokens.
        asked[seen.name] += len(body["prompt"]) if body.get("logprobs") == 20 else 0
    manifest = node.node().paths.read_manifest(release_of(2))
    assert manifest is not None
    positions = golden_of(manifest).positions
    few = len(some_of(range(positions)))
    # The name of users: before the switch and after it.
    assert dict(+asked) == {NEW: positions, "base": positions, NAME: 2 * few}
    assert 2 * few <= positions


def test_serve_by_engine_that_is_too_slow_leaves_the_old_release(start: Start) -> None:
    node, _engine = upgraded(start)
    node.engines[0]["probe_timeout"] = 0
    result = node.serve()
    assert "did not answer the questions of a probe within 0 seconds. Release" in problems(result)
    assert f"Release {release_of(1)} is still served. Run again when it is less busy, or raise probe_timeout" in problems(result)
    assert (result["adapters"][0]["action"], result["adapters"][0]["served"]) == ("went back", release_of(1))
    assert node.listed() == {NAME: node.root(1)}


def test_serve_release_without_effect_is_refused(start: Start) -> None:
    node, engine = upgraded(start)
    engine.fault(faults.BASE_ANSWERS, name=NEW)
    result = node.serve()
    assert f"{NEW} answers exactly as its base does" in problems(result)
    assert node.listed() == {NAME: node.root(1)}


def test_serve_name_with_other_weights_after_the_switch_goes_back(start: Start, tmp_path: pathlib.Path) -> None:
    node, engine = upgraded(start)
    write_version(tmp_path / "other", 3)
    engine.fault(faults.OTHER_WEIGHTS, name=NAME, times=1, directory=str(tmp_path / "other"))
    before = len(engine.calls())
    result = node.serve()
    assert f"{NAME} answers like another adapter than the recorded one" in problems(result)
    assert f"Release {release_of(1)} is again served, 0.0000 from its answers before." in problems(result)
    loaded, back = [f"load {NEW}", f"unload {NAME}", f"load {NAME}"], [f"unload {NAME}", f"load {NAME}", f"unload {NEW}"]
    assert changes(engine, before) == loaded + back
    assert node.listed() == {NAME: node.root(1)}
    assert node.desired().adapters[NAME].root == node.root(1)
    assert read_pending(node.node_engines()[0].paths) is None


def test_serve_first_release_with_other_weights_leaves_no_name(start: Start, tmp_path: pathlib.Path) -> None:
    node, engine = start()
    node.deploy(1)
    write_version(tmp_path / "other", 3)
    engine.fault(faults.OTHER_WEIGHTS, name=NAME, directory=str(tmp_path / "other"))
    result = node.serve()
    assert "The engine had no other release of it before, and has none now." in problems(result)
    assert node.listed() == {}
    assert node.desired().adapters == {}


def test_serve_stale_prefix_cache_after_the_switch_goes_back(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM before 0.31, as if it were allowed to reuse a name."""
    monkeypatch.setattr(Vllm, "why_not_switch", lambda _engine: None)
    node, _engine = upgraded(start, version="0.29.0")
    result = node.serve()
    assert f"{NAME} answers from the prefix cache of another release (" in problems(result)
    assert node.listed() == {NAME: node.root(1)}


def test_serve_before_0_31_leaves_the_public_name_to_a_gateway(start: Start) -> None:
    node, engine = start(version="0.29.0")
    node.deploy(1)
    [entry] = node.serve()["adapters"]
    assert entry["notes"] == [
        "In vLLM 0.29.0, a name that is used again answers from a mix of two releases. From 0.31 on, it does not."
        f" So a gateway has to lead {NAME} to {OLD}."
    ]
    assert node.listed() == {OLD: node.root(1)}
    node.deploy(2)
    before = len(engine.calls())
    assert problems(node.serve()) == ""
    assert changes(engine, before) == [f"load {NEW}"]
    assert node.listed() == {NEW: node.root(2), OLD: node.root(1)}


def test_serve_with_a_gateway_keeps_the_release_before_until_the_next(start: Start) -> None:
    node, engine = upgraded(start, public_name="none")
    [entry] = node.serve()["adapters"]
    assert (entry["names"], entry["previous"], entry["notes"]) == ([NEW], release_of(1), [])
    assert node.listed() == {NEW: node.root(2), OLD: node.root(1)}
    # Nothing changes while the gateway has not followed.
    assert (node.serve()["changed"], set(node.listed())) == (False, {NEW, OLD})
    node.deploy(3)
    before = len(engine.calls())
    assert node.serve()["adapters"][0]["previous"] == release_of(2)
    # At no time are there more than two.
    assert changes(engine, before) == [f"unload {OLD}", f"load {NAME}@{release_of(3)}"]
    assert set(node.listed()) == {NEW, f"{NAME}@{release_of(3)}"}


def test_serve_with_a_gateway_returns_to_the_release_before_without_loading_it(start: Start) -> None:
    node, engine = upgraded(start, public_name="none")
    node.serve()
    node.node().roll_back()
    before = len(engine.calls())
    [entry] = node.serve()["adapters"]
    assert (entry["action"], entry["served"], entry["previous"]) == ("served", release_of(1), release_of(2))
    assert changes(engine, before) == []
    assert set(node.listed()) == {NEW, OLD}


def test_serve_with_a_gateway_returns_to_no_release_that_answers_wrongly_now(start: Start, tmp_path: pathlib.Path) -> None:
    node, engine = upgraded(start, public_name="none")
    node.serve()
    node.node().roll_back()
    node.record(1, golden_of=3)
    before = len(engine.calls())
    result = node.serve()
    assert f"Release {release_of(2)} is still served, 0.0000 from its answers before." in problems(result)
    assert changes(engine, before) == []
    served = node.desired().adapters[NAME]
    assert (served.release, served.previous) == (release_of(2), release_of(1))


def test_serve_with_a_gateway_brings_both_releases_back_with_the_options(start: Start, tmp_path: pathlib.Path) -> None:
    node, engine = upgraded(start, public_name="none", settings={"start": str(tmp_path / "options")})
    node.serve()
    os.symlink(node.node_engines()[0].paths.options, tmp_path / "options")
    engine.restart()
    assert node.listed() == {NEW: node.root(2), OLD: node.root(1)}


def test_serve_with_a_gateway_by_an_engine_that_was_restarted_forgets_the_release_before(start: Start) -> None:
    node, engine = upgraded(start, public_name="none")
    node.serve()
    engine.restart()
    assert problems(node.serve()) == ""
    assert node.listed() == {NEW: node.root(2)}
    assert node.desired().adapters[NAME].previous is None


def test_serve_whose_public_name_goes_to_a_gateway_unloads_it_with_its_release(start: Start) -> None:
    node, engine = start()
    node.deploy(1)
    node.serve()
    node.engines[0]["public_name"] = "none"
    node.deploy(2)
    [entry] = node.serve()["adapters"]
    # Users have no other name until the gateway leads them.
    assert (entry["names"], entry["previous"]) == ([NEW], release_of(1))
    assert node.listed() == {NEW: node.root(2), NAME: node.root(1)}
    node.deploy(3)
    before = len(engine.calls())
    assert problems(node.serve()) == ""
    assert changes(engine, before) == [f"unload {NAME}", f"load {NAME}@{release_of(3)}"]
    assert set(node.listed()) == {NEW, f"{NAME}@{release_of(3)}"}


def test_serve_whose_public_name_comes_back_from_a_gateway_leaves_that_name_alone(start: Start) -> None:
    node, _engine = upgraded(start, public_name="none")
    node.serve()
    node.engines[0]["public_name"] = "alias"
    [entry] = node.serve()["adapters"]
    assert (entry["names"], entry["previous"]) == ([NAME], None)
    assert node.listed() == {NAME: node.root(2)}


def test_serve_records_why_a_release_is_not_served_until_it_is(start: Start) -> None:
    node, _engine = start()
    node.deploy(1)
    node.serve()
    node.deploy(2, golden_of=3)
    [entry] = node.serve()["adapters"]
    refused = node.desired().refused[NAME]
    assert refused.release == release_of(2)
    assert f"{NEW} answers like another adapter" in refused.why
    assert "is still served" not in refused.why
    assert entry["why"] == refused.why
    node.record(2)
    [entry] = node.serve()["adapters"]
    assert (entry["why"], node.desired().refused) == (None, {})


def test_serve_release_without_golden_is_unproved(start: Start) -> None:
    node, _engine = start()
    node.deploy(1, golden_of=None)
    result = node.serve()
    [entry] = result["adapters"]
    assert (problems(result), entry["action"], entry["proof"], entry["figures"]) == ("", "served", "unproved", None)
    assert entry["why_unproved"].startswith("It has no golden.")


def test_serve_without_golden_refuses_a_release_without_effect(start: Start) -> None:
    node, engine = start()
    node.deploy(1, golden_of=None)
    engine.fault(faults.BASE_ANSWERS, name=OLD)
    assert f"{OLD} answers exactly as its base does" in problems(node.serve())


@pytest.mark.parametrize("dies", [faults.DIES, faults.STOPS, faults.DEAD])
def test_serve_engine_that_dies_in_the_probe_is_named_and_sent_nothing_more(start: Start, dies: str) -> None:
    node, engine = upgraded(start, restart="vllm.service")
    engine.fault(dies, on="answer", name=NEW)
    before = len(engine.calls())
    result = node.serve()
    text = problems(result)
    assert f"engine vllm at {engine.url}: " in text
    assert "Restart the engine: systemctl restart vllm.service." in text
    assert f"the options in {node.node_engines()[0].paths.options} load release {release_of(1)}." in text
    # It looks whether the engine is up, and then ends.
    assert [seen.kind for seen in engine.calls_after_death() if seen.kind not in ("health", "other")] == []
    assert changes(engine, before) == [f"load {NEW}"]
    assert node.desired().adapters[NAME].root == node.root(1)

    engine.restart()
    result = node.serve()
    assert problems(result) == ""
    assert result["notes"] == [
        f"engine vllm at {engine.url}: An earlier run ended while it changed {NAME}."
        f" {NAME} was returned to what it served before."
    ]
    assert node.listed() == {NAME: node.root(2)}


def test_serve_engine_that_is_down_is_named(start: Start) -> None:
    node, engine = start()
    node.deploy(1)
    engine.fault(faults.STOPS, on="health")
    result = node.serve()
    assert result["adapters"] == []
    assert problems(result).startswith(
        f"engine vllm at {engine.url}: closed the connection without an answer. Restart the engine."
    )


def test_serve_release_that_spoils_its_neighbours_names_the_restart(start: Start) -> None:
    node, engine = upgraded(start)
    engine.fault(faults.NOT_FINITE, on="", name=NEW, spoils=True)
    text = problems(node.serve())
    assert "answers with values that are not finite." in text
    assert "The way back failed as well: " in text
    assert "Restart the engine." in text


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (faults.UNLISTED, f"accepted {NEW}, but does not list it."),
        (faults.OTHER_ROOT, f"lists {NEW} from /elsewhere, not from "),
    ],
)
def test_serve_release_that_is_listed_otherwise_is_refused(start: Start, fault: str, problem: str) -> None:
    node, engine = upgraded(start)
    engine.fault(fault, name=NEW, directory="/elsewhere")
    assert problem in problems(node.serve())
    engine.heal()
    assert node.listed()[NAME] == node.root(1)


def test_serve_load_whose_answer_is_lost_is_read_from_the_list(start: Start) -> None:
    node, engine = upgraded(start)
    engine.fault(faults.RESET, on="load", name=NEW, times=1, after=True)
    engine.fault(faults.RESET, on="unload", name=NAME, times=1, after=True)
    assert problems(node.serve()) == ""
    assert changes(engine).count(f"load {NEW}") == 1
    assert node.listed() == {NAME: node.root(2)}


def test_serve_busy_engine_is_asked_again(start: Start) -> None:
    node, engine = start()
    node.deploy(1)
    engine.fault(faults.STATUS, on="load", name=OLD, times=1, status=429, body={"error": {"message": "busy"}})
    assert problems(node.serve()) == ""
    assert changes(engine)[:2] == [f"load {OLD}", f"load {OLD}"]


def test_serve_adapter_with_the_name_of_the_base_is_refused(start: Start) -> None:
    node, engine = start(version="0.29.0")
    node.deploy(1, name="base")
    assert "adapter base: has the name of the base that" in problems(node.serve())
    assert changes(engine) == []


def test_serve_name_of_the_release_from_elsewhere_is_refused(start: Start, tmp_path: pathlib.Path) -> None:
    node, engine = start()
    node.deploy(1)
    write_version(tmp_path / "other", 1)
    node.node_engines()[0].client.load(OLD, str(tmp_path / "other"))
    assert f"has {OLD} from {tmp_path}/other, not from {node.root(1)}. Unload {OLD} from the engine." in problems(node.serve())
    assert len(changes(engine)) == 1


def test_serve_engine_that_lists_a_directory_that_is_gone_is_sent_nothing(start: Start, tmp_path: pathlib.Path) -> None:
    node, engine = start()
    node.deploy(1)
    write_version(tmp_path / "other", 3)
    node.node_engines()[0].client.load("stranger", str(tmp_path / "other"))
    shutil.rmtree(tmp_path / "other")
    before = len(engine.calls())
    assert f"lists stranger from {tmp_path}/other, which does not exist" in problems(node.serve())
    assert {seen.kind for seen in engine.calls()[before:]} == {"health", "version", "list"}


def test_serve_with_wrong_key_says_where_the_key_belongs(start: Start, tmp_path: pathlib.Path) -> None:
    (tmp_path / "key").write_text("wrong\n")
    node, engine = start(api_key_file=str(tmp_path / "key"), settings={"api_key": "right"})
    node.deploy(1)
    text = problems(node.serve())
    assert "rejects the API key (HTTP 401). Write the key of the engine into the file that its api_key_file names." in text
    (tmp_path / "key").write_text("right\n")
    assert problems(node.serve()) == ""
    assert not any("right" in seen.body for seen in engine.calls())


def test_serve_without_runtime_loading_names_the_setting(start: Start) -> None:
    node, _engine = start(settings={"runtime_loading": False})
    node.deploy(1)
    assert "does not load adapters at run time. " in problems(node.serve())
    assert "Start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora." in problems(node.serve())


def test_serve_several_adapters_leaves_the_others_as_they_were(start: Start) -> None:
    node, engine = start()
    for number, name in enumerate(("one", "two", "three"), 1):
        node.deploy(number, name=name)
    assert problems(node.serve()) == ""
    assert node.listed() == {"one": node.root(1, "one"), "two": node.root(2, "two"), "three": node.root(3, "three")}
    node.deploy(4, name="two", golden_of=1)
    result = node.serve()
    assert [(entry["name"], entry["action"]) for entry in result["adapters"]] == [
        ("one", "unchanged"),
        ("three", "unchanged"),
        ("two", "went back"),
    ]
    assert node.listed()["two"] == node.root(2, "two")
    assert engine.calls()


def test_serve_options_of_the_start_bring_back_what_was_proved(start: Start, tmp_path: pathlib.Path) -> None:
    node, engine = start(settings={"start": str(tmp_path / "options")})
    node.deploy(1)
    node.serve()
    options = node.node_engines()[0].paths.options
    assert pathlib.Path(options).read_text() == f"LORAFLEET_OPTIONS='--lora-modules {NAME}={node.root(1)}'\n"
    os.symlink(options, tmp_path / "options")
    engine.restart()
    assert node.listed() == {NAME: node.root(1)}
    before = len(engine.calls())
    assert problems(node.serve()) == ""
    assert changes(engine, before) == []


def test_serve_name_that_was_loaded_through_a_link_gets_the_release_itself(start: Start, tmp_path: pathlib.Path) -> None:
    node, engine = start()
    node.deploy(1)
    os.symlink(node.root(1), tmp_path / "link")
    node.node_engines()[0].client.load(NAME, str(tmp_path / "link"))
    before = len(engine.calls())
    assert problems(node.serve()) == ""
    assert changes(engine, before) == [f"load {OLD}", f"unload {NAME}", f"load {NAME}", f"unload {OLD}"]
    assert node.listed() == {NAME: node.root(1)}


def test_serve_whose_records_cannot_be_written_names_the_path(start: Start) -> None:
    node, _engine = start()
    node.deploy(1)
    pathlib.Path(node.options["store"], ".serving").write_text("a file")
    with pytest.raises(DeliveryError, match=r"\.serving.*cannot be written: Not a directory"):
        node.serve()


def test_serve_in_check_mode_only_reads(start: Start) -> None:
    node, engine = start()
    node.deploy(1)
    assert node.serve(check_mode=True)["changed"] is True
    assert not any(seen.kind in ("load", "unload", "answer") for seen in engine.calls())
    assert not os.path.exists(os.path.join(node.options["store"], ".serving"))
    node.serve()
    assert node.serve(check_mode=True)["changed"] is False
