# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of adapter_sync: transfers files between the phases plan and verify."""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import functools
import os
import tempfile
import time
import typing as t

from ansible import constants as C
from ansible.utils.display import Display
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._advisories import version_warnings
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._rsync import no_zstd
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import escaped, first
from ansible_collections.lorafleet.delivery.plugins.module_utils._ways import COMMAND, RELAY, ways_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.action import ContactAction, failed
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.answers import DIRECTORY
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.forms import UnexpectedForm
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._kept_manifests import check_source, with_texts
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._progress.events import Event, Meter, emit
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._signing.controller_check import check_signed
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._steps import VERIFYING, WAITING
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.command import CommandWay
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.direct_ways import direct_ways
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.ends import node_end, source_end
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.options import given_options
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.rsync import TransferOptions
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.session import RelayWay, Session
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.slots import transfer_slot
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.swarm import swarm_way
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.ways import Wanted, Way, Ways

display = Display()

_MODULE = "lorafleet.delivery.adapter_sync"


class ActionModule(ContactAction):
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        seconds: dict[str, float] = {}
        try:
            # Before the node is asked.
            check_signed(with_texts({"manifests": [], **self._task.args}))
        except DeliveryError as exc:
            return {**result, **failed(*exc.problems)}
        with _timed(seconds, "plan"):
            plan = self._phase("plan", variables)
        if plan.get("failed") or self._task.check_mode:
            return {**result, **_public(plan)}
        result["seconds"] = seconds
        _warn_about(variables["inventory_hostname"], plan.get("rsync", ""))
        if any(adapter["downloaded"] for adapter in plan["adapters"]):
            try:
                texts = [str(text) for text in t.cast("list[str]", with_texts(self._task.args)["manifests"])]
                check_source(texts, str(self._task.args["source"]))
                manifests = {manifest.name: manifest for manifest in map(Manifest.from_text, texts)}
                check_requested(variables["inventory_hostname"], plan["adapters"], manifests.values())
                self._transfer(plan, manifests, variables, result)
            except DeliveryError as exc:
                return {**result, **failed(*exc.problems)}
        # Also if no file was missing: an earlier run may have ended between transfer and
        # verification.
        if not all(adapter["stored"] for adapter in plan["adapters"]):
            emit(Event(variables["inventory_hostname"], VERIFYING))
            with _timed(seconds, "verify"):
                verified = self._phase("verify", variables)
            if verified.get("failed"):
                return {**result, **_public(verified)}
            # The plan did not know the files that two adapters share: the first one downloaded
            # them.
            for planned, found in zip(plan["adapters"], verified["adapters"]):
                planned.update(reused=found["reused"], reused_bytes=found["reused_bytes"])
        return {**result, **_public(plan)}

    def _phase(self, phase: str, variables: dict[str, t.Any]) -> dict[str, t.Any]:
        """Run the module on the node."""
        arguments = {**self._task.args, "phase": phase}
        return self._execute_module(module_name=_MODULE, module_args=arguments, task_vars=variables)

    def _transfer(
        self, plan: dict[str, t.Any], manifests: dict[str, Manifest], variables: dict[str, t.Any], result: dict[str, t.Any]
    ) -> None:
        """Transfer all missing files and add the summary to ``result``. Raises DeliveryError."""
        source, node = str(self._task.args["source"]), variables["inventory_hostname"]
        # Not those that the node has found: it would choose how long the run takes.
        given = given_options(_MODULE, self._task.args)
        options = TransferOptions(
            given["transfer_timeout"],
            given["transfer_bwlimit"],
            given["transfer_compress"],
            plan.get("rsync", ""),
            given["transfer_minimum_rate"],
        )
        names = ways_of(given)
        if options.compress and RELAY in names and not plan.get("zstd"):
            raise no_zstd(node, plan.get("rsync", ""))
        with contextlib.ExitStack() as held:
            # The path of a socket has at most about a hundred characters. TMPDIR may be too long
            # for it.
            sockets = held.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))
            at_node = node_end(node, self, os.path.join(sockets, "node"))
            held.callback(at_node.close)
            found: list[Way] = []
            if COMMAND in names:
                found.append(CommandWay(node, at_node, plan["python"], given["transfer_command"], options))
            relay = swarm = None
            if names != [COMMAND]:
                at_source = source_end(source, self, variables, os.path.join(sockets, "source"))
                held.callback(at_source.close)
                ends = (source, node, at_source, at_node)
                swarm = swarm_way(given, ends, variables["hostvars"], plan["python"], options, C.DEFAULT_LOCAL_TMP)
                if swarm:
                    held.callback(swarm.close)
                    found.append(swarm)
                found += direct_ways(given, ends, variables["hostvars"][source], plan["python"], options)
            if RELAY in names:
                relay = Session(source, node, at_source, at_node, options, given["transfer_tries"], follows=names[0] != RELAY)
                found.append(RelayWay(relay))
            slot = _Slot(held, result["seconds"], node, source, given["transfer_streams"])
            ways = Ways(found, functools.partial(_warn_of_refusal, node), slot.take)
            held.callback(lambda: result.update(relay.summary() if relay else {}, wire_bytes=ways.received))
            held.enter_context(_timed(result["seconds"], "transfer"))
            for adapter in plan["adapters"]:
                if adapter["downloaded"]:
                    display.vv(f"{adapter['name']}: {adapter['downloaded_bytes']} bytes from {source}", host=node)
                    # The compressed size is unknown until the end.
                    expected = 0 if options.compress else adapter["downloaded_bytes"] - adapter["staged_bytes"]
                    meter = Meter(node, adapter["name"], expected)
                    place = self._place_of(adapter["name"])
                    wanted = Wanted(manifests[adapter["name"]], adapter["downloaded"], adapter["staging"], *place)
                    try:
                        ways.fetch(wanted, meter)
                    except DeliveryError:
                        if relay and relay.results and relay.results[-1].excessive:
                            # Otherwise the node's disk would stay full.
                            self._phase("clean", variables)
                        raise
                    if given["transfer"] != RELAY:
                        adapter.update(ways.taken[adapter["name"]])
                    meter.done()
            if swarm:
                swarm.share()
        _warn_about(source, relay.source_rsync if relay else "")

    def _place_of(self, adapter: str) -> tuple[str, dict[str, str]]:
        """The directory of an adapter at the source, and what the links in it lead to.

        Without source_directories, it is the one of the adapter's name and has no links.
        """
        described = (self._task.args.get("source_directories") or {}).get(adapter)
        if described is None:
            return os.path.join(str(self._task.args["source_models_dir"]), adapter), {}
        try:
            directory = DIRECTORY.read(described, adapter)
        except UnexpectedForm as exc:
            remedy = "Pass what adapter_info returned as directories."
            raise DeliveryError.of("source_directories", f"cannot be used: {exc.key} {exc.problem}.", remedy) from exc
        return directory["path"], directory.get("links", {})


