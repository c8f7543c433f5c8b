# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Serves adapters with a real vLLM on the CPU, through the playbooks and the demo's inventory.

Prints a table of the steps, each as soon as it has ended, and exits with 1 if a step ends otherwise
than it must, if a client got a wrong answer or none, or if the fake engine answers otherwise than
the real one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time
import typing as t

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / ".collections")]

from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.declared import declared_engines  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import Golden, golden_path  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.calls import Calls  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.engines.table import client_of  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.probe import questions_of  # noqa: E402

from tests.engines.drivers.vllm import free_port  # noqa: E402
from tests.serving import clients, comparison, engine  # noqa: E402
from tests.support.fake_engine import running  # noqa: E402
from tests.support.playbooks import Background, Run  # noqa: E402
from tests.support.tiny_adapters import PEFT_PYTHON  # noqa: E402

CACHE = CHECKOUT / ".cache" / "serving"
NODE, NAME, NEIGHBOUR = "jw2-1", "llama32_3b_grammar_lora", "llama31_8b_grammar_lora"
LARGE_RANK = 128
# Seven examples before each question: more than the 128 tokens of a block of the prefix cache.
EXAMPLES = 7
QUESTIONS = ["My brother have two dog.", "He don't eat meat.", "She were at home.", "They sings a song."]
LIMIT = 1200


def prompts() -> list[str]:
    """Return one prompt for each client."""
    lesson = json.loads((CHECKOUT / "demo" / "sentences.json").read_text(encoding="utf-8"))["cleaner"]
    answered = [f"{lesson['prompt'].format(wrong)} {right}" for wrong, right in lesson["pairs"]]
    return [
        "\n".join([*answered[2 * number :][:EXAMPLES], lesson["prompt"].format(question)])
        for number, question in enumerate(QUESTIONS)
    ]


