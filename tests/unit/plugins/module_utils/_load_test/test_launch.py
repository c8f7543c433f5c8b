# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the worker in interpreters that are missing, broken, slow or killed: the messages."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import select
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.interpreter import library_versions, read_environment
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.launch import WorkerRun, run_worker
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import LoadTestResult, Report, Target

from tests.support.paths import CHECKOUT

PEFT_PYTHON = os.environ.get("LORAFLEET_PEFT_PYTHON", str(CHECKOUT / ".cache" / "venv" / "peft" / "bin" / "python"))


def target(name: str, directory: str | pathlib.Path = "/nonexistent") -> Target:
    return Target(name, str(directory), "adapter_model.safetensors", "adapter", {"model_type": "llama"}, None, False)


@pytest.fixture
def scratch(tmp_path: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """The directory of the workers' private directories, all of which are gone at the end."""
    path = tmp_path / "scratch"
    path.mkdir()
    yield path
    assert list(path.iterdir()) == []


@pytest.fixture
def interpreter(tmp_path: pathlib.Path) -> t.Callable[[str], str]:
    """Return a function that makes an interpreter of a script.

    $4 is the path of the request, $5 the descriptor of the result.
    """

    def make(script: str) -> str:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    return make


def only_problem(outcome: WorkerRun) -> str:
    assert len(outcome.problems) == 1
    assert outcome.problems[0].remedy
    return str(outcome.problems[0])


def test_run_worker_missing_interpreter_is_a_problem(scratch: pathlib.Path, tmp_path: pathlib.Path) -> None:
    python = str(tmp_path / "none")
    outcome = run_worker(python, "cpu", [target("a")], 60, str(scratch))
    assert only_problem(outcome).startswith(f"{python}: does not exist. Install the PEFT environment")
    with pytest.raises(DeliveryError, match="does not exist"):
        library_versions(python)


def test_run_worker_interpreter_not_executable_is_a_problem(scratch: pathlib.Path, tmp_path: pathlib.Path) -> None:
    python = tmp_path / "python"
    python.write_text("no program", encoding="utf-8")
    assert "cannot be executed: Permission denied." in only_problem(
        run_worker(str(python), "cpu", [target("a")], 60, str(scratch))
    )
    python.chmod(0o755)
    with pytest.raises(DeliveryError, match="cannot be executed: Exec format error"):
        library_versions(str(python))


def test_run_worker_interpreter_without_packages_is_a_problem(scratch: pathlib.Path) -> None:
    outcome = run_worker(sys.executable, "cpu", [target("a")], 60, str(scratch))
    assert only_problem(outcome).startswith(f"{sys.executable}: has no torch. Install the PEFT environment")
    with pytest.raises(DeliveryError, match="has no torch,"):
        read_environment(sys.executable, "cpu", None, print)


def test_run_worker_interpreter_not_python_is_a_problem(scratch: pathlib.Path, interpreter: t.Callable[[str], str]) -> None:
    python = interpreter("echo hello; echo careful >&2")
    problem = only_problem(run_worker(python, "cpu", [target("a")], 60, str(scratch)))
    assert "ended without a result (exit status 0). The end of its stderr:\ncareful" in problem
    with pytest.raises(DeliveryError, match="does not work as a Python interpreter: exit status 0"):
        library_versions(python)


def test_run_worker_malformed_result_is_a_problem(scratch: pathlib.Path, interpreter: t.Callable[[str], str]) -> None:
    for text in ("[1]", '"x"', "{broken", '{"reports": [1]}', '{"reports": {"a": {"passed": true}}, "error": null}'):
        outcome = run_worker(interpreter(f"echo '{text}' >&$5"), "cpu", [target("a")], 60, str(scratch))
        assert "ended without a result (exit status 0)" in only_problem(outcome)
        assert outcome.reports == {}


def test_run_worker_timeout_kills_the_process_group(
    scratch: pathlib.Path, tmp_path: pathlib.Path, interpreter: t.Callable[[str], str]
) -> None:
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    outcome = run_worker(interpreter(f"exec 3>{alive}; sleep 600 & wait"), "cpu", [target("a")], 2, str(scratch))
    assert "did not finish the load test in 2 seconds and was killed" in only_problem(outcome)
    # Readable without data is the end of the file: no process has it open for writing.
    assert select.select([reader], [], [], 60)[0] == [reader]
    assert os.read(reader, 1) == b""
    os.close(reader)


DAEMON = """
mkfifo {started}
setsid sh -c 'exec 3> {alive}; echo > {started}; exec sleep 600' > /dev/null 2>&1 &
read line < {started}
"""


@pytest.mark.parametrize("ending", ["exit 0", "sleep 600"])
def test_run_worker_ends_daemons(
    scratch: pathlib.Path, interpreter: t.Callable[[str], str], tmp_path: pathlib.Path, ending: str
) -> None:
    """Those too that have left the process group, after success and after the time limit."""
    alive, started = tmp_path / "alive", tmp_path / "started"
    os.mkfifo(alive)
    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        python = interpreter(DAEMON.format(alive=alive, started=started) + ending)
        run_worker(python, "cpu", [target("a")], 3, str(scratch))
        assert started.exists()
        # Readable at once, and without data: no process has it open for writing any more.
        assert select.select([reader], [], [], 0)[0] == [reader]
        assert os.read(reader, 1) == b""
        assert bystander.poll() is None
    finally:
        os.close(reader)
        bystander.kill()
        bystander.wait()


def test_run_worker_has_no_new_privileges_before_the_interpreter_starts(
    scratch: pathlib.Path, interpreter: t.Callable[[str], str]
) -> None:
    outcome = run_worker(interpreter("grep NoNewPrivs /proc/self/status >&2; exit 1"), "cpu", [], 60, str(scratch))
    assert "NoNewPrivs:\t1" in only_problem(outcome)


def test_run_worker_cannot_fill_the_disk(scratch: pathlib.Path, interpreter: t.Callable[[str], str]) -> None:
    fill = "import os, sys; os.truncate(int(sys.argv[1]), 1 << 40)"
    outcome = run_worker(interpreter(f"{sys.executable} -c '{fill}' \"$5\""), "cpu", [], 60, str(scratch))
    assert "File too large" in only_problem(outcome)


FORM = dataclasses.asdict(Report(LoadTestResult(level="adapter"), passed=True))
WRONG_FORMS: dict[str, dict[str, t.Any]] = {
    "level": {"reports": {"a": {**FORM, "result": {**FORM["result"], "level": "x"}}}},
    "text as number": {"reports": {"a": {**FORM, "result": {**FORM["result"], "load_seconds": "1"}}}},
    "number as text": {"reports": {"a": {**FORM, "result": {**FORM["result"], "device": 1}}}},
    "number as warning": {"reports": {"a": {**FORM, "warnings": [1]}}},
    "list as version": {"reports": {"a": {**FORM, "result": {**FORM["result"], "versions": {"a": [1]}}}}},
    "number as remedy": {"reports": {"a": {**FORM, "failures": [{"problem": "x", "remedy": 1}]}}},
    "no error": {"error": 5},
    "half an error": {"error": {"kind": "x"}},
    "error of numbers": {"error": {"kind": 1, "detail": 2}},
    "adapter under test": {"current": {}},
}


@pytest.mark.parametrize("what", WRONG_FORMS)
def test_run_worker_result_of_another_form_is_a_problem(
    scratch: pathlib.Path, interpreter: t.Callable[[str], str], tmp_path: pathlib.Path, what: str
) -> None:
    result = {"reports": {}, "current": None, "error": None, "device": None, "seconds": 0.5}
    text = tmp_path / "text"
    text.write_text(json.dumps({**result, **WRONG_FORMS[what]}) + "\n", encoding="utf-8")
    outcome = run_worker(interpreter(f"cat {text} >&$5"), "cpu", [target("a")], 60, str(scratch))
    assert outcome.reports == {}
    assert "ended without a result" in only_problem(outcome)
    # Only this made it another form.
    text.write_text(json.dumps({**result, "reports": {"a": FORM}}) + "\n", encoding="utf-8")
    assert run_worker(interpreter(f"cat {text} >&$5"), "cpu", [target("a")], 60, str(scratch)).reports["a"].passed


def test_run_worker_crash_keeps_earlier_reports(scratch: pathlib.Path, interpreter: t.Callable[[str], str]) -> None:
    report = Report(LoadTestResult(level="adapter", versions={"torch": "2"}), passed=True)
    result = {"reports": {"a": dataclasses.asdict(report)}, "current": "b", "error": None, "seconds": 1}
    python = interpreter(f"echo '{json.dumps(result)}' >&$5; echo Fatal Python error >&2; kill -SEGV $$")
    outcome = run_worker(python, "cpu", [target("a"), target("b"), target("c")], 60, str(scratch))
    problem = only_problem(outcome)
    assert "crashed during the test of b: killed by SIGSEGV. The end of its stderr:\nFatal Python error" in problem
    assert outcome.reports == {"a": report}


def test_run_worker_sigkill_names_out_of_memory(scratch: pathlib.Path, interpreter: t.Callable[[str], str]) -> None:
    problem = only_problem(run_worker(interpreter("kill -KILL $$"), "cpu", [target("a")], 60, str(scratch)))
    assert (
        "was killed by another process or the kernel, most likely because memory ran out. Look for 'out of memory' in dmesg"
        in problem
    )


def test_run_worker_segfault_shows_faulthandler_output(scratch: pathlib.Path, interpreter: t.Callable[[str], str]) -> None:
    python = interpreter(f"exec {sys.executable} -X faulthandler -c 'import ctypes; ctypes.string_at(0)'")
    problem = only_problem(run_worker(python, "cpu", [target("a")], 60, str(scratch)))
    assert "crashed: killed by SIGSEGV. The end of its stderr:\nFatal Python error: Segmentation fault" in problem
    assert "Its build of torch does not suit this host" in problem


def test_run_worker_ignores_stdout(scratch: pathlib.Path, interpreter: t.Callable[[str], str]) -> None:
    noise = "head -c 3000000 /dev/urandom; echo '{\"reports\": {}}'"
    outcome = run_worker(interpreter(noise), "cpu", [target("a")], 60, str(scratch))
    assert "ended without a result (exit status 0)" in only_problem(outcome)
    assert outcome.reports == {}
    # Output before the real program does no harm.
    outcome = run_worker(interpreter(f'{noise}; exec {sys.executable} "$@"'), "cpu", [target("a")], 60, str(scratch))
    assert "has no torch" in only_problem(outcome)


@pytest.mark.slow
def test_run_worker_memory_limit_ends_the_adapter_only(
    scratch: pathlib.Path, tmp_path: pathlib.Path, interpreter: t.Callable[[str], str]
) -> None:
    size = 8 << 30
    header = json.dumps({"a.lora_A": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    # A sparse file, which needs no space.
    os.truncate(weights, 8 + len(header) + size)
    # In kB; the worker sets a limit by the free memory, and keeps a lower one.
    python = interpreter(f'ulimit -d 4000000; exec {PEFT_PYTHON} "$@"')
    outcome = run_worker(python, "cpu", [target("a", tmp_path)], 120, str(scratch))
    assert outcome.problems == ()
    report = outcome.reports["a"]
    assert (report.passed, report.result.level, report.failures) == (False, None, [])
    assert (report.result.limited_by or "").startswith("memory ran out on cpu: RuntimeError: ")


def test_run_worker_traceback_is_in_the_problem(scratch: pathlib.Path, interpreter: t.Callable[[str], str]) -> None:
    # The real worker with a malformed request.
    python = interpreter(f'echo "[" > $4; exec {sys.executable} "$@"')
    problem = only_problem(run_worker(python, "cpu", [target("a")], 60, str(scratch)))
    assert "failed: exit status 1. The end of its stderr:\n" in problem
    assert "JSONDecodeError" in problem


def test_run_worker_environment_is_minimal(
    scratch: pathlib.Path, tmp_path: pathlib.Path, interpreter: t.Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/evil")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    seen = tmp_path / "seen"
    script = f'env > {seen}; pwd >> {seen}; cat >> {seen}; ls -ld . >> {seen}; echo "$@" >> {seen}'
    run_worker(interpreter(script), "cpu", [target("a")], 60, str(scratch))
    text = seen.read_text(encoding="utf-8")
    assert "secret" not in text
    assert "PYTHONPATH" not in text
    assert "CUDA_VISIBLE_DEVICES=1\n" in text
    assert f"HOME={scratch}/" in text
    assert f"\n{scratch}/" in text
    assert "\ndrwx------" in text
    assert "\n-I -B " in text


@pytest.mark.slow
def test_run_worker_missing_gpu_is_a_problem(scratch: pathlib.Path) -> None:
    outcome = run_worker(PEFT_PYTHON, "cuda:63", [target("a")], 120, str(scratch))
    problem = only_problem(outcome)
    assert problem.startswith(f"device cuda:63: cannot be used by {PEFT_PYTHON}: ")
    assert "set device to cpu" in problem