@dataclasses.dataclass
class _Slot:
    """One of the slots of a source, which this worker holds from the first need until its end."""

    held: contextlib.ExitStack
    seconds: dict[str, float]
    node: str
    source: str
    streams: int

    def __post_init__(self) -> None:
        self._taken = False
        self.seconds["wait"] = 0

    def take(self) -> None:
        if not self._taken:
            self._taken = True
            with _timed(self.seconds, "wait"):
                on_wait = functools.partial(emit, Event(self.node, WAITING))
                self.held.enter_context(transfer_slot(C.DEFAULT_LOCAL_TMP, self.source, self.streams, on_wait))


def check_requested(node: str, adapters: c.Iterable[dict[str, t.Any]], manifests: c.Iterable[Manifest]) -> None:
    """Raise DeliveryError if a node asks for anything else than files of the manifests.

    ``adapters`` is its plan of the transfer.
    """
    offered = {manifest.name: manifest for manifest in manifests}
    for adapter in adapters:
        manifest = offered.get(adapter["name"])
        files = {entry.path for entry in manifest.files} if manifest else set()
        others = set(adapter["downloaded"]) - files
        if manifest is None or others or adapter["release"] != manifest.release:
            what = first(sorted(others)) or f"release {adapter['release']}"
            problem = f"asked for {what} of adapter {adapter['name']}, which the manifests do not have."
            raise DeliveryError.of(node, problem, "Inspect this host before you deliver to it.")


@contextlib.contextmanager
def _timed(seconds: dict[str, float], phase: str) -> t.Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[phase] = round(time.monotonic() - start, 3)


def _warn_of_refusal(node: str, adapter: str, way: str, why: str) -> None:
    display.warning(escaped(f"{node}: adapter {adapter} takes another way than {way}: {why}", kept=""))


def _warn_about(host: str, rsync: str) -> None:
    for warning in version_warnings(host, {"rsync": rsync} if rsync else {}):
        display.warning(warning)


def _public(found: dict[str, t.Any]) -> dict[str, t.Any]:
    """A module's result without the values that are for this plugin only."""
    adapters = [
        {key: value for key, value in adapter.items() if key not in ("staging", "staged_bytes")}
        for adapter in found.get("adapters", ())
    ]
    public = {key: value for key, value in found.items() if key not in ("adapters", "zstd", "python")}
    return {**public, "adapters": adapters} if "adapters" in found else public
