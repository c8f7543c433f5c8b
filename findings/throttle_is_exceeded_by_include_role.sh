#!/usr/bin/env bash
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# `throttle: 1` does not limit a task to one host at a time if the task is in an included role and
# the strategy is free. Ansible counts by the task's uuid, and include_role makes a new one for each
# group of hosts that arrives in the same poll.
#
# Seen with ansible-core 2.18.19, 2.19.14 and 2.21.5, four hosts that arrive one second apart:
#   strategy free, include_role    several hosts at a time
#   strategy free, roles:          one
#   strategy linear, include_role  one
#
# Consequence: a limit on a shared resource must be kept by the task itself, for example with locks.

set -euo pipefail
version=${1:-2.19.14}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "ansible-core==$version"

mkdir -p roles/limited/tasks
cat > roles/limited/tasks/main.yml <<'END'
- name: Work alone
  ansible.builtin.command: python3 {{ playbook_dir }}/work.py {{ playbook_dir }}/at_work
  throttle: 1
END
# Waits up to four seconds for company and prints how many were at work then.
cat > work.py <<'END'
import os, sys, time
directory = sys.argv[1]
mine = os.path.join(directory, str(os.getpid()))
open(mine, "w").close()
end = time.monotonic() + 4
while len(os.listdir(directory)) < 2 and time.monotonic() < end:
    time.sleep(0.05)
print("at work:", len(os.listdir(directory)))
time.sleep(0.5)
os.unlink(mine)
END
printf 'h%d ansible_connection=local ansible_python_interpreter=python3 arrives=%d\n' 1 0 2 1 3 2 4 3 > hosts

# Prints the most hosts that were at work at a time.
at_a_time() {
    rm -rf at_work && mkdir at_work
    cat > play.yml <<END
- hosts: all
  gather_facts: false
  strategy: $1
  pre_tasks:
    - ansible.builtin.command: sleep {{ arrives }}
  $2
END
    venv/bin/ansible-playbook -i hosts -f 8 -v play.yml 2> /dev/null |
        sed -n 's/.*"stdout": "at work: \([0-9]*\)".*/\1/p' | sort -n | tail -n 1
}

include='tasks: [{ansible.builtin.include_role: {name: limited}}]'
status=0
for case in "free|$include|several" "free|roles: [limited]|one" "linear|$include|one"; do
    IFS='|' read -r strategy body expected <<< "$case"
    most=$(at_a_time "$strategy" "$body")
    found=one
    [ "$most" -le 1 ] || found=several
    printf 'ansible-core %s, %s, %s: %s at a time\n' "$version" "$strategy" "${body%%[:.]*}" "$most"
    [ "$found" = "$expected" ] || status=1
done
[ "$status" = 0 ] || echo "This is no longer what was seen." >&2
exit "$status"
