"""Alerting: tells users about edges that are offline, or in WARNING or FAULT (alerting.md).

It listens to the events of edges, asks metadata for the users of an edge and their delays, and hands mails to a mailer.
The rules are in :mod:`openems.backend.alerting.rules`. What is pending is kept by metadata, so a restart loses nothing
and tells nobody twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.alerting.handlers import OFFLINE, SUM_STATE, Handler, SumStateHandler, World
from openems.backend.alerting.offline import OfflineHandler
from openems.backend.alerting.rules import Kept, MassGuard, SumStateRules
from openems.backend.alerting.scheduler import TICK, Scheduler, WorkQueue
from openems.backend.alerting.store import FileStore
from openems.backend.events import EventBus, MetadataInitialized, OnlineSet, SumStateSet
from openems.backend.interfaces import IDebugLoggable
from openems.common.jobs import Job

#: Edges waiting to be planned that are worth a word in the debug line.
CROWDED = 50


@implementer(IDebugLoggable)
class AlertingService:
    """``mailer``: an IMailer, or None, which is an error that is shown. ``store``: an IAlertingStore. ``initial_delay``
    in minutes. ``on_mass_outage(gone, known, until)``: for operators."""

    _log = Logger()

    def __init__(
        self,
        metadata: Any,
        mailer: Any,
        store: Any,
        events: EventBus,
        *,
        reactor: Any,
        now: Callable[[], int],
        initial_delay: int = 15,
        notify_on_offline: bool = True,
        notify_on_sum_state_change: bool = True,
        guard: MassGuard = MassGuard(),  # noqa: B008 - frozen
        on_mass_outage: Callable[[int, int, int], None] = lambda gone, known, until: None,
        tick: float = TICK,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.mailer = mailer
        self._metadata = metadata
        self._store = store
        self._events = events
        self._now = now
        self._initial_delay = initial_delay
        world = World(metadata, mailer, store, reactor, monotonic, self._keep)
        self.offline = OfflineHandler(world, guard, on_mass_outage) if notify_on_offline else None
        self.sum_state = SumStateHandler(SumStateRules(), world) if notify_on_sum_state_change else None
        self.handlers: list[Handler[Any]] = [h for h in (self.offline, self.sum_state) if h is not None]
        self.scheduler = Scheduler(reactor=reactor, now=now, tick=tick)
        self._plans = WorkQueue(self._plan, reactor=reactor, monotonic=monotonic)
        self._unsubscribe: list[Callable[[], None]] = []
        self._ready = False
        self._stopping = False

    @property
    def jobs(self) -> list[Job]:
        return self.scheduler.jobs

    # Life

    def start(self) -> None:
        """Events count from here on. The scan waits until metadata is initialised."""
        self._log.info("[Alerting] Activate")
        if isinstance(self._store, FileStore):
            self._store.open()
        if self.mailer is None:
            self._log.error("[Alerting] NO MAILER IS CONFIGURED: alerts are found, but nobody can be told of them")
        subscribe = self._events.subscribe
        self._unsubscribe = [
            subscribe(OnlineSet, self._online_set),
            subscribe(SumStateSet, self._sum_state_set),
            subscribe(MetadataInitialized, lambda event: self._initialized()),
        ]
        if self.offline is not None:
            self.scheduler.add("alerting_offline", self.offline.tick)
        if self.sum_state is not None:
            self.scheduler.add("alerting_sumstate", self.sum_state.deliver)
        if self._metadata.initialized:
            self._initialized()
        self.scheduler.start()

    async def stop(self) -> None:
        """Nothing counts any more: that all edges go now says nothing about them. What is pending is on disk."""
        if self._stopping:
            return
        self._stopping = True
        self._log.info("[Alerting] Deactivate")
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []
        self._plans.stop()
        self.scheduler.stop()
        await self._store.flush()

    def _initialized(self) -> None:
        if self._stopping:
            return
        if not self._ready:
            self._ready = True
            self._restore()
        if self.offline is not None:
            self.offline.wait(self._now(), self._initial_delay)

    def _restore(self) -> None:
        restored = 0
        for edge_id, kept in self._store.pending_alerts().items():
            edge = self._metadata.get_edge(edge_id)
            if edge is None:
                self._store.keep_pending_alert(edge_id, None)
                continue
            try:
                was = msgspec.json.decode(kept, type=Kept)
            except msgspec.MsgspecError as e:
                self._log.warn("[Alerting] what was kept for {edge_id} is of no use: {e}", edge_id=edge_id, e=str(e))
                continue
            if self.offline is not None and was.offline is not None:
                self.offline.restore(edge, was.offline)
            if self.sum_state is not None and was.sum_state is not None and edge_id not in self.sum_state.rules.entries:
                self.sum_state.restore(edge, was.sum_state)
                if edge.online and self.sum_state.level(edge, self._now()):
                    self._plans.add(edge_id)
            restored += 1
        if restored:
            self._log.info("[Alerting] {n} edges had pending alerts before this start", n=restored)

    def _keep(self, edge_id: str) -> None:
        """Entries of this edge changed: metadata keeps them."""
        outage = None if self.offline is None else self.offline.rules.entries.get(edge_id)
        phase = None if self.sum_state is None else self.sum_state.rules.entries.get(edge_id)
        kept = None
        if outage is not None or phase is not None:
            kept = msgspec.Raw(msgspec.json.encode(Kept(outage, phase)))
        self._store.keep_pending_alert(edge_id, kept)

    # Events

    def _online_set(self, event: OnlineSet) -> None:
        edge = self._metadata.get_edge(event.edge_id)
        # It may have changed again before we hear of it; then another event follows.
        if edge is None or edge.online != event.online:
            return
        now = self._now()
        if event.online:
            if self.offline is not None:
                self.offline.online(edge.id)
            # Back, and as bad as it was: its clocks go on (the event of its level will not come again).
            if self.sum_state is not None and self.sum_state.level(edge, now):
                self._plans.add(edge.id)
            return
        if self.offline is not None:
            self.offline.offline(edge.id, now)
        if self.sum_state is not None:
            self.sum_state.offline(edge.id, now)

    def _sum_state_set(self, event: SumStateSet) -> None:
        edge = self._metadata.get_edge(event.edge_id)
        if self.sum_state is None or edge is None:
            return
        if self.sum_state.level(edge, self._now()):
            self._plans.add(edge.id)

    async def _plan(self, edge_id: str) -> None:
        if self.sum_state is not None:
            await self.sum_state.plan(edge_id, self._now)

    # For mailers that keep mails for a while

    async def is_wanted(self, template_id: str, edge_id: str, login: str, since: int) -> bool | None:
        """Whether a mail handed over earlier still has a reason: the same outage or phase goes on, and its reader
        still wants to be told. None: nobody knows yet, after a start the edge has time to connect. Where nobody can
        say, it has."""
        handler = {OFFLINE: self.offline, SUM_STATE: self.sum_state}.get(template_id)
        if handler is None or not self._ready or self._stopping:
            return True
        if not handler.goes_on(edge_id, since):
            return False
        edge = self._metadata.get_edge(edge_id)
        if self.offline is not None and self.offline.scan_at is not None and not edge.online:
            return None
        settings = await handler.settings(edge_id)
        return True if settings is None else handler.wanted(edge_id, since, settings, login)

    def delivered(self, template_id: str, edge_id: str, login: str, sent_at: int) -> None:
        """A mail server took the mail."""
        handler = {OFFLINE: self.offline, SUM_STATE: self.sum_state}.get(template_id)
        if handler is not None:
            handler.stamp(edge_id, login, sent_at)

    # What it does

    def health(self) -> list[str]:
        problems = [] if self.mailer is not None else ["no mailer is configured: nobody is told of alerts"]
        if isinstance(self._store, FileStore) and self._store.problem is not None:
            problems.append(self._store.problem)
        return problems

    def debug_log(self) -> str:
        waiting = len(self._plans)
        crowded = f"{waiting} tasks in the EventHandlerQueue! " if waiting >= CROWDED else ""
        return f"[Alerting] {crowded}" + ", ".join(handler.debug_log() for handler in self.handlers)

    def debug_metrics(self) -> Mapping[str, int | float]:
        metrics: dict[str, int | float] = {
            "alerting0/PoolSize": 1,
            "alerting0/MaxPoolSize": 1,
            "alerting0/Active": int(self._plans.active or self.scheduler.busy > 0),
            "alerting0/Pending": len(self._plans),
            "alerting0/Completed": self._plans.done,
            "alerting0/HasMailer": int(self.mailer is not None),
            "alerting0/TickFailures": self.scheduler.failures,
        }
        now = self._now()
        for handler in self.handlers:
            metrics.update(handler.debug_metrics(now))
        return metrics