class Scene:
    """The demo's fleet below ``root``, with one agent whose engine is the real one."""

    def __init__(self, root: pathlib.Path, base: pathlib.Path, port: int) -> None:
        self.root, self.base, self.port = root, base, port
        self.prompts = prompts()
        self.begun = time.monotonic()
        self.problems: list[str] = []
        # Of the step that runs: what its clients got, and what else is to be shown.
        self.count: clients.Count | None = None
        self.remarks: list[str] = []
        shutil.rmtree(root, ignore_errors=True)
        (root / NODE / "home" / "models").mkdir(parents=True)

    @contextlib.contextmanager
    def step(self, title: str) -> t.Iterator[None]:
        """Run a step and print its row of the table."""
        print(f"== {title}", file=sys.stderr, flush=True)
        started, known = time.monotonic(), len(self.problems)
        self.count, self.remarks = None, []
        try:
            yield
        finally:
            ended = time.monotonic()
            self.problems[known:] = [f"{title}: {problem}" for problem in self.problems[known:]]
            print(row(title, ended - started, ended - self.begun, self.count), flush=True)
            for line in [*self.remarks, *self.problems[known:]]:
                print(f"  {line}", flush=True)

    def expect(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)

    def offer(self, adapter: str, name: str = NAME) -> None:
        """Put an adapter on the training server."""
        target = self.root / "sbs29" / "home" / "models" / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(CACHE / "adapters" / adapter, target)

    def play(self, playbook: str, *arguments: str) -> Run:
        variables = {"demo_root": str(self.root), "demo_base": str(self.base), "agent_engine": engine.declared(self.port)}
        done = Background(
            playbook,
            *("-i", str(CHECKOUT / "inventories" / "demo"), "-e", json.dumps(variables), *arguments),
            directory=self.root,
            environment={"ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")},
        ).wait(LIMIT)
        with (CACHE / "playbooks.log").open("a", encoding="utf-8") as log:
            log.write(f"== {playbook} {' '.join(arguments)}\n{done.output}\n")
        for entry in self.served(done):
            steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in entry["seconds"].items())
            distances = (entry["figures"] or {}).get("distances", {})
            mean = ", ".join(f"{name} {value:.4f}" for name, value in distances.items())
            self.remarks.append(f"{entry['name']}: {entry['action']}. {steps}. {mean}")
        return done

    @staticmethod
    def served(done: Run) -> list[dict[str, t.Any]]:
        """Return what adapter_serve has made of the adapters."""
        return [
            entry
            for one in done.results
            if one["action"].endswith("adapter_serve")
            for entry in one["result"].get("adapters", [])
        ]

    def record_goldens(self, *arguments: str) -> None:
        with self.step("  goldens"):
            self.expect(self.play("golden", "--tags", "cleaner", *arguments).rc == 0, "goldens were not recorded")

    def declare(self, variables: dict[str, t.Any]) -> list[str]:
        """Return the options of a second inventory, with other variables of the agent."""
        inventory = self.root / "inventory"
        (inventory / "group_vars").mkdir(parents=True, exist_ok=True)
        (inventory / "hosts.yml").write_text("jw2: {}\n", encoding="utf-8")
        (inventory / "group_vars" / "jw2.yml").write_text(json.dumps(variables), encoding="utf-8")
        return ["-i", str(inventory / "hosts.yml")]

    def deploy(self, *arguments: str) -> Run:
        return self.play("deploy", "--limit", "jw2", *arguments)

    def expect_served(self, done: Run, *actions: str) -> None:
        """Expect that a run succeeded and that the engine's answers were proved by the goldens."""
        found = sorted((entry["action"], entry["proof"] or "") for entry in self.served(done))
        expected = sorted((action, "served") for action in actions)
        self.expect(done.rc == 0 and found == expected, f"{found} instead of {expected}\n{' '.join(done.failures(NODE))}")

    def answers(self) -> dict[str, clients.Answer]:
        """Return what is answered now to each prompt."""
        found = {prompt: clients.ask(self.port, NAME, prompt) for prompt in self.prompts}
        lost = [one.failure for one in found.values() if one.answer is None]
        if lost:
            raise RuntimeError(f"no answer: {lost[0]}")
        return {prompt: one.answer for prompt, one in found.items() if one.answer is not None}

    def under_load(self, play: t.Callable[[], Run], changes: bool) -> Run:
        """Run a playbook while clients ask, and judge what they get.

        ``changes`` tells whether another release must be served afterwards.
        """
        old = self.answers()
        with clients.Clients(self.port, NAME, self.prompts) as asking:
            done = play()
        new = self.answers()
        differ = [prompt for prompt in self.prompts if not new[prompt].is_like(old[prompt])]
        # Otherwise no answer could be told from that of the other release.
        self.expect(differ == (self.prompts if changes else []), f"{len(differ)} of {len(self.prompts)} answers changed")
        self.count = clients.judged(asking.asked, old, new)
        self.expect(changes or not self.count.repeated, f"{self.count.repeated} requests were repeated without a switch")
        self.problems += [f"wrong answer: {text}" for text in self.count.wrong]
        self.problems += [f"failed answer: {text}" for text in self.count.failed]
        return done

    def measure(self, done: Run) -> None:
        """Show the largest differences of any told log-probability from those of PEFT."""
        [declared] = declared_engines([engine.declared(self.port)], "agent_engine")
        client = client_of(declared)
        for entry in self.served(done):
            path = golden_path(str(self.root / "sbs29" / "goldens"), entry["name"], entry["release"])
            golden = Golden.from_json(json.loads(pathlib.Path(path).read_text(encoding="utf-8")), path)
            questions = questions_of(golden, None)
            largest = {}
            for key, name in (("on", entry["name"]), ("off", None)):
                recorded = [recorded for rows in golden.answer[key] for recorded in rows]
                rows = Calls(client, LIMIT).replay(name, questions)
                largest[key] = max(
                    abs(value - told[token])
                    for one, values, told in zip(questions, recorded, rows)
                    for token, value in zip(one.others, values)
                    if token in told
                )
            shown = ", ".join(f"{key} {value:.6f}" for key, value in largest.items())
            self.remarks.append(f"{entry['name']}: {len(questions)} positions, largest difference from PEFT: {shown}")


def upgrade(scene: Scene) -> None:
    """Serve for the first time, upgrade, refuse and roll back. The engine stays up."""
    scene.offer("first")
    scene.offer("neighbour", NEIGHBOUR)
    scene.record_goldens()
    with scene.step("first serve"):
        scene.expect_served(scene.deploy(), "served", "served")
    scene.offer("second")
    scene.record_goldens()
    with scene.step("upgrade under four clients"):
        scene.expect_served(scene.under_load(scene.deploy, changes=True), "served", "unchanged")
    scene.offer("too_large")
    declared = scene.declare({"agent_adapters": [large_row()], "agent_engine_policy": "report"})
    scene.record_goldens(*declared)
    with scene.step("adapter that the engine refuses"):
        done = scene.under_load(lambda: scene.deploy(*declared), changes=False)
        said = " ".join(done.failures(NODE))
        scene.expect(done.rc == 2 and "max_lora_rank" in said, f"the engine was not named as the cause:\n{said}")
        scene.expect("is still served" in said, f"what is served is not said:\n{said}")
    with scene.step("rollback under four clients"):
        done = scene.under_load(lambda: scene.play("rollback", "--limit", "jw2", "--tags", "cleaner,3b"), changes=True)
        scene.expect_served(done, "served")


