# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Show the mutants of a module_util that its unit tests do not kill.

Usage: ``mutation.py PYTEST NAME [CHANGES]``. It modifies the checkout that it is part of, so
``nox -s mutation -- NAME [CHANGES]`` runs it in a copy. Of all possible mutants, it tries CHANGES
(50), which are the same each time as long as the file does not change.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import re
import sqlite3
import subprocess
import sys

# The unit tests that have to kill the mutants of a module_util.
TESTS = {
    "_adapter/hash_cache": ["module_utils/_adapter/test_hash_cache"],
    "_adapter/manifest": ["module_utils/_adapter/test_manifest"],
    "_adapter/manifest_diff": ["module_utils/_adapter/test_manifest_diff"],
    "_files": ["module_utils/test_files", "module_utils/test_hashing"],
    "_formats/safetensors": ["module_utils/_formats/test_safetensors"],
    "_formats/tensor_scan": ["module_utils/_formats/test_tensor_scan"],
    "_hashing": ["module_utils/test_hashing"],
    "_release_info": ["module_utils/test_release_info"],
    "_store/activate": ["module_utils/_store/test_transaction", "module_utils/_store/test_recovery"],
    "_store/active": ["module_utils/test_release_info"],
    "_store/compare": ["module_utils/_store/test_compare", "module_utils/_store/test_transaction"],
    "_store/displaced": ["module_utils/_store/test_displaced", "module_utils/_store/test_transaction"],
    "_store/fetch": ["module_utils/_store/test_fetch", "module_utils/_store/test_staging"],
    "_store/paths": ["module_utils/_store/test_paths", "module_utils/_store/test_transaction"],
    "_store/plan": ["module_utils/_store/test_transaction", "module_utils/_store/test_retention"],
    "_store/preflight": ["module_utils/_store/test_preflight", "module_utils/_store/test_transaction"],
    "_store/prediction": ["module_utils/_store/test_transaction"],
    "_store/recovery": ["module_utils/_store/test_recovery", "module_utils/_store/test_transaction"],
    "_store/retention": ["module_utils/_store/test_retention", "module_utils/_store/test_transaction"],
    "_store/staging": ["module_utils/_store/test_staging", "module_utils/_store/test_fetch"],
    "_store/transaction": ["module_utils/_store/test_transaction"],
    "_store/trash": ["module_utils/_store/test_trash"],
    "_up_to_date": ["module_utils/test_up_to_date"],
}
# One replacement for each operator is enough, and names are not replaced.
CHANGES = re.compile(
    r"core/(AddNot|ExceptionReplacer|NumberReplacer|RemoveDecorator|ZeroIterationForLoop"
    r"|Replace(And|Or|True|False|Break|Continue)With"
    r"|ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Mod_Mul|BitOr_BitAnd|BitAnd_BitOr|LShift_RShift)"
    r"|ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Lt_LtE|LtE_Lt$|Gt_GtE|GtE_Gt$|Is_IsNot|IsNot_Is)"
    r"|ReplaceUnaryOperator_(USub_UAdd|Delete_Not|Delete_Invert))"
)
SETTINGS = """[cosmic-ray]
module-path = "plugins/module_utils/{name}.py"
timeout = 120.0
test-command = "{pytest} -x -q -p no:cacheprovider -p no:xdist -m 'not slow' {tests}"
distributor.name = "local"
"""


def choose(session: str, number: int) -> None:
    """Keep ``number`` of the mutants of a session."""
    with contextlib.closing(sqlite3.connect(session)) as database:
        rows = database.execute("SELECT job_id, operator_name FROM mutation_specs ORDER BY operator_name, occurrence")
        jobs: dict[str, str] = dict(rows.fetchall())
        wanted = [job for job, operator in jobs.items() if CHANGES.match(operator)]
        kept = random.Random(0).sample(wanted, min(len(wanted), number))  # noqa: S311
        others = [(job,) for job in jobs.keys() - set(kept)]
        database.executemany("DELETE FROM mutation_specs WHERE job_id = ?", others)
        database.executemany("DELETE FROM work_items WHERE job_id = ?", others)
        database.commit()


def main() -> None:
    pytest, name, number = [*sys.argv[1:], "50"][:3]
    tests = " ".join(f"tests/unit/plugins/{path}.py" for path in TESTS[name])
    pathlib.Path("mutation.toml").write_text(SETTINGS.format(name=name, pytest=pytest, tests=tests), encoding="utf-8")
    # Python would use compiled code if a mutant has the same size and is written within a second.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*command: str) -> None:
        subprocess.run(command, env=environment, check=True)

    run("cosmic-ray", "baseline", "mutation.toml")
    run("cosmic-ray", "init", "mutation.toml", "mutation.sqlite")
    choose("mutation.sqlite", int(number))
    run("cosmic-ray", "exec", "mutation.toml", "mutation.sqlite")
    run("cr-report", "--surviving-only", "--show-diff", "mutation.sqlite")


if __name__ == "__main__":
    main()
