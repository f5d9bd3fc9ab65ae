"""The neighbours of a bundle, in memory: they remember what they were told and answer what they were given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from zope.interface import implementer

from openems.backend.events import EdgesChanged, EventBus
from openems.backend.interfaces import IEdgeManager, ITimedata, IUiWebsocket
from openems.backend.models import Edge, History, User
from openems.common import errors
from openems.common.data import DataNotification, Value
from openems.common.edgeconfig import EMPTY_CONFIG
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Notification, Request, loads
from openems.common.resolution import Resolution, periods
from openems.common.role import Role


class FakeMetadata:
    """Edges by key. ``roles``: edge -> role of every user; ``configs``: edge -> stored configuration.

    >>> metadata = FakeMetadata(EventBus(), {"key0": "edge0"})
    >>> metadata.edge_id_for_apikey("key0")
    'edge0'
    """

    def __init__(self, events: EventBus, keys: Mapping[str, str]) -> None:
        self.initialized = True
        self.keys = dict(keys)
        self.roles: dict[str, Role | None] = {}
        self.configs: dict[str, Raw] = {}
        self.audit: list[tuple[str, str, str, dict[str, str]]] = []
        self._events = events
        self._edges = {edge_id: Edge(edge_id, events) for edge_id in keys.values()}

    def set_keys(self, keys: Mapping[str, str]) -> None:
        """Other edges and keys from now on."""
        self.keys = dict(keys)
        self._edges = {edge_id: self._edges.get(edge_id) or Edge(edge_id, self._events) for edge_id in keys.values()}
        self._events.publish(EdgesChanged())

    def get_edge(self, edge_id: str) -> Edge | None:
        return self._edges.get(edge_id)

    def edges(self) -> Sequence[Edge]:
        return list(self._edges.values())

    def edge_id_for_apikey(self, apikey: str) -> str | None:
        return self.keys.get(apikey)

    def apikeys_to_edge_ids(self) -> Mapping[str, str]:
        return dict(self.keys)

    def edge_id_for_setup_password(self, setup_password: str) -> str | None:
        """The setup password of ``edge0`` is ``setup-edge0``."""
        edge_id = setup_password.removeprefix("setup-")
        return edge_id if edge_id != setup_password and edge_id in self._edges else None

    def get_user_role(self, user: User, edge_id: str) -> Role | None:
        return self.roles.get(edge_id)

    async def get_edge_config(self, edge_id: str) -> Raw:
        return self.configs.get(edge_id, EMPTY_CONFIG)

    def log_generic_system_log(self, edge_id: str, user: User, teaser: str, values: dict[str, str]) -> None:
        self.audit.append((edge_id, user.id, teaser, values))


@implementer(IUiWebsocket)
class FakeUi:
    """``sessions``: those that are there."""

    def __init__(self) -> None:
        self.sessions: set[str] = set()
        self.sent: list[tuple[str, str, Notification]] = []
        self.broadcasts: list[tuple[str, Notification]] = []
        self.new_values: list[str] = []

    def send(self, session_id: str, edge_id: str, notification: Notification) -> bool:
        if session_id not in self.sessions:
            return False
        self.sent.append((session_id, edge_id, notification))
        return True

    def send_broadcast(self, edge_id: str, notification: Notification) -> None:
        self.broadcasts.append((edge_id, notification))

    def send_subscribed_channels(self, edge_id: str) -> None:
        self.new_values.append(edge_id)


@implementer(IEdgeManager)
class FakeEdgeManager:
    """``connected``: edges that are there; ``answer``: what they answer, an exception is raised."""

    def __init__(self) -> None:
        self.connected: set[str] = set()
        self.values: dict[str, Value] = {}
        self.answer: Raw | OpenemsError = Raw(b"{}")
        self.requests: list[tuple[str, User, Role, Request]] = []

    async def send(self, edge_id: str, user: User, role: Role, request: Request) -> Raw:
        if edge_id not in self.connected:
            raise OpenemsError(errors.BACKEND_EDGE_NOT_CONNECTED, edge_id)
        self.requests.append((edge_id, user, role, request))
        if isinstance(self.answer, OpenemsError):
            raise self.answer
        return self.answer

    async def subscribe_system_log(
        self, edge_id: str, user: User, role: Role, session_id: str, request: Request
    ) -> Raw:
        return await self.send(edge_id, user, role, request)

    def unsubscribe_system_logs(self, session_id: str) -> None:
        pass

    def get_channel_values(self, edge_id: str, channels: Sequence[str]) -> dict[str, Value]:
        values = self.values if edge_id in self.connected else {}
        return {channel: values.get(channel) for channel in sorted(channels)}

    def is_connected(self, edge_id: str) -> bool:
        return edge_id in self.connected


@implementer(ITimedata)
class FakeTimedata:
    """History out of a table. ``data``: channel -> (epoch milliseconds -> value); a channel not in it is not answered.

    ``error`` is raised by every question, ``write_error`` by every write; ``delay`` is awaited before each answer.
    """

    def __init__(self, id: str = "timedata0", data: Mapping[str, Mapping[int, Value]] | None = None) -> None:
        self.id = id
        self.data = {channel: dict(column) for channel, column in (data or {}).items()}
        self.error: Exception | None = None
        self.write_error: Exception | None = None
        self.delay: Callable[[], Awaitable[None]] | None = None
        self.asked: list[list[str]] = []
        self.written: list[tuple[str, DataNotification]] = []

    def write(self, edge_id: str, data: DataNotification) -> None:
        if self.write_error is not None:
            raise self.write_error
        self.written.append((edge_id, data))

    async def query_historic_data(
        self, edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str], resolution: Resolution
    ) -> History:
        await self._ask(channels)
        starts = periods(from_date, to_date, resolution).starts
        return History(starts, {c: [self.data[c].get(start) for start in starts] for c in channels if c in self.data})

    async def query_historic_energy_per_period(
        self, edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str], resolution: Resolution
    ) -> History:
        return await self.query_historic_data(edge_id, from_date, to_date, channels, resolution)

    async def query_historic_energy(
        self, edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str]
    ) -> dict[str, Value]:
        await self._ask(channels)
        return {c: next(iter(self.data[c].values()), None) for c in channels if c in self.data}

    async def query_first_value_before(self, edge_id: str, date: datetime, channels: Sequence[str]) -> dict[str, Value]:
        await self._ask(channels)
        end = date.timestamp() * 1000
        return {
            c: next((v for t, v in sorted(self.data[c].items(), reverse=True) if t < end), None)
            for c in channels
            if c in self.data
        }

    async def _ask(self, channels: Sequence[str]) -> None:
        self.asked.append(list(channels))
        if self.delay is not None:
            await self.delay()
        if self.error is not None:
            raise self.error


def now_of(awaitable: Awaitable[Any]) -> Any:
    """The result of a coroutine or Deferred that is through already; its failure is raised.

    Raises AssertionError if it still waits.
    """
    outcome: list[Any] = []
    deferred = awaitable if isinstance(awaitable, Deferred) else Deferred.fromCoroutine(awaitable)  # type: ignore[arg-type]
    deferred.addBoth(outcome.append)
    if not outcome:
        raise AssertionError("still waiting")
    if hasattr(outcome[0], "raiseException"):
        outcome[0].raiseException()
    return outcome[0]


def decoded(value: Any) -> Any:
    """A ``params`` or ``result``, decoded where it is still text."""
    return loads(value) if isinstance(value, Raw) else value
