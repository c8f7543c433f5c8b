#!/usr/bin/env bash
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# When a task starts, callbacks do not see module_defaults (nor the defaults of an action group):
# `task.args` lacks them in v2_playbook_on_task_start and v2_runner_on_start, although the module
# runs with them. Only in a result, v2_runner_on_ok, does `task.args` have them. A progress display
# that reads an option at the start of a task shows the module's own default instead.
#
# Seen with ansible-core 2.18.19, 2.19.14 and 2.21.5: `chdir` from module_defaults is in task.args
# of the result only, and the command ran in that directory.
#
# Consequence: at the start of a task, resolve defaults from task.module_defaults as well.

set -euo pipefail
version=${1:-2.19.14}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "ansible-core==$version"

mkdir -p callback_plugins elsewhere
cat > callback_plugins/watch.py <<'END'
DOCUMENTATION = """
name: watch
type: aggregate
short_description: Prints the arguments of tasks
description: Prints the arguments of tasks.
"""
from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "watch"

    def v2_playbook_on_task_start(self, task, is_conditional):
        print("WATCH task_start", "chdir" in task.args)

    def v2_runner_on_start(self, host, task):
        print("WATCH runner_start", "chdir" in task.args)

    def v2_runner_on_ok(self, result):
        print("WATCH runner_ok", "chdir" in result._task.args)
        print("WATCH ran_in", result._result["stdout"].rsplit("/", 1)[-1])
END
cat > play.yml <<END
- hosts: localhost
  connection: local
  gather_facts: false
  module_defaults:
    ansible.builtin.command: {chdir: $work/elsewhere}
  tasks:
    - ansible.builtin.command: pwd
END
found=$(ANSIBLE_CALLBACKS_ENABLED=watch venv/bin/ansible-playbook -i localhost, \
    -e "ansible_python_interpreter=$work/venv/bin/python" play.yml 2> /dev/null | sed -n 's/^WATCH //p')
printf 'ansible-core %s, is chdir in task.args, and where did the command run:\n%s\n' "$version" "$found"
expected='task_start False
runner_start False
runner_ok True
ran_in elsewhere'
[ "$found" = "$expected" ] || { echo "This is no longer what was seen." >&2; exit 1; }
