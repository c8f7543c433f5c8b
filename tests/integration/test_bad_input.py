# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input is refused with a message that names the remedy; nothing is activated, nothing is lost.

Each row of the table has a node that serves an earlier release, or an empty one if the fault is
found after the activation. The rows of a batch share one run of the deploy playbook, which must
still deliver a healthy node.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import fcntl
import functools
import json
import math
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import typing as t

import pytest

from tests.support.damage import EMBED, LAYER, Q0_A, Damage, add, change_tensors, drop, put, scale, zero
from tests.support.fake_engine import faults, running
from tests.support.fleet import CLEANER_3B, CONFIG, DESCRIBER_3B, WEIGHTS, Fleet, contents, row, travelling
from tests.support.playbooks import Variables
from tests.support.tiny_adapters import BASE_NAME, PEFT_PYTHON
from tests.support.troubleshooting import documented

SAVED_AGAIN = "Save the adapter again with PEFT"


@dataclasses.dataclass(frozen=True)
class Bad:
    """A row of the table.

    ``parts`` must all be in the message; ``declared`` overrides the inventory's row. ``kind`` names
    another tiny adapter than the plain one. ``source`` damages the directory on the training
    server. ``node`` damages a node and returns variables for it; its stack is closed after the run.
    ``activated`` is whether the files are active before it is found out, as an engine reads them.
    """

    batch: str
    parts: tuple[str, ...]
    source: c.Callable[[pathlib.Path], object] | None = None
    declared: Variables = dataclasses.field(default_factory=dict)
    kind: str = ""
    node: c.Callable[[Fleet, str, contextlib.ExitStack], Variables] | None = None
    activated: bool = False


def tensors(damage: Damage) -> c.Callable[[pathlib.Path], None]:
    return lambda directory: change_tensors(directory, damage)


def config(**values: t.Any) -> c.Callable[[pathlib.Path], None]:
    """Change keys of adapter_config.json."""

    def damage(directory: pathlib.Path) -> None:
        path = directory / CONFIG
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")

    return damage


def weights(change: c.Callable[[bytes], bytes]) -> c.Callable[[pathlib.Path], None]:
    """Change the bytes of the weights file."""
    return lambda directory: (directory / WEIGHTS).write_bytes(change((directory / WEIGHTS).read_bytes()))


def overlapping(data: bytes) -> bytes:
    """Let the first tensor of a safetensors file take the bytes of the second one too."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    entries = sorted((header[name] for name in header if name != "__metadata__"), key=lambda entry: entry["data_offsets"])
    start, end = entries[0]["data_offsets"][0], entries[1]["data_offsets"][1]
    entries[0].update(data_offsets=[start, end], shape=[(end - start) // 4])
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def as_pickle(directory: pathlib.Path) -> None:
    (directory / WEIGHTS).rename(directory / "adapter_model.bin")


def emptied(directory: pathlib.Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()


def link_outside(directory: pathlib.Path) -> None:
    (directory / "tokenizer.json").unlink()
    (directory / "tokenizer.json").symlink_to("/etc/passwd")


def interpreter(text: str) -> c.Callable[[Fleet, str, contextlib.ExitStack], Variables]:
    """Replace the node's Python by a script that runs ``text`` before each module.

    ``text`` may use $home, $source and $module.
    """

    def make(fleet: Fleet, node: str, _stack: contextlib.ExitStack) -> Variables:
        script = fleet.root / node / "python"
        source = fleet.hosts[node]["agent_source_models_dir"]
        lines = ["#!/bin/sh", f"home={fleet.home(node)} source={source}/{CLEANER_3B} module=$1", text]
        script.write_text("\n".join([*lines, f'exec {sys.executable} "$@"', ""]), encoding="utf-8")
        script.chmod(0o755)
        return {"ansible_python_interpreter": str(script)}

    return make


def before_module(name: str, command: str) -> c.Callable[[Fleet, str, contextlib.ExitStack], Variables]:
    """Run a command on the node once, before it runs a module."""
    once = f"test -e $home/done || {{ : > $home/done; {command}; }}"
    return interpreter(f"case $module in *AnsiballZ_{name}.py) {once} ;; esac")


def without_models_dir(fleet: Fleet, node: str, _stack: contextlib.ExitStack) -> Variables:
    return {"agent_models_dir": str(fleet.home(node) / "nowhere")}


def models_dir_of_source(fleet: Fleet, node: str, _stack: contextlib.ExitStack) -> Variables:
    return {"agent_models_dir": fleet.hosts[node]["agent_source_models_dir"]}


def shared(fleet: Fleet, node: str, stack: contextlib.ExitStack) -> Variables:
    """Let every user write to the directory of the models directory."""
    fleet.home(node).chmod(0o777)
    stack.callback(fleet.home(node).chmod, 0o755)
    return {}


def unwritable(fleet: Fleet, node: str, stack: contextlib.ExitStack) -> Variables:
    """Make the models directory immutable, for root too."""
    models = fleet.home(node) / "models"
    if os.geteuid() == 0:
        if subprocess.run(["chattr", "+i", models], capture_output=True, check=False).returncode:
            raise Impossible("this file system has no immutable directories")
        stack.callback(subprocess.run, ["chattr", "-i", models], check=True)
    else:
        models.chmod(0o555)
        stack.callback(models.chmod, 0o755)
    return {}


def on_tmpfs(option: str, later: str) -> c.Callable[[Fleet, str, contextlib.ExitStack], Variables]:
    """Mount a file system of its own as the node's home."""

    def make(fleet: Fleet, node: str, stack: contextlib.ExitStack) -> Variables:
        home = fleet.home(node)
        kept = home.with_name("kept")
        home.rename(kept)
        home.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", option, "none", home], capture_output=True, check=False).returncode:
            raise Impossible("cannot mount a file system here")
        stack.callback(subprocess.run, ["umount", home], check=True)
        # The state that the test compares is read while it is mounted.
        shutil.copytree(kept, home, dirs_exist_ok=True)
        if later:
            subprocess.run(["mount", "-o", later, home], check=True)
        return {}

    return make


