#!/bin/sh
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Usage: demo/deliver.sh ANSIBLE_PLAYBOOK. Signs the demo's releases with a key made on the spot, and
# delivers them to nodes that serve nothing else.
#
# A node trusts what root has put into /etc/lorafleet/trust, and no variable names another place. So
# that the demo writes nothing there, its nodes see an /etc of their own: an overlay in memory, which
# ends with the delivery. Mounting takes root, and a container usually forbids it. Without it, the
# releases are signed, but nodes that trust nobody cannot check them.
set -eu

playbook() {
	"$ansible_playbook" -i inventories/demo "$@"
}

if test "${1:-}" = inside; then
	ansible_playbook=$2
	# The demo's nodes are one machine.
	playbook playbooks/trust.yml --limit jw2-1
	playbook playbooks/deploy.yml -e agent_signatures="$PWD/.cache/demo/signatures"
	exit
fi

ansible_playbook=$1
key=.cache/demo/signing/key trust=.cache/demo/trust
mkdir -p .cache/demo/signing "$trust" .cache/demo/signatures
test -e "$key" || ssh-keygen -q -t ed25519 -N '' -C demo -f "$key"
echo '{"fleet": "demo", "required": true, "threshold": 1, "version": 1}' > "$trust/policy.json"
echo "demo namespaces=\"release@lorafleet.delivery\" $(cut -d' ' -f1,2 "$key.pub")" > "$trust/allowed_signers"
playbook playbooks/sign.yml -e training_signing_confirmed=true

# The new namespace is private: nothing of this is seen outside.
own_etc() {
	mkdir -p .cache/demo/etc
	# shellcheck disable=SC2016
	unshare --mount sh -c '
		mount -t tmpfs tmpfs .cache/demo/etc && cd .cache/demo/etc && mkdir upper work &&
		mount -t overlay -o "lowerdir=/etc,upperdir=$PWD/upper,workdir=$PWD/work" overlay /etc &&
		cd "$OLDPWD" && exec "$@"' sh "$@"
}

if own_etc true 2> /dev/null; then
	own_etc "$0" inside "$ansible_playbook"
else
	echo "== The nodes do not check the signatures: root alone can give them an /etc of their own"
	playbook playbooks/deploy.yml
fi
