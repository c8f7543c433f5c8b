#!/usr/bin/env bash
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# In libtorrent, the rate limits and the upload slots of a session do not count for peers with
# private addresses. Between the hosts of a data centre, nothing limits a session.
#
# A session puts peers of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 169.254.0.0/16 and 127.0.0.0/8
# into a class of their own ("local"), and takes them out of the one that upload_rate_limit and
# download_rate_limit belong to ("global"). The class local also ignores unchoke_slots_limit. Such
# peers are not in num_uploads either.
#
# Seen with libtorrent 2.1.1, a seed with upload_rate_limit=100000 and unchoke_slots_limit=5, peers
# on 127.0.0.1:
#   as it is                   15 of 15 peers unchoked, num_uploads 0, 16 MB sent in 3 seconds
#   without the class local     5 of 15 peers unchoked, num_uploads 5, 0.3 MB
#   limit of the torrent       15 of 15 peers unchoked, num_uploads 0, 0.3 MB
# In a network namespace with such addresses, the first line was the same on 10.9.9.9, 172.31.5.5,
# 192.168.9.9 and 169.254.9.9. On 172.32.5.5 and 8.8.4.4, the limits held as in the second line.
#
# Consequence: limit torrents (torrent_handle.set_upload_limit), which counts for all peers, or give
# the session a peer_class_filter without the class local.
#
# Argument: VERSION. Needs a Python that it has a wheel for. Takes half a minute.

set -euo pipefail
version=${1:-2.1.1}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "libtorrent==$version"

cat > compare.py <<'END'
import os
import socket
import sys
import time
import warnings

import libtorrent as lt

warnings.simplefilter("ignore")
SIZE, LIMIT, SLOTS, PEERS, SECONDS = 16 << 20, 100_000, 5, 15, 3
CHOKE, UNCHOKE, HANDSHAKE = 0, 1, 68
os.mkdir("seed")
with open("seed/file", "wb") as file:
    file.write(os.urandom(SIZE))
storage = lt.file_storage()
lt.add_files(storage, "seed/file")
made = lt.create_torrent(storage, 1 << 16, lt.create_torrent.v1_only)
lt.set_piece_hashes(made, "seed")
described = lt.bencode(made.generate())


def started(place, **settings):
    """A session and its torrent, with files below ``place``."""
    names = ("dht", "lsd", "upnp", "natpmp", "incoming_utp", "outgoing_utp")
    alone = dict.fromkeys([f"enable_{name}" for name in names], False)
    session = lt.session({"listen_interfaces": "127.0.0.1:0", "allow_multiple_connections_per_ip": True, **alone, **settings})
    given = lt.load_torrent_buffer(described)
    given.save_path = place
    given.flags &= ~(lt.torrent_flags.paused | lt.torrent_flags.auto_managed)
    if place == "seed":
        given.flags |= lt.torrent_flags.seed_mode
    return session, session.add_torrent(given)


def is_unchoked(heard):
    """Whether the last message of its kind was that the seed gives to this peer."""
    last, at = CHOKE, HANDSHAKE
    while at + 4 < len(heard):
        length = int.from_bytes(heard[at : at + 4], "big")
        if length == 1 and heard[at + 4] in (CHOKE, UNCHOKE):
            last = heard[at + 4]
        at += 4 + length
    return last == UNCHOKE


def measured(change):
    """Peers that the seed gives to, the number that it states, and the MB that one node gets in SECONDS."""
    slots = {"unchoke_slots_limit": SLOTS, "choking_algorithm": 0, "unchoke_interval": 1, "optimistic_unchoke_interval": 600}
    seed, torrent = started("seed", upload_rate_limit=LIMIT, **slots)
    change(seed, torrent)
    while not torrent.status().is_seeding:
        time.sleep(0.1)
    peers = []
    for number in range(PEERS):
        peer = socket.create_connection(("127.0.0.1", seed.listen_port()))
        # A handshake, and that it is interested in what the seed has.
        name = torrent.info_hashes().v1.to_bytes()
        peer.sendall(b"\x13BitTorrent protocol" + bytes(8) + name + b"%020d" % number + b"\0\0\0\x01\x02")
        peers.append(peer)
    time.sleep(SECONDS)
    unchoked = sum(is_unchoked(peer.recv(1 << 16)) for peer in peers)
    stated = torrent.status().num_uploads
    for peer in peers:
        peer.close()
    node, getting = started(f"node-{time.monotonic_ns()}")
    getting.connect_peer(("127.0.0.1", seed.listen_port()))
    while not getting.status().total_payload_download:
        time.sleep(0.02)
    time.sleep(SECONDS)
    return unchoked, stated, getting.status().total_payload_download / 1e6


def all_are_global(session, torrent):
    everything = lt.ip_filter()
    everything.add_rule("0.0.0.0", "255.255.255.255", 1 << lt.session.global_peer_class_id)
    session.set_peer_class_filter(everything)


found = {
    "as it is": measured(lambda session, torrent: None),
    "without the class local": measured(all_are_global),
    "limit of the torrent": measured(lambda session, torrent: torrent.set_upload_limit(LIMIT)),
}
print("libtorrent", lt.version)
for what, (unchoked, stated, megabytes) in found.items():
    print(f"{what:25} {unchoked:2} of {PEERS} peers unchoked, num_uploads {stated}, {megabytes:.1f} MB in {SECONDS} seconds")
(all_, none, unlimited), (few, few_stated, limited), (_all, _none, own_limit) = found.values()
most = 2 * LIMIT * SECONDS / 1e6
if all_ != PEERS or none or few != SLOTS or few_stated != SLOTS or unlimited < 2 * most or max(limited, own_limit) > most:
    sys.exit("This is no longer what was seen.")
END
venv/bin/python compare.py