def locked(fleet: Fleet, node: str, stack: contextlib.ExitStack) -> Variables:
    """Lock the adapter as another run does."""
    root = fleet.stored(node, CLEANER_3B)
    root.mkdir(parents=True, exist_ok=True)
    lock = stack.enter_context((root / "lock").open("w"))
    holder = {"run": "deploy by kim", "controller": "192.0.2.7", "pid": 4711, "at": "2026-01-31T12:00:00+00:00"}
    lock.write(json.dumps(holder))
    lock.flush()
    fcntl.flock(lock, fcntl.LOCK_EX)
    return {}


def another_base(fleet: Fleet, node: str, _stack: contextlib.ExitStack) -> Variables:
    """Give the node a base of other settings than the one of the training."""
    base = shutil.copytree(fleet.tiny / "base", fleet.root / f"{node}-base")
    config_file = base / "config.json"
    values = json.loads(config_file.read_text(encoding="utf-8"))
    config_file.write_text(json.dumps({**values, "rms_norm_eps": 0.5}), encoding="utf-8")
    bases = {BASE_NAME: {"path": str(fleet.tiny / "base")}}
    return {
        "agent_level": "adapter",
        "agent_python": PEFT_PYTHON,
        "agent_training_bases": bases,
        "agent_bases": {BASE_NAME: {"path": str(base)}},
    }


def settings(**variables: t.Any) -> c.Callable[[Fleet, str, contextlib.ExitStack], Variables]:
    return lambda _fleet, _node, _stack: variables


def engine(
    personality: str = "vllm",
    version: str = "0.32.0",
    fault: str = "",
    key: str = "",
    declared: Variables | None = None,
    **started: t.Any,
) -> c.Callable[[Fleet, str, contextlib.ExitStack], Variables]:
    """Let a fake engine serve the node. ``started`` are its settings, ``key`` is the node's key."""

    def start(fleet: Fleet, node: str, stack: contextlib.ExitStack) -> Variables:
        fake = stack.enter_context(running.running(personality, fleet.tiny / "base", version, **started))
        if fault:
            fake.fault(fault, name=f"{CLEANER_3B}*")
        form = {"name": personality, "url": fake.url, "start_timeout": 0, "drain_timeout": 0, **(declared or {})}
        if key:
            path = fleet.root / f"{node}.key"
            path.write_text(key, encoding="utf-8")
            form["api_key_file"] = str(path)
        return {"agent_engine": form}

    return start


