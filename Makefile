# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Everything is created below .cache, .collections and .ansible; `make clean` removes it.

# The index that torch comes from, and nothing else; default is pip's own. If it has a CPU build, that
# is installed. PyPI has only CUDA builds for Linux, of several gigabytes. For a small CPU build:
# make demo TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
TORCH_INDEX_URL ?=

CONTROLLER := .cache/venv/controller
PEFT := .cache/venv/peft
COLLECTION := .collections/ansible_collections/lorafleet/delivery
BASE := .cache/demo/base/SmolLM2-135M-Instruct
DEMO_NODES := jw2-1 jw3-1 kcloud-1
DEMO_REPORT := .cache/demo/report
NOX := $(CONTROLLER)/bin/nox
# Whichever index pip is configured for: only files with the locked hashes are installed. The locks
# are complete, and no package is built from source, which would need others.
PIP := -m pip --disable-pip-version-check -qq
LOCKED := --no-deps --only-binary=:all: --require-hashes
PIP_INSTALL := $(PIP) install $(LOCKED)
PEFT_REQUIREMENTS := roles/runtime/files/requirements
PEFT_LOCKS := $(PEFT_REQUIREMENTS)-torch.txt $(PEFT_REQUIREMENTS).txt $(PEFT_REQUIREMENTS)-cuda.txt requirements/torch-cpu.txt

# The base image of the lab's hosts. If empty, it is built from Debian packages, not pulled.
# Without mmdebstrap, for example: make lab LAB_BASE=docker.io/library/debian:bookworm-slim
LAB_BASE ?=
LAB_PACKAGES := openssh-server,rsync,python3,python3-venv,sudo,iproute2,procps
LAB := .cache/lab
# no: make test skips the lab's tests, with a message.
WITH_LAB ?= yes
LAB_PLAYBOOK := $(CONTROLLER)/bin/ansible-playbook -i inventories/lab extensions/molecule
export CONTAINERS_CONF := $(CURDIR)/extensions/molecule/containers.conf

# Evaluated only by rules that use it. The distribution's Python comes first because it is
# optimized: with one built by a version manager Ansible often takes a third longer.
PYTHON ?= $(or $(shell for python in /usr/bin/python3 python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null && echo $$python && break; \
	done),$(error Python 3.11 or newer is needed: install it, or name it: make PYTHON=/path/to/python3))

SECONDS ?= 60

# yes: make demo also serves the adapters of a node with a real vLLM on the CPU.
SERVE ?= no

# The engines that `make engines` asks; all if empty.
ENGINES ?=

SAY = @printf '== %s\n'

# Shell commands that install the Debian packages in $$packages.
define APT_INSTALL
	command -v apt-get > /dev/null || { echo "Please install:$$packages" >&2; exit 1; }; \
	echo "== Installing$$packages with apt-get (about 30 s)"; \
	sudo=; test "$$(id -u)" = 0 || sudo=sudo; \
	$$sudo apt-get -qq update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends \
		$$packages > /dev/null
endef

