# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This doc fragment is PRIVATE to the collection: it may change or vanish in any release.

"""Options that several modules share: a fragment for each constant of module_utils/_argspec.py."""

from __future__ import annotations


class ModuleDocFragment:
    # The adapters that the inventory declares.
    DECLARED = r"""
options:
  adapters:
    description:
      - The adapters that the inventory declares, one row each.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the adapter, which is the name of its directory in O(models_dir).
        type: str
        required: true
      variant:
        description: The variant of the agent, for example V(3b). For reports only.
        type: str
      default:
        description: Whether this is the agent's default variant. For reports only.
        type: bool
        default: false
      base:
        description: The base model that it was trained on, a key of O(bases).
        type: str
        required: true
      rank:
        description: The LoRA rank C(r).
        type: int
        required: true
      alpha:
        description: The value of C(lora_alpha).
        type: float
        required: true
      target_modules:
        description:
          - Names of the modules that carry LoRA layers. The adapter must have exactly these; its own
            configuration may name them by a pattern or by other names of the same modules.
          - When not set, the names in adapter_config.json are used, and the tensors must fit them.
        type: list
        elements: str
      peft_config:
        description:
          - Keys of adapter_config.json that may differ from plain LoRA, and the values that they
            must have, for example C(use_rslora=true). All other keys must have values that do nothing
            when PEFT loads the adapter.
        type: dict
      extra_files:
        description:
          - Further files of the adapter, which are delivered if they exist, as C(NAME) or
            C(DIRECTORY/NAME).
        type: list
        elements: str
      subdirectory:
        description:
          - The subdirectory of the adapter's directory that is delivered, for example
            V(checkpoint-1200). It is delivered under the adapter's name.
        type: str
      allow_pickle:
        description:
          - Accept C(adapter_model.bin), a pickle, if there is no C(adapter_model.safetensors).
            The node's torch must then be 2.10 or newer.
        type: bool
        default: false
      form:
        description:
          - The form in which the adapter is delivered. V(as_trained) delivers the files of the
            training.
          - V(folded) delivers an equivalent adapter that engines cannot misread. The factor of each
            module is multiplied into its C(lora_B), all matrices are padded with zeros to one rank,
            and C(lora_alpha) is the rank. Its values become float32 if any would be rounded.
          - V(folded_same_dtype) keeps the dtype of the file and rounds.
          - M(lorafleet.delivery.adapter_info) makes the folded adapter on the training server, below
            its O(lorafleet.delivery.adapter_info#module:cache_dir). DoRA, trained biases, tokens,
            embeddings and whole modules, among others, have no folded form and are rejected.
          - All other keys of the row describe the adapter as trained, and so does its golden.
        type: str
        choices: [as_trained, folded, folded_same_dtype]
        default: as_trained
      dataset:
        description: The training data. For reports only.
        type: str
      quality:
        description: The quality metric. For reports only.
        type: str
"""

    # The base models.
    BASES = r"""
options:
  bases:
    description:
      - The base models, a dictionary. Its keys are the names that the rows of adapters have as C(base).
      - Each value is a dictionary with the optional keys C(path) (directory of the base on this
        host), C(config) (the base's config.json, as far as the shapes of its modules need it; read
        from C(path) when not set) and C(aliases) (other spellings of the name that
        C(base_model_name_or_path) of adapter_config.json may have).
    type: dict
    default: {}
"""

    # The directories of a training server.
    SOURCE = r"""
options:
  models_dir:
    description: Absolute path of the directory with the adapters' directories.
    type: path
    required: true
  cache_dir:
    description:
      - Directory of the hash cache, with which an unchanged adapter is read only once, and of folded
        adapters.
    type: path
    default: ~/.cache/lorafleet
  golden_dir:
    description:
      - Directory of the goldens that M(lorafleet.delivery.adapter_golden) records, by name and
        release of their adapters.
    type: path
    default: ~/.local/share/lorafleet/goldens
  link_dirs:
    description:
      - Directories, such as the cache of the Hugging Face Hub, that links in the directory of an
        adapter may lead into. The plain files that such links lead to are delivered in their place.
      - All other links are refused.
    type: list
    elements: path
    default: []
"""

    # The directories of a node.
    NODE = r"""
options:
  models_dir:
    description: Absolute path of the directory in which the adapters are served under their names.
    type: path
    required: true
  store:
    description:
      - Directory of releases, receipts and staged files. It must be on the file system of
        O(models_dir), and outside O(models_dir) unless that is a mount point.
    type: path
    required: true
"""

    # The directories that must not be the target of a delivery.
    TARGET = r"""
options:
  source_directories:
    description:
      - The directories that the adapters come from, as
        RV(lorafleet.delivery.adapter_info#module:directories) identifies them.
      - The module fails if one of them is the directory that a delivery would replace, contains it
        or is inside it. It recognises them on the same machine, whatever the paths, and on a
        network file system. Nothing is compared when empty.
      - M(lorafleet.delivery.adapter_sync) reads the adapters from there.
    type: dict
    default: {}
"""

    # How files are transferred from the source to a node.
    TRANSFER = r"""
options:
  transfer:
    description:
      - How the files get to the node. In all ways, what the node already has is reused, what an
        interrupted transfer has left is resumed, and every byte is verified on the node afterwards.
      - V(relay) streams them through the controller, with rsync at both ends.
      - V(direct) lets the node get them from one of O(transfer_direct_ports) of the source, over
        TLS, with keys that the controller makes for each transfer. It needs no rsync, but Python
        3.8 or newer with OpenSSL 1.1.1 or newer at both ends.
      - V(direct_ssh) does so through the ssh server of the source, for nodes that reach no other
        port there. While the node logs in, O(transfer_direct_authorized_keys) has a key that is
        made for this transfer, with a forced command. The node needs ssh.
      - V(swarm) lets the nodes of a run get the files from the source and from each other, through
        O(transfer_swarm_ports). The source and the nodes need the Python package libtorrent, and no
        rsync.
      - V(command) runs O(transfer_command) on the node. It needs no rsync.
      - V(auto) runs O(transfer_command) if it is set, then tries V(swarm) if
        O(transfer_swarm_ports) is set, V(direct) if O(transfer_direct_ports) is set, and
        V(direct_ssh) if O(transfer_direct_ssh=true). It relays what these do not bring. A warning
        and the result say which way failed and why.
    type: str
    choices: [relay, direct, direct_ssh, swarm, command, auto]
    default: relay
  transfer_command:
    description:
      - A program and its arguments. It runs on the node as the user that modules run as, without a
        shell, once for each adapter that lacks files, and brings them into the staging directory.
      - In the arguments, C({staging}) is the staging directory, and C({files}) a JSON file with the
        keys C(adapter), C(release), C(digest) and C(files), a list of the missing files with
        C(path) (relative to the staging directory), C(size) and C(sha256). C({adapter}),
        C({release}) and C({digest}) are the same values as in that file.
      - It can resume files that are in the staging directory already. The working directory is
        empty, on the same file system, and removed afterwards. C(TMPDIR) is that directory, too.
      - It fails if it exits with another status than 0, if a listed file is missing or wrong
        afterwards, or if it writes much more than the files. It is ended if it brings fewer bytes
        than O(transfer_minimum_rate) permits in ten times O(transfer_timeout). Whatever else it has
        put into the staging directory is removed.
      - O(transfer_bwlimit) and O(transfer_compress) have no effect on it.
    type: list
    elements: str
    default: []
  transfer_direct_ports:
    description:
      - Ports of the source that nodes reach, for example V(8700-8709), a single port, or V(0) for
        any. The source listens on the first free one of them while it sends files to a node. Each
        run needs as many of them as O(transfer_streams).
      - Nothing is transferred directly if this is empty. O(transfer=direct) requires it.
    type: str
    default: ""
  transfer_direct_ssh:
    description:
      - Whether O(transfer=auto) tries V(direct_ssh).
    type: bool
    default: false
  transfer_direct_authorized_keys:
    description:
      - The file in which sshd at the source looks for the keys of the user that the controller logs
        in as, for O(transfer=direct_ssh).
    type: str
    default: ~/.ssh/authorized_keys
  transfer_direct_address:
    description:
      - The address of the source for nodes, also in a swarm. By default, its C(ansible_host).
    type: str
    default: ""
  transfer_swarm_ports:
    description:
      - Ports at which the source and all nodes reach each other, for example V(8710-8719), a single
        port, or V(0) for any. Each of them listens on the first free one. The source needs as many
        as it has adapters in transfer at a time, and a node one more than it gives adapters to
        others.
      - There is no swarm if this is empty. O(transfer=swarm) requires it.
    type: str
    default: ""
  transfer_swarm_address:
    description:
      - The address of this node for other nodes. By default, its C(ansible_host).
    type: str
    default: ""
  transfer_swarm_python:
    description:
      - The Python of the node that can import libtorrent. By default, the one that modules run
        with.
    type: str
    default: ""
  transfer_swarm_source_python:
    description:
      - The same at the source. By default, its C(ansible_python_interpreter) if that is an absolute
        path, and otherwise C(python3).
    type: str
    default: ""
  transfer_swarm_plaintext:
    description:
      - Whether the members of a swarm do without TLS. Then all who can read or change what passes
        between them can read the files, and any host that connects gets them. Changed bytes are
        noticed and rejected.
      - If this is V(false), a host whose libtorrent was built without TLS takes no part.
    type: bool
    default: false
  transfer_timeout:
    description:
      - Seconds without data after which a transfer is aborted. If only keepalives of rsync arrive,
        it is aborted after ten times that.
    type: int
    default: 60
  transfer_tries:
    description:
      - How often a transfer is tried when its connection breaks. Each try resumes the last one. A
        command is run once.
    type: int
    default: 3
  transfer_streams:
    description:
      - How many nodes of a run one source serves at the same time. The others wait. Does not apply
        to O(transfer=swarm), in which all nodes share the one to three copies that the source
        sends.
      - Above ten, sshd with its default settings begins to refuse connections (C(MaxStartups)).
    type: int
    default: 10
  transfer_bwlimit:
    description:
      - The maximum rate of each of these streams, and of what each member of a swarm sends and
        receives for one adapter, as a value of rsync's option C(bwlimit). V(20M)
        means 20 MiB per second, a plain number KiB per second. No limit if empty.
    type: str
    default: ""
  transfer_minimum_rate:
    description:
      - Bytes per second. A transfer is aborted if it was slower for ten times O(transfer_timeout).
        V(0) accepts any rate.
      - Set it higher, below O(transfer_bwlimit), so that a source cannot delay nodes by sending
        slowly.
    type: int
    default: 1000
  transfer_compress:
    description:
      - Compress with zstd at level 1. It makes weights in bfloat16 smaller by 22 %, in float32 by
        7 %, and is worthwhile on links up to about 1 Gbit/s.
      - Applies to a relay. Both ends need an rsync built with zstd (3.2 or newer).
    type: bool
    default: false
"""

    # The device that adapters are loaded on.
    DEVICE = r"""
options:
  device:
    description:
      - The device to load on. V(cuda) is the GPU with the most free memory, V(cuda:1) the second
        GPU that the interpreter sees, in PCI bus order, and V(cpu) uses no GPU.
    type: str
    default: cuda
"""

    # Its memory. Used together with DEVICE.
    LOADING = r"""
options:
  memory_limit:
    description:
      - The most device memory that may be used, for example V(20G). It never uses more than is
        free.
    type: bytes
"""

    # Owner and modes of served files and directories.
    PERMISSIONS = r"""
options:
  owner:
    description:
      - Name or number of the user that owns the served files. Not changed when not set.
      - As root, releases in the store belong to root whatever this is, and nobody else may write to
        them. Where a link to the release is served (O(ignore:activation=symlink)), this user must be
        able to read it through O(group) or as any other user.
    type: str
  group:
    description: Name or number of the group of the served files. Not changed when not set.
    type: str
  file_mode:
    description: Permissions of served files, four octal digits.
    type: str
    default: "0644"
  directory_mode:
    description: Permissions of served directories, four octal digits.
    type: str
    default: "0755"
"""

    # The load test that a release must have passed on a node.
    TESTED = r"""
options:
  python:
    description:
      - The interpreter that serves the adapters. It must have torch, transformers, peft and
        safetensors.
    type: path
    required: true
  level:
    description:
      - The level of the test. Each level includes the ones before it, and an adapter that does not
        reach the level fails.
      - V(structure) checks the files only - names, shapes and values of all tensors, and the
        configuration. It needs no PEFT.
      - V(adapter) lets PEFT build its layers over a base without weights, loads all tensors onto
        the device, compares them with the file bit by bit and computes with each module. It takes
        less than 1 GB of device memory.
      - V(model) also loads the base from O(bases) and the adapter with PEFT, and compares the
        answers of the model with and without the adapter. It checks first that there is enough free
        memory.
      - V(golden) also compares the log-probabilities along the recorded answers, with and without
        the adapter, with those that M(lorafleet.delivery.adapter_golden) recorded on the training
        server. It needs a golden in the manifest.
      - V(available) is V(golden) for an adapter whose base has a C(path) and whose manifest has a
        golden, V(model) for one whose base has a C(path), and V(adapter) for others.
    type: str
    choices:
      - structure
      - adapter
      - model
      - golden
      - available
    default: available
  minimum_level:
    description:
      - The level that is enough if the device has too little memory for O(level). The test then goes as
        far as the memory permits, the result states the level and the reason, and each later run
        tries O(level) again.
      - When not set, only O(level) is enough. A test that fails for another reason is always a failure.
    type: str
    choices:
      - structure
      - adapter
      - model
      - golden
  base_binding:
    description:
      - What to do if the base on this host is not the one that the adapter was trained on, as far
        as the manifest identifies it. The config.json and a sample of every tensor are compared,
        before anything is loaded.
      - V(enforce) rejects the adapter. V(report) adds a note to the result and warns.
    type: str
    choices:
      - enforce
      - report
    default: enforce
  user:
    description:
      - The user that loads the adapters. With O(owner), O(group), O(file_mode) and
        O(directory_mode) it must be able to read the served files. Only these are checked, not the
        directories above O(models_dir). It reads the base itself. Another user than the one that
        modules run as requires O(ignore:become).
      - When not set, root loads no adapters. It has a throw-away user load them, which has a free
        number from 61184 to 65519, no name, the groups of the GPU devices, and those groups from
        1000 on that are needed to read the base and O(python). Everything else that it reads must
        be readable by every user. V(root) loads adapters as root.
      - When not set, and modules do not run as root, the user that they run as.
    type: str
"""

    # The engines that serve the adapters.
    ENGINES = r"""
options:
  engines:
    description:
      - The engines that serve the adapters on this node. For each of them and each adapter there is
        a verdict on what the engine makes of the adapter - the answers that PEFT gives (V(right)),
        an error (V(refused)), other answers without an error (V(wrong)), or something that nobody
        has found out (V(unknown)).
      - A name such as V(vllm), a dictionary, or a list of these. A dictionary has C(name) and
        optionally C(version), C(python) and settings of the engine, for example C(max_lora_rank).
        C(docs/engines.md) lists names, settings and verdicts.
      - C(python) is the interpreter that the engine is installed for. The version of the engine is
        read from the directories of its packages. It is not run. Without it, or if the engine is
        not installed there, C(version) applies, in quotes.
      - When not set, there are no verdicts, only notes about adapters that some common engine
        misreads.
    type: raw
  engine_policy:
    description:
      - What to do with an adapter that an engine refuses or misreads.
      - V(enforce) blocks it. V(report) delivers it with a warning.
    type: str
    choices:
      - enforce
      - report
    default: enforce
"""

    # How a release is activated, and how many are kept.
    ACTIVATION = r"""
options:
  activation:
    description:
      - V(exchange) serves a plain directory with copies of the release's files, which is exchanged
        atomically with the directory it replaces.
      - V(symlink) serves a relative link to the release.
      - V(auto) keeps the method that the adapter was last activated with on this node. For a new
        adapter it is V(exchange) where the file system supports it, otherwise V(symlink). Check
        mode assumes that it does.
    type: str
    choices: [auto, exchange, symlink]
    default: auto
  keep:
    description:
      - How many verified releases of each adapter stay in the store, the most recently active
        first.
      - The active and the previous release, and releases that a process has open, always stay.
    type: int
    default: 3
"""

    # Who has signed the releases.
    SIGNATURES = r"""
options:
  signatures:
    description:
      - The directory on the controller with signed statements about releases, as
        C(NAME/DIGEST12.json) with the signatures C(NAME/DIGEST12.*.sig).
      - The node refuses a release whose statement it does not accept, whatever this directory says
        about other releases. If its policy in C(/etc/lorafleet/trust) requires signatures, it
        refuses releases without a statement, too.
      - When empty, releases are offered unsigned.
    type: str
    default: ""
  signed:
    description:
      - The statements in O(signatures) about the manifests, with their signatures.
      - Set by the action plugin of the same name, which reads them. Do not set it.
    type: list
    elements: dict
    default: []
    suboptions:
      adapter:
        description: Name of the adapter.
        type: str
        required: true
      statement:
        description: The text that was signed.
        type: str
        required: true
      signatures:
        description: The signatures, as C(ssh-keygen -Y sign) writes them.
        type: list
        elements: str
        required: true
  snapshot:
    description:
      - The snapshot of the fleet in O(signatures), C(fleet.json) with C(fleet.*.sig), if it is there.
      - Set by the action plugin of the same name, which reads it. Do not set it.
    type: dict
    suboptions:
      statement:
        description: The text that was signed.
        type: str
        required: true
      signatures:
        description: The signatures, as C(ssh-keygen -Y sign) writes them.
        type: list
        elements: str
        required: true
"""
