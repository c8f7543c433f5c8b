#!/usr/bin/env bash
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Control-C (SIGINT) that arrives while ansible-playbook forks a worker does not end the run. Ansible
# turns the signal into an exception of the main thread. Python runs functions at a fork, among
# others of its module logging, and ignores exceptions in them: it prints them and goes on.
#
# Seen with ansible-core 2.19.14 and Python 3.11, for a signal that arrives
#   when a task begins    exit status not 0, no later task runs
#   during the fork       "Exception ignored in ...", exit status 0, all tasks run
#
# Workers are forked when tasks are displayed, which is when people press Control-C. A test of ours
# that pressed it at the first line of a task met it by chance, in _releaseLock of logging.
#
# Consequence: a program that interrupts a playbook has to check that it ends, and to interrupt again.

set -euo pipefail
version=${1:-2.19.14}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "ansible-core==$version"

# Sends one signal, at the time that WHEN names.
mkdir callback_plugins
cat > callback_plugins/interrupting.py <<'END'
import os
import signal

from ansible.plugins.callback import CallbackBase

left = [signal.SIGINT]


def interrupt():
    if left:
        os.kill(os.getpid(), left.pop())


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_NAME = "interrupting"

    def v2_playbook_on_task_start(self, task, is_conditional):
        if os.environ["WHEN"] == "task":
            interrupt()
        elif not hasattr(self, "registered"):
            self.registered = True
            os.register_at_fork(before=interrupt)
END
cat > play.yml <<'END'
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.command: "true"
    - ansible.builtin.command: echo the last task
END

status=0
for when in task fork; do
    result=0
    WHEN=$when venv/bin/ansible-playbook -i localhost, -c local -e "ansible_python_interpreter=$work/venv/bin/python" \
        -v play.yml > output 2>&1 || result=$?
    ignored=$(grep -c "^Exception ignored in" output || true)
    last=$(grep -c '"stdout": "the last task"' output || true)
    printf 'ansible-core %s, signal at the %s: exit status %s, %s ignored, last task ran %s time(s)\n' \
        "$version" "$when" "$result" "$ignored" "$last"
    case "$when:$((result > 0)):$((ignored > 0)):$last" in
        task:1:0:0 | fork:0:1:1) ;;
        *) status=1 ;;
    esac
done
[ "$status" = 0 ] || echo "This is no longer what was seen." >&2
exit "$status"