def large_row() -> dict[str, t.Any]:
    """The row of agent_adapters of an adapter with a rank above the engine's limit."""
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    base = "HuggingFaceTB/SmolLM2-135M-Instruct"
    row = {"name": NAME, "variant": "3b", "default": True, "base": base, "rank": LARGE_RANK, "alpha": 32}
    return {**row, "target_modules": modules}


def recorded_options(scene: Scene) -> list[str]:
    """Return the options that bring the adapters back, as systemd splits them."""
    [path] = (scene.root / NODE).glob("home/*/.serving/*/options")
    (assignment,) = shlex.split(path.read_text(encoding="utf-8"))
    return assignment.partition("=")[2].split()


def after_restart(scene: Scene, before: dict[str, clients.Answer]) -> None:
    with scene.step("answers after the restart"):
        after = scene.answers()
        scene.expect(all(after[prompt].is_like(before[prompt]) for prompt in scene.prompts), "other answers than before")
    with scene.step("serve.yml after the restart"):
        done = scene.play("serve", "--limit", "jw2")
        scene.expect_served(done, "unchanged", "unchanged")
    with scene.step("all positions of the goldens"):
        scene.measure(done)


def compare(scene: Scene, version: str) -> None:
    """Compare the real engine with the fake one of its version."""
    config = json.loads((scene.base / "config.json").read_text(encoding="utf-8"))
    adapters = [str(CACHE / "adapters" / name) for name in ("first", "second", "too_large")]
    with scene.step("comparison with the fake engine"), running.running(
        "vllm", scene.base, version, vocabulary=config["vocab_size"]
    ) as fake:
        scene.problems += comparison.differences(scene.port, fake.port, comparison.calls(*adapters))


def row(title: str, *cells: t.Any) -> str:
    """Return a row of the table: seconds, seconds since the begin, and what clients got."""
    seconds, elapsed, count = cells
    counts = ["-"] * 4 if count is None else [count.requests, len(count.wrong), len(count.failed), count.repeated]
    return "{:34}{:9.1f}{:9.1f}{:>10}{:>7}{:>8}{:>10}".format(title, seconds, elapsed, *counts)


@contextlib.contextmanager
def started(scene: Scene, vllm: engine.Vllm, adapters: t.Sequence[str] = ()) -> t.Iterator[None]:
    with contextlib.ExitStack() as stack:
        with scene.step(f"start of vLLM {vllm.version}"):
            stack.enter_context(vllm.running(scene.base, CACHE, scene.port, adapters=adapters))
        yield
        with scene.step("stop"):
            stack.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=pathlib.Path, default=CHECKOUT / ".cache" / "demo" / "base" / "SmolLM2-135M-Instruct")
    base = parser.parse_args().base.resolve()
    engine.end_orderly()
    CACHE.mkdir(parents=True, exist_ok=True)
    for log in ("playbooks.log", "vllm.log"):
        (CACHE / log).unlink(missing_ok=True)
    vllm = engine.installed()
    seeded = {**os.environ, "PYTHONHASHSEED": "0"}
    train = [PEFT_PYTHON, pathlib.Path(__file__).with_name("train.py"), base, CACHE / "adapters"]
    subprocess.run(train, env=seeded, check=True, timeout=LIMIT)
    scene = Scene(CACHE / "fleet", base, free_port())
    print(f"{'step':34}{'seconds':>9}{'elapsed':>9}{'requests':>10}{'wrong':>7}{'failed':>8}{'repeated':>10}", flush=True)
    with started(scene, vllm):
        compare(scene, vllm.version)
        upgrade(scene)
        before = scene.answers()
    with started(scene, vllm, recorded_options(scene)):
        after_restart(scene, before)
    return 1 if scene.problems else 0


if __name__ == "__main__":
    sys.exit(main())