class Impossible(Exception):
    """This machine cannot produce the row's fault."""


# Redirections do not expand patterns.
SPOIL_STAGED = f'for file in $home/.lorafleet/{CLEANER_3B}/staging/*/{WEIGHTS}; do printf x >> "$file"; done'

TABLE: dict[str, Bad] = {
    "source directory missing": Bad("directory", ("does not exist.", "Check the name in the inventory"), source=shutil.rmtree),
    "source directory empty": Bad("directory", ("is empty.", "that the training has saved the adapter there."), source=emptied),
    "no adapter_config.json": Bad(
        "directory",
        ("has no adapter_config.json.", "that the training has saved the adapter there."),
        source=lambda directory: (directory / CONFIG).unlink(),
    ),
    "no weights": Bad(
        "directory",
        ("has no adapter_model.safetensors.", "that the training has saved the adapter there."),
        source=lambda directory: (directory / WEIGHTS).unlink(),
    ),
    "bin only": Bad("directory", ("as adapter_model.bin, a pickle", "Save it as adapter_model.safetensors"), source=as_pickle),
    "link that leads outside": Bad(
        "directory", ("tokenizer.json is a symbolic link, into ", "Replace links with the files themselves"), source=link_outside
    ),
    "safetensors truncated": Bad(
        "weights",
        ("is truncated by 1 byte: its header describes", "Copy or save the file again"),
        source=weights(lambda data: data[:-1]),
    ),
    "safetensors truncated in the header": Bad(
        "weights", ("is truncated within its header", "Copy or save the file again"), source=weights(lambda data: data[:100])
    ),
    "safetensors padded": Bad(
        "weights", ("is too long by 8 bytes", "Copy or save the file again"), source=weights(lambda data: data + bytes(8))
    ),
    "safetensors all zeros": Bad(
        "weights",
        ("is filled with zeros where its header should be", "Copy or save the file again"),
        source=weights(lambda data: bytes(len(data))),
    ),
    "safetensors with a tail of zeros": Bad(
        "weights",
        ("has only zeros from the middle of tensor", "save the adapter again."),
        source=weights(lambda data: data[:-67000] + bytes(67000)),
    ),
    "safetensors header lies": Bad(
        "weights", ("a gap or an overlap.", "Copy or save the file again"), source=weights(overlapping)
    ),
    "NaN": Bad(
        "weights",
        ("has NaN or infinite values in 1 of 28 tensors", "deliver an earlier checkpoint."),
        source=tensors(put(LAYER.format(0) + "mlp.down_proj.lora_A.weight", math.nan)),
    ),
    "lora_B all zeros": Bad(
        "weights",
        ("has no effect: in every LoRA layer lora_A or lora_B is all zeros", "Deliver the trained adapter."),
        source=tensors(zero("lora_B")),
    ),
    "tensor embed_tokens": Bad(
        "weights",
        (
            'would overwrite weights of the base: "base_model.model.model.embed_tokens.weight".',
            "The training enlarged the vocabulary from 512 to 520 tokens.",
        ),
        source=tensors(add(EMBED, (520, 64))),
    ),
    "tensor base_layer": Bad(
        "weights",
        ("would overwrite weights of the base", "q_proj.base_layer.weight", "Save the adapter again"),
        source=tensors(add(Q0_A.replace("lora_A", "base_layer"), (64, 64))),
    ),
    "tensor missing": Bad(
        "weights",
        ("lacks 1 of 28 tensors", "v_proj.lora_B.weight", "Save the complete adapter again."),
        source=tensors(drop(LAYER.format(0) + "self_attn.v_proj.lora_B")),
    ),
    "tensor too many": Bad(
        "weights",
        (
            'has 1 tensor that PEFT would silently ignore: "base_model.model.lm_head.lora_A.weight".',
            "Correct the one that is wrong.",
        ),
        source=tensors(add("base_model.model.lm_head.lora_A.weight", (16, 64))),
    ),
    "rank other than declared": Bad(
        "config",
        ("r in adapter_config.json: is 16; the inventory declares rank 32.", "or correct the inventory."),
        declared={"rank": 32},
    ),
    "alpha other than declared": Bad(
        "config",
        ("lora_alpha in adapter_config.json: is 32; the inventory declares alpha 64.", "or correct the inventory."),
        declared={"alpha": 64},
    ),
    "base other than declared": Bad(
        "config",
        ('is "tiny/Llama-128"; the inventory declares tiny/Llama-64.', "add it to the base's aliases."),
        source=config(base_model_name_or_path="tiny/Llama-128"),
    ),
    "target modules other than declared": Bad(
        "config",
        ("the inventory declares q_proj, v_proj.", "or correct the inventory."),
        declared={"target_modules": ["q_proj", "v_proj"]},
    ),
    "config is no JSON": Bad(
        "config",
        ("adapter_config.json: is not valid JSON", "Save the adapter again with PEFT."),
        source=lambda directory: (directory / CONFIG).write_text('{"r": 16,'),
    ),
    "DoRA": Bad(
        "config",
        (
            "use_dora in adapter_config.json: is true, which is not plain LoRA and not declared.",
            "declare it with exactly this value",
        ),
        kind="dora",
    ),
    "rsLoRA": Bad(
        "config",
        (
            "use_rslora in adapter_config.json: is true, which is not plain LoRA and not declared.",
            "declare it with exactly this value",
        ),
        kind="rslora",
    ),
    "DoRA to be folded": Bad(
        "config",
        ("cannot be folded: it has DoRA (use_dora).", "merge it into the base in float32."),
        declared={"form": "folded", "peft_config": {"use_dora": True}},
        kind="dora",
    ),
    "no interpreter for folding": Bad(
        "config",
        ("cannot be folded without the interpreter of the training environment", "Set python (variable training_python)"),
        declared={"form": "folded"},
    ),
    "PiSSA": Bad(
        "config",
        (
            'init_lora_weights in adapter_config.json: is "pissa": PEFT repeats its decomposition',
            "path_initial_model_for_weight_conversion",
        ),
        source=config(init_lora_weights="pissa"),
    ),
    "modules_to_save": Bad(
        "config",
        ('modules_to_save in adapter_config.json: is ["lm_head"], which is not plain LoRA', "declare it with exactly this value"),
        kind="lm_head_saved",
    ),
    "key of a newer PEFT": Bad(
        "config",
        ("use_later_lora in adapter_config.json: is true, which is not plain LoRA", "declare it with exactly this value"),
        source=config(use_later_lora=True, peft_version="99.0.0"),
    ),
    "models directory missing": Bad(
        "node", ("/home/nowhere: is not a directory.", "Create the models directory on this node first."), node=without_models_dir
    ),
    "models directory of the training server": Bad(
        "node",
        ("is the same directory as", "of the source", "Set models_dir to another directory on this node"),
        node=models_dir_of_source,
    ),
    "models directory that others could exchange": Bad(
        "node",
        ("(mode 0777) and can be written by every user, who could exchange the models directory", "chmod go-w "),
        node=shared,
    ),
    "models directory unwritable": Bad(
        "node", ("/home/models: cannot be written by user", "give that user write permission."), node=unwritable
    ),
    "file system read-only": Bad(
        "node", ("is on a read-only file system.", "Mount it writable on this node"), node=on_tmpfs("size=128m", "remount,ro")
    ),
    "file system full": Bad(
        "node",
        ("has too little space: ", "and a reserve of 67.1 MB are needed", "Free some space on this file system"),
        node=on_tmpfs("size=1m", ""),
    ),
    "rate that rsync does not take": Bad(
        "node",
        ("transfer_bwlimit: is 'fast', which is not a valid value of rsync's option bwlimit.", "Set it to a number of KiB"),
        node=settings(agent_transfer_bwlimit="fast"),
    ),
    "command that is not set": Bad(
        "node",
        ("transfer_command: is empty, but transfer is command.", "Set it to a list"),
        node=settings(agent_transfer="command"),
    ),
    "direct transfers without a port": Bad(
        "node",
        ("transfer_direct_ports: is empty, but transfer is direct.", "Set it to ports of the source that the node reaches"),
        node=settings(agent_transfer="direct"),
    ),
    "placeholder that does not exist": Bad(
        "node",
        ("transfer_command: has the placeholder {stage}, which does not exist.", "Use {adapter}, {digest}, {files}"),
        node=settings(agent_transfer="auto", agent_transfer_command=["pull", "{stage}"]),
    ),
    "no streams at all": Bad(
        "node", ("transfer_streams: is 0.", "Set it to 1 or more."), node=settings(agent_transfer_streams=0)
    ),
    "no rsync": Bad(
        "node",
        ("rsync: is not installed on this host.", "Install the package rsync on it."),
        node=interpreter("PATH=/nonexistent"),
    ),
    "another run": Bad(
        "node",
        (
            "is being changed by another run: deploy by kim from 192.0.2.7, process 4711",
            "Wait for it to finish, or end that process",
        ),
        node=locked,
    ),
    "changed at the source after it was described": Bad(
        "node",
        ("the received files do not match the manifest: changed  adapter_model.safetensors", "run again."),
        node=before_module("adapter_sync", f"printf x >> $source/{WEIGHTS}"),
    ),
    "replaced at the source after it was described": Bad(
        "node",
        ("the received files do not match the manifest: changed  adapter_model.safetensors", "run again."),
        node=before_module("adapter_sync", f"cp $source/tokenizer.json $source/{WEIGHTS}"),
    ),
    "gone at the source after it was described": Bad(
        "node",
        ("could not be transferred from sbs29:", "a file is missing or truncated at the source", "run again to resume."),
        node=before_module("adapter_sync", "rm -r $source"),
    ),
    "changed on the node before the load test": Bad(
        "node",
        ("adapter_model.safetensors: is too long by 1 byte", "Copy or save the file again"),
        node=before_module("adapter_load_test", SPOIL_STAGED),
    ),
    "changed on the node after the load test": Bad(
        "node",
        ("does not match its manifest in", "changed  adapter_model.safetensors", "Deploy it again"),
        node=before_module("adapter_release", SPOIL_STAGED),
    ),
    "agent_python missing": Bad(
        "interpreter",
        ("/nonexistent/python: does not exist.", "Install the PEFT environment on this host"),
        node=settings(agent_level="adapter", agent_python="/nonexistent/python"),
    ),
    "agent_python without PEFT": Bad(
        "interpreter",
        ("has no torch, transformers, peft.", "Install the PEFT environment on this host"),
        node=settings(agent_level="adapter", agent_python=sys.executable),
    ),
    "no CUDA where it is required": Bad(
        "interpreter",
        ("device cuda: cannot be used", "finds no usable GPU", "set device to cpu."),
        node=settings(agent_level="adapter", agent_device="cuda"),
    ),
    "golden required, but not recorded": Bad(
        "interpreter", ("has no golden.", "Record one on the training server"), node=settings(agent_level="golden")
    ),
    "load test that takes too long": Bad(
        "interpreter",
        ("did not finish the load test in 0 seconds and was killed.", "or raise timeout."),
        node=settings(agent_level="adapter", agent_python=PEFT_PYTHON, agent_load_test_timeout=0),
    ),
    "base other than that of the training": Bad(
        "interpreter",
        ("was trained on another base than the one at", "Copy the base of the training to this host"),
        node=another_base,
    ),
    "base not on the node": Bad(
        "interpreter",
        ("cannot reach level model: base tiny/Llama-64 has no path on this host.", "Set the path of the base in bases"),
        node=settings(agent_level="model"),
    ),
    "engine that demands an API key": Bad(
        "serving", ("demands an API key (HTTP 401).", "its path into api_key_file"), node=engine(api_key="right")
    ),
    "engine with another API key": Bad(
        "serving",
        ("rejects the API key (HTTP 401).", "the file that its api_key_file names."),
        node=engine(key="wrong", api_key="right"),
    ),
    "engine without a place for the next release": Bad(
        "serving",
        ("needs 2 places: one for each of 1 adapter", "Start it with max_adapters 2 or more."),
        node=engine("mistralrs", "0.9.5", max_loras=1),
    ),
    "engine with another base": Bad(
        "serving",
        ("which no engine serves: engine vllm at", "state base of an engine in engines."),
        node=engine(declared={"base": "tiny/Llama-128"}),
    ),
    "engine that is down": Bad(
        "serving",
        ("refuses the connection.", "Restart the engine: systemctl restart vllm.service."),
        node=settings(agent_engine={"name": "vllm", "url": "http://127.0.0.1:1", "restart": "vllm.service", "start_timeout": 0}),
        activated=True,
    ),
    "engine that loads nothing at run time": Bad(
        "serving",
        ("does not load adapters at run time.", "Start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
        node=engine(runtime_loading=False),
        activated=True,
    ),
    "adapter that the engine does not apply": Bad(
        "serving",
        ("answers exactly as its base does", "Compare what this engine makes of such adapters"),
        node=engine(fault=faults.BASE_ANSWERS),
        activated=True,
    ),
    "adapter with the name of the base": Bad(
        "serving",
        ("has the name of the base that engine vllm at", "with another --served-model-name"),
        node=engine(base_name=CLEANER_3B),
        activated=True,
    ),
}

Verdict = dict[str, t.Any]


@pytest.fixture(scope="session")
def verdicts(tmp_path_factory: pytest.TempPathFactory, tiny: pathlib.Path) -> c.Callable[[str], dict[str, Verdict]]:
    """The outcome of each row of a batch; a batch is run once."""
    if shutil.which("rsync") is None:
        pytest.skip("no rsync on this machine")

    @functools.cache
    def of(batch: str) -> dict[str, Verdict]:
        return deliver(batch, tmp_path_factory.mktemp(batch), tiny)

    return of


def deliver(batch: str, root: pathlib.Path, tiny: pathlib.Path) -> dict[str, Verdict]:
    """Run the deploy playbook on all rows of a batch; return the outcome of each."""
    fleet = Fleet(root, tiny)
    fleet.deploy("--tags", "cleaner,3b")
    # Nodes with engines would be delivered in waves, of which the first fails.
    fleet.groups["jw2"]["agent_serial"] = "100%"
    items = {item: bad for item, bad in TABLE.items() if bad.batch == batch}
    verdicts: dict[str, Verdict] = {item: {} for item in items}
    with contextlib.ExitStack() as stack:
        for number, (item, bad) in enumerate(items.items()):
            source = root / f"source-{number}"
            # The offered release differs from the one that the older node has.
            directory = fleet.offer(CLEANER_3B, bad.kind, into=source)
            tensors(scale("", 1.5))(directory)
            if bad.source:
                bad.source(directory)
            node = f"bad-{number}"
            variables = {
                "agent_source_models_dir": str(source),
                "agent_adapters": [{**row(CLEANER_3B, "3b", 16), **bad.declared}],
            }
            fleet.add_node("jw2", node, **variables)
            if not bad.activated:
                shutil.copytree(fleet.home("jw2-1"), fleet.home(node), dirs_exist_ok=True)
            try:
                fleet.hosts[node].update(bad.node(fleet, node, stack) if bad.node else {})
            except Impossible as exc:
                verdicts[item]["impossible"] = str(exc)
                fleet.members["jw2"].remove(node)
                continue
            verdicts[item]["node"] = node
        fleet.members["jw2"].remove("jw2-1")
        before = {node: contents(fleet.home(node) / "models") for node in fleet.members["jw2"]}
        done = fleet.run("deploy")
        after = {node: contents(fleet.home(node) / "models") for node in fleet.members["jw2"]}
    (root / "output.txt").write_text(done.output, encoding="utf-8")
    for found in verdicts.values():
        found["rc"] = done.rc
        found["healthy"] = contents(fleet.served("jw3-1", DESCRIBER_3B)) == travelling(fleet.source / DESCRIBER_3B)
        if "node" in found:
            found["message"] = "\n".join(done.failures(found["node"]))
            found["untouched"] = before[found["node"]] == after[found["node"]]
    return verdicts


# One worker per batch, since several would wait for the same run.
@pytest.mark.parametrize(
    "item", [pytest.param(item, marks=pytest.mark.xdist_group(f"bad input: {bad.batch}")) for item, bad in TABLE.items()]
)
def test_deploy_of_bad_input_is_refused_as_documented(item: str, verdicts: c.Callable[[str], dict[str, Verdict]]) -> None:
    bad = TABLE[item]
    found = verdicts(bad.batch)[item]
    if "impossible" in found:
        pytest.skip(found["impossible"])
    assert found["rc"] != 0
    assert found["healthy"]
    assert found["untouched"] is not bad.activated
    message = found["message"]
    for part in bad.parts:
        assert part in message, message
    assert documented(item).search(message), message
