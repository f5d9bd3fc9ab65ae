"""Alerting with everything round it in memory, and a clock that ticks when told: ``t`` is minutes since activation."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from openems.backend.alerting.rules import MINUTE, MassGuard
from openems.backend.alerting.service import AlertingService
from openems.backend.events import EventBus, MetadataInitialized
from openems.backend.interfaces import IAlertingStore, IMailer
from openems.backend.models import Edge, MailContext, UserAlertingSettings
from openems.common.errors import generic
from openems.common.role import Level

#: 2026-04-20T10:00:30Z
START = 1_776_679_230_000
#: The full minute of START.
TOP = START - START % MINUTE
DAY = 1440 * MINUTE


def user(login: str, offline: int = 0, *, fault: int = 0, warning: int = 0, last: int | None = None,
         last_sum: int | None = None) -> UserAlertingSettings:  # fmt: skip
    return UserAlertingSettings(
        edge_id="", user_login=login, offline_delay=offline, fault_delay=fault, warning_delay=warning,
        last_offline=last, last_sum_state=last_sum,
    )  # fmt: skip


class Metadata:
    def __init__(self, events: EventBus) -> None:
        self.initialized = True
        self.known: dict[str, Edge] = {}
        self.users: dict[str, list[UserAlertingSettings]] = {}
        self.asked = 0
        self.broken = False
        #: Answers wait for it.
        self.gate: Deferred[None] | None = None
        self._events = events

    def edges(self) -> Sequence[Edge]:
        return list(self.known.values())

    def get_edge(self, edge_id: str) -> Edge | None:
        return self.known.get(edge_id)

    async def get_user_alerting_settings(self, edge_id: str) -> list[UserAlertingSettings]:
        self.asked += 1
        if self.gate is not None:
            waiting: Deferred[None] = Deferred()
            self.gate.addCallback(lambda _: waiting.callback(None))
            await waiting
        if self.broken:
            raise generic("the database is away")
        return list(self.users.get(edge_id, ()))


@implementer(IMailer)
class Mailer:
    def __init__(self) -> None:
        self.calls: list[tuple[int, str, list[MailContext]]] = []
        #: What a call raises, by template.
        self.broken: dict[str, Exception] = {}
        self.gate: Deferred[None] | None = None

    async def send_mail(self, send_at: int, template_id: str, contexts: Sequence[Any]) -> int:
        self.calls.append((send_at, template_id, copy.deepcopy([dict(c) for c in contexts])))  # type: ignore[misc]
        if self.gate is not None:
            await self.gate
        if template_id in self.broken:
            raise self.broken[template_id]
        return len(contexts)


@implementer(IAlertingStore)
class Store:
    """Survives :meth:`World.restart`. Stamps go where the settings come from."""

    def __init__(self) -> None:
        self.pending: dict[str, Raw] = {}
        self.stamps: dict[tuple[str, str, str], int] = {}
        self.metadata: Metadata | None = None

    def pending_alerts(self) -> Mapping[str, Raw]:
        return dict(self.pending)

    def keep_pending_alert(self, edge_id: str, pending: Raw | None) -> None:
        if pending is None:
            self.pending.pop(edge_id, None)
        else:
            self.pending[edge_id] = pending

    def set_last_notification(
        self, edge_id: str, user_login: str, *, offline: int | None = None, sum_state: int | None = None
    ) -> None:
        key = (edge_id, user_login, "offline" if sum_state is None else "sum")
        stamp = self.stamps[key] = max(offline or sum_state or 0, self.stamps.get(key, 0))
        if self.metadata is not None:
            from msgspec.structs import replace

            changed = {"last_offline": stamp} if sum_state is None else {"last_sum_state": stamp}
            self.metadata.users[edge_id] = [
                replace(s, **changed) if s.user_login == user_login else s for s in self.metadata.users[edge_id]
            ]

    async def flush(self) -> None:
        pass


class World:
    def __init__(self, *, start: int = START, **options: Any) -> None:
        self.begin = start
        self.events = EventBus()
        self.clock = Clock()
        self.metadata = Metadata(self.events)
        self.mailer: Any = Mailer()
        self.store = Store()
        self.store.metadata = self.metadata
        self.options = options
        self.mass: list[tuple[int, int, int]] = []
        self.minutes = 0
        self.service = self._service()

    def _service(self) -> AlertingService:
        return AlertingService(
            self.metadata, self.mailer, self.store, self.events, reactor=self.clock, now=self.now,
            on_mass_outage=lambda *told: self.mass.append(told), monotonic=lambda: 0.0,
            **{"guard": MassGuard(minimum=0), **self.options},
        )  # fmt: skip

    def now(self) -> int:
        return self.begin + round(self.clock.seconds() * 1000)

    @property
    def minute(self) -> int:
        return self.now() - self.now() % MINUTE

    def edge(self, edge_id: str, *users: UserAlertingSettings, lastmessage: int | None = None, online: bool = False,
             level: Level | None = None) -> Edge:  # fmt: skip
        edge = Edge(edge_id, self.events, lastmessage=lastmessage, sum_state=level)
        edge.online = online
        self.metadata.known[edge_id] = edge
        self.metadata.users[edge_id] = list(users)
        return edge

    def start(self) -> World:
        self.service.start()
        return self

    def until(self, t: int) -> None:
        """Tick until minute ``t``."""
        while self.minutes < t:
            self.minutes += 1
            self.clock.advance(60)

    def go_offline(self, *edge_ids: str) -> None:
        for edge_id in edge_ids:
            edge = self.metadata.known[edge_id]
            if edge.online:
                edge.set_lastmessage(self.now())
            edge.set_online(False)

    def go_online(self, *edge_ids: str) -> None:
        for edge_id in edge_ids:
            self.metadata.known[edge_id].set_online(True)
            self.metadata.known[edge_id].set_lastmessage(self.now())

    def level(self, edge_id: str, level: Level) -> None:
        self.metadata.known[edge_id].set_sum_state(level)

    def initialized(self) -> None:
        self.metadata.initialized = True
        self.events.publish(MetadataInitialized())

    def killed(self) -> None:
        """kill -9: nobody could say goodbye. All edges are away then."""
        for unsubscribe in self.service._unsubscribe:
            unsubscribe()
        self.service._unsubscribe = []
        if self.service.scheduler._loop.running:
            self.service.scheduler._loop.stop()
        for edge in self.metadata.known.values():
            edge.online = False

    def restart(self) -> None:
        self.killed()
        self.service = self._service()
        self.service.start()

    # What came of it

    @property
    def queue(self) -> int:
        (handler,) = self.service.handlers
        return handler.rules.queue_size()

    def mails(self, template: str | None = None) -> list[tuple[int, str, tuple[str, ...], str | None]]:
        """(t, edge, logins, state) of each context, in order."""
        return [
            ((sent_at - self.begin) // MINUTE, c["edgeId"], tuple(c["recipients"]), c.get("state"))
            for sent_at, template_id, contexts in self.mailer.calls
            if template in (None, template_id)
            for c in contexts
        ]

    def told(self) -> list[tuple[int, str]]:
        """(t, login), sorted."""
        return sorted((t, login) for t, _, logins, _ in self.mails() for login in logins)
