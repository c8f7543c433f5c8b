#!/usr/bin/env bash
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Python reads a script from a pipe with one system call for each byte, but from a file in blocks.
#
# Seen with Python 3.11 (Debian 12, and one built by pyenv), for a script of 400 kB:
#   from a file    some hundred calls, 0.02 s of CPU time
#   from a pipe    400 000 calls,      0.15 s
#
# Consequence: with `pipelining = True`, Ansible sends a module through such a pipe. Starting one of
# 450 kB, as `adapter_up_to_date_info` has, costs a node 0.15 s of CPU time more. Without pipelining,
# it costs several more commands over the connection. So each file that a module sends counts.

set -euo pipefail
python=${1:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
    printf 'padding = "%0400000d"\n' 0
    echo 'print(*[line.split()[1] for line in open("/proc/self/io") if line.startswith("syscr")])'
} > "$work/script"

file=$("$python" "$work/script")
pipe=$(cat "$work/script" | "$python")
printf '%s: %s reads from a file, %s from a pipe\n' "$("$python" --version)" "$file" "$pipe"
if [ "$file" -gt 10000 ] || [ "$pipe" -lt 400000 ]; then
    echo "This is no longer what was seen." >&2
    exit 1
fi