# $(call NEED,command:package ...) installs the packages of missing commands.
define NEED
	@PATH=$$PATH:/usr/sbin packages=; for pair in $(1); do \
		command -v "$${pair%:*}" > /dev/null || packages="$$packages $$(echo "$${pair#*:}" | tr + ' ')"; \
	done; \
	if test -n "$$packages"; then $(APT_INSTALL); fi
endef

# $(call VENV,directory) creates a virtual environment unless a working one exists.
define VENV
	@$(1)/bin/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(1)
endef

# $(call DELIVER,command) runs a delivery of the demo and shows the check boxes of its report.
define DELIVER
	@touch .cache/demo/started
	@LORAFLEET_REPORT_DIR=$(DEMO_REPORT) $(1); result=$$?; \
		if test $(DEMO_REPORT)/MANIFEST.md -nt .cache/demo/started; then \
			printf '\n== %s\n' $(DEMO_REPORT)/MANIFEST.md; grep '^- \[' $(DEMO_REPORT)/MANIFEST.md; \
		fi; exit $$result
endef

.PHONY: help
help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: setup
setup: system $(CONTROLLER)/.installed $(PEFT)/.installed $(COLLECTION)  ## Install Ansible and PEFT

.PHONY: demo
demo: setup $(PEFT)/.installed-demo $(if $(filter yes,$(SERVE)),setup-test)  ## Deliver six adapters to a fleet on this machine (SERVE=yes: serve two with vLLM)
	@$(PEFT)/bin/python demo/prepare_base.py $(BASE)
	@# PEFT writes target_modules in the order of a set. A fixed seed makes digests reproducible.
	@PYTHONHASHSEED=0 $(PEFT)/bin/python demo/train_adapters.py $(BASE) .cache/demo/sbs29/home/models
	@mkdir -p $(DEMO_NODES:%=.cache/demo/%/home/models)
	@$(CONTROLLER)/bin/ansible-playbook -i inventories/demo playbooks/golden.yml
	$(call DELIVER,demo/deliver.sh $(CONTROLLER)/bin/ansible-playbook)
	$(if $(filter yes,$(SERVE)),$(SAY) "Installing vLLM (a few minutes, unless it is there)")
	$(if $(filter yes,$(SERVE)),$(call DELIVER,$(CONTROLLER)/bin/python tests/serving/demo.py $(BASE)))

.PHONY: lint
lint: setup-test  ## Run the linters, the type checker and the spelling check
	@$(NOX) -s lint

.PHONY: check
check: setup-test  ## Run the fast checks: linters and quick unit tests
	@$(NOX) -t fast

.PHONY: test
test: system system-test  ## Run all checks and tests (about half an hour)
	@# Debian packages have been installed, so these do not compete for apt's lock. The lab's parts
	@# need root; without them its tests are skipped with a message.
	@$(MAKE) --no-print-directory --jobs=2 setup-test $(if $(filter 0,$(shell id -u)),$(if $(filter no,$(WITH_LAB)),,lab-parts)) || \
		{ echo "== Set-up failed. If the lab cannot be built here, skip its tests: make test WITH_LAB=no" >&2; exit 1; }
	@# In parallel: most gates use one core, and the tests often wait for their hosts.
	@$(MAKE) --no-print-directory --jobs=2 gates tests

# Their output is shown at the end, not between the lines of the tests.
.PHONY: gates
gates: setup-test
	@nice $(NOX) -t gates > .cache/gates.log 2>&1; result=$$?; cat .cache/gates.log; exit $$result

.PHONY: tests
tests: setup-test
	@$(NOX) -s tests

.PHONY: lab
lab: setup lab-parts  ## Create the test environment of containers (as root)
	@$(LAB_PLAYBOOK)/default/create.yml
	@$(LAB_PLAYBOOK)/resources/runtime.yml
	@printf '\n== The lab is up. Deploy to it:\n%s -i inventories/lab playbooks/deploy.yml\nLog in:\nssh -F %s jw2-1\n' \
		$(CONTROLLER)/bin/ansible-playbook $(LAB)/ssh_config

.PHONY: lab-down
lab-down: $(CONTROLLER)/.installed-lab  ## Remove the lab's containers, network and images
	@$(LAB_PLAYBOOK)/default/destroy.yml
	@podman image rm --force --ignore localhost/lorafleet-lab localhost/lorafleet-lab-base > /dev/null
	@rm -rf $(LAB)

.PHONY: lab-parts
lab-parts: $(CONTROLLER)/.installed-lab lab-image $(LAB)/wheelhouse/.filled

.PHONY: lab-image
lab-image: system-lab
	@test "$$(id -u)" = 0 || { echo "The lab's hosts have their own addresses, which needs root. Run sudo make lab." >&2; exit 1; }
	@mkdir -p $(LAB)
	@test -n "$(LAB_BASE)" || podman image exists localhost/lorafleet-lab-base || { \
		echo "== Making the lab's base image from Debian's packages (about 1 minute)" && \
		mmdebstrap --quiet --variant=minbase --include=$(LAB_PACKAGES) bookworm $(LAB)/base.tar && \
		podman import --quiet $(LAB)/base.tar localhost/lorafleet-lab-base > /dev/null && rm $(LAB)/base.tar; }
	@podman build --quiet --network host --tag localhost/lorafleet-lab --build-arg PACKAGES="$(LAB_PACKAGES)" \
		--build-arg BASE=$(or $(LAB_BASE),localhost/lorafleet-lab-base) extensions/molecule/image > /dev/null

.PHONY: fuzz
fuzz: setup-test  ## Fuzz the file readers for SECONDS=60
	$(SAY) "Fuzzing (about $(SECONDS) s)"
	@$(CONTROLLER)/bin/python tests/tools/fuzz.py $(SECONDS)

.PHONY: bench
bench: setup-test $(CONTROLLER)/.installed-lab $(CONTROLLER)/.installed-bench  ## Run the benchmarks
	$(SAY) "Measuring (about 50 minutes)"
	@for script in tests/benchmarks/bench_*.py tests/benchmarks/plot.py; do $(CONTROLLER)/bin/python "$$script" || exit; done

.PHONY: engines
engines: setup-test $(PEFT)/.installed-demo  ## Ask real engines about adapters: ENGINES="vllm openvino"
	@$(PEFT)/bin/python demo/prepare_base.py $(BASE)
	@$(CONTROLLER)/bin/python tests/engines/run.py --base $(BASE) $(ENGINES)

.PHONY: serving
serving: setup-test $(PEFT)/.installed-demo  ## Deliver adapters to a real vLLM under load (on the CPU)
	@$(PEFT)/bin/python demo/prepare_base.py $(BASE)
	@$(CONTROLLER)/bin/python tests/serving/run.py --base $(BASE)

.PHONY: docs
docs: setup-test  ## Render the reference of modules, plugins and roles to .cache/docs
	@$(NOX) -s docs

.PHONY: readmes
readmes: setup-test  ## Write the README.md of each role from its argument specs
	@$(CONTROLLER)/bin/python tests/tools/readmes.py

.PHONY: compatibility
compatibility: setup-test  ## Write docs/compatibility.md from the table of the tests
	@$(CONTROLLER)/bin/python tests/tools/compatibility.py

.PHONY: engines-page
engines-page: setup-test  ## Write docs/engines.md from the rules of the engines
	@$(CONTROLLER)/bin/python tests/tools/engines_page.py

.PHONY: clean
clean:  ## Remove everything that make has created
	rm -rf .cache .collections .ansible .mypy_cache .pytest_cache .ruff_cache .hypothesis

.PHONY: setup-test
setup-test: setup $(CONTROLLER)/.installed-test

.PHONY: system
system:
	$(call NEED,rsync:rsync ssh:openssh-client)
	@{ test -e $(CONTROLLER)/bin/python && test -e $(PEFT)/bin/python; } || $(PYTHON) -c 'import ensurepip' 2> /dev/null || \
		{ packages=" $(notdir $(PYTHON))-venv"; $(APT_INSTALL); }

.PHONY: system-test
system-test:
	$(call NEED,sshd:openssh-server sudo:sudo strace:strace mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs \
		chromium:chromium docker-registry:docker-registry)

.PHONY: system-lab
system-lab:
	$(call NEED,podman:podman runc:runc /usr/lib/podman/netavark:netavark iptables:iptables tc:iproute2 \
		$(if $(LAB_BASE),,mmdebstrap:mmdebstrap+debian-archive-keyring))

$(CONTROLLER)/.installed: requirements/locked/controller.txt | system
	$(SAY) "Installing Ansible into $(CONTROLLER) (about 20 s)"
	$(call VENV,$(CONTROLLER))
	@$(CONTROLLER)/bin/python $(PIP_INSTALL) -r $<
	@touch $@

$(CONTROLLER)/.installed-test: requirements/locked/test.txt $(CONTROLLER)/.installed
	$(SAY) "Installing the test tools into $(CONTROLLER) (about 30 s)"
	@$(CONTROLLER)/bin/python $(PIP_INSTALL) -r $<
	@touch $@

# The lock file includes the test tools.
$(CONTROLLER)/.installed-lab: requirements/locked/lab.txt $(CONTROLLER)/.installed-test
	$(SAY) "Installing molecule and Ansible's collections into $(CONTROLLER) (about 30 s)"
	@$(CONTROLLER)/bin/python $(PIP_INSTALL) --no-compile -r $<
	@touch $@

$(CONTROLLER)/.installed-bench: requirements/locked/bench.txt $(CONTROLLER)/.installed
	$(SAY) "Installing matplotlib into $(CONTROLLER) (about 10 s)"
	@$(CONTROLLER)/bin/python $(PIP_INSTALL) -r $<
	@touch $@

# $(call TORCH,command) runs pip with the CPU build of torch or, where the index has none, the other.
TORCH = $(1) $(TORCH_INDEX_URL:%=--index-url=%) -r requirements/torch-cpu.txt 2> /dev/null || \
	$(1) $(TORCH_INDEX_URL:%=--index-url=%) -r $(PEFT_REQUIREMENTS)-torch.txt

# The lab's hosts are Debian 12 with Python 3.11, independently of this machine.
COLLECT = $(CONTROLLER)/bin/python $(PIP) download $(LOCKED) --python-version 3.11 --dest $(LAB)/wheelhouse
$(LAB)/wheelhouse/.filled: $(PEFT_LOCKS) | $(CONTROLLER)/.installed
	$(SAY) "Collecting the wheels of the PEFT environment (about 20 s)"
	@mkdir -p $(@D)
	@$(call TORCH,$(COLLECT))
	@$(COLLECT) -r $(PEFT_REQUIREMENTS).txt
	@test -e $(@D)/torch-*+cpu-*.whl || $(COLLECT) -r $(PEFT_REQUIREMENTS)-cuda.txt
	@touch $@

# pip check: a CUDA build of torch needs more packages than a CPU build.
$(PEFT)/.installed: $(PEFT_LOCKS) | system
	$(SAY) "Installing torch and PEFT into $(PEFT) (1 to 2 minutes, longer for a CUDA build)"
	$(call VENV,$(PEFT))
	@$(call TORCH,$(PEFT)/bin/python $(PIP_INSTALL))
	@$(PEFT)/bin/python $(PIP_INSTALL) -r $(PEFT_REQUIREMENTS).txt
	@$(PEFT)/bin/python $(PIP) check > /dev/null || $(PEFT)/bin/python $(PIP_INSTALL) -r $(PEFT_REQUIREMENTS)-cuda.txt
	@touch $@

$(PEFT)/.installed-demo: requirements/locked/demo.txt $(PEFT)/.installed
	$(SAY) "Installing the demo's base model (about 15 s)"
	@$(PEFT)/bin/python $(PIP_INSTALL) -r $<
	@touch $@

# Through this symlink, ansible.cfg and the tests find the checkout by the collection's full name.
$(COLLECTION):
	@mkdir -p $(@D)
	@ln -sfn ../../.. $@
