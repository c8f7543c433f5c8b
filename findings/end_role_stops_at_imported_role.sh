#!/usr/bin/env bash
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# `meta: end_role` in a role that later imports another role statically does not end the role: it
# ends at the end of the imported role, and the tasks after the import run.
#
# Seen with ansible-core 2.18.19, 2.19.14 and 2.21.5, strategies linear and free:
#   tasks between end_role and import_role   skipped
#   tasks of the imported role               skipped
#   tasks after the import                   RUN
# With include_role instead of import_role, all of them are skipped, as one expects.
#
# Consequence for roles: after end_role use include_role or import_tasks, never import_role.

set -euo pipefail
version=${1:-2.19.14}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "ansible-core==$version"

mkdir -p roles/inner/tasks roles/imports/tasks roles/includes/tasks
cat > roles/inner/tasks/main.yml <<'END'
- ansible.builtin.debug: {msg: "ran: inner"}
END
for how in import include; do
    cat > "roles/${how}s/tasks/main.yml" <<END
- ansible.builtin.meta: end_role
- ansible.builtin.debug: {msg: "ran: between"}
- ansible.builtin.${how}_role: {name: inner}
- ansible.builtin.debug: {msg: "ran: after"}
END
done

# Prints the tasks that ran, on one line.
tasks_run() {
    cat > play.yml <<END
- hosts: localhost
  connection: local
  gather_facts: false
  strategy: $2
  roles: [$1]
END
    venv/bin/ansible-playbook -i localhost, play.yml 2> /dev/null |
        sed -n 's/.*"ran: \([a-z]*\)".*/\1/p' | paste -sd ' '
}

status=0
for strategy in linear free; do
    for expected in "imports:after" "includes:"; do
        role=${expected%%:*}
        found=$(tasks_run "$role" "$strategy")
        printf 'ansible-core %s, %s, role %s: tasks that ran: %s\n' "$version" "$strategy" "$role" "${found:-none}"
        [ "$found" = "${expected#*:}" ] || status=1
    done
done
[ "$status" = 0 ] || echo "This is no longer what was seen." >&2
exit "$status"
