"""Requests of users, whichever way they came: UI, REST or WebSocket of other backends (core.md 2, 3)."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.core import appcenter, currentvalues, xlsx
from openems.backend.core.currentvalues import MAX_EDGES, limited
from openems.backend.core.querypool import QueryPool
from openems.backend.events import ConfigReceived, EventBus
from openems.backend.interfaces import IDebugLoggable, IJsonRpcRequestHandler
from openems.backend.models import User
from openems.backend.roles import assert_user_role
from openems.common import errors, jsonrpc
from openems.common.edgeconfig import EMPTY_CONFIG, EdgeConfig
from openems.common.errors import OpenemsError, generic
from openems.common.jsonrpc import Members, Request, Success, new_id, raw
from openems.common.methods import history, names
from openems.common.methods.history import HistoryQuery
from openems.common.resolution import Resolution, Unit
from openems.common.role import Language, Role
from openems.websocket.peer import DEFAULT_TIMEOUT

ID = "coreJsonRpcRequestHandler0"
#: Seconds an edge has to answer when its configuration is not stored.
CONFIG_TIMEOUT = 10
EXPORT_RESOLUTION = Resolution(15, Unit.MINUTES)

_INTERNAL = User(id="internal", user_id="internal", name="Backend", language=Language.EN)


@implementer(IJsonRpcRequestHandler, IDebugLoggable)
class JsonRpcRequestHandler:
    """``app_center``: IAppCenterMetadata or None. ``in_thread(function, *arguments)`` builds spreadsheets; the default
    uses the reactor's own pool."""

    _log = Logger()

    def __init__(
        self,
        metadata: Any,
        edge_manager: Any,
        timedata: Any,
        *,
        reactor: Any,
        now: Callable[[], int],
        app_center: Any = None,
        pool_size: int = 20,
        max_queue_size: int = 1000,
        in_thread: Callable[..., Awaitable[Any]] | None = None,
        events: EventBus | None = None,
        observe: Callable[[str, float, float], None] | None = None,
    ) -> None:
        self._metadata = metadata
        self._edge_manager = edge_manager
        self._timedata = timedata
        self._app_center = app_center
        self._reactor = reactor
        self._now = now
        self._events = events
        self._asked_for_config: set[str] = set()
        self._in_thread = in_thread or partial(self._thread, reactor)
        self.pool = QueryPool(pool_size, max_queue_size, reactor=reactor, observe=observe)

    async def handle_request(self, context: str, user: User, request: Request) -> Any:
        if request.method == "edgeRpc":
            return await self._edge_rpc(user, request)
        if request.method == "getEdgesStatus":
            return self._edges_status(user, request)
        if request.method == "getEdgesChannelsValues":
            return await self._edges_channels_values(user, request)
        if request.method == "setGridConnSchedule":
            return await self._grid_conn_schedule(user, request)
        raise OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, request.method)

    # --- fleet

    def _edges_status(self, user: User, request: Request) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for edge_id in limited(request.members().strings("edgeIds"), MAX_EDGES, "edges"):
            assert_user_role(self._metadata, user, edge_id, Role.GUEST, request.method)
            edge = self._metadata.get_edge(edge_id)
            if edge is not None:
                result[edge_id] = {"online": edge.online}
        return result

    async def _edges_channels_values(self, user: User, request: Request) -> Any:
        edge_ids, channels = currentvalues.asked(request.members())
        for edge_id in edge_ids:
            assert_user_role(self._metadata, user, edge_id, Role.GUEST, request.method)
        return await currentvalues.collect(self._edge_manager.get_channel_values, edge_ids, channels, self._reactor)

    async def _grid_conn_schedule(self, user: User, request: Request) -> Raw:
        """The answer is the whole inner response, as in Java (wire.md 8, 36)."""
        members = request.members()
        edge_id = members.string("id")
        schedule = []
        for element in members.array("schedule"):
            if not isinstance(element, dict):
                raise OpenemsError(errors.JSON_NO_OBJECT, errors.short(errors.json_text(element), 100))
            entry = Members(element)
            schedule.append(
                {
                    "startTimestamp": entry.integer("startTimestamp", bits=64),
                    "duration": entry.integer("duration"),
                    "activePowerSetPoint": entry.integer("activePowerSetPoint"),
                }
            )
        schedule.sort(key=lambda entry: -entry["startTimestamp"])
        role = assert_user_role(self._metadata, user, edge_id, Role.ADMIN, request.method)
        inner = Request(request.method, raw({"id": edge_id, "schedule": schedule}), request.id)
        params = Raw(b'{"componentId":"ctrlBalancingSchedule0","payload":%b}' % inner.encode())
        forwarded = Request("componentJsonApi", params, new_id(), request.timeout)
        result = await self._edge_manager.send(edge_id, user, role, forwarded)
        return Raw(Success(forwarded.id, result).encode())

    # --- edgeRpc

    async def _edge_rpc(self, user: User, request: Request) -> Raw:
        members = request.members()
        edge_id = members.string("edgeId")
        payload = members.request()
        role = assert_user_role(self._metadata, user, edge_id, Role.GUEST, request.method)
        if payload.timeout is None and request.timeout is not None:
            payload = Request(payload.method, payload.params, payload.id, request.timeout)
        result = raw(await self._payload(user, role, edge_id, payload))
        return Raw(b'{"payload":%b}' % Success(payload.id, result).encode())

    async def _payload(self, user: User, role: Role, edge_id: str, payload: Request) -> Any:
        if payload.method in history.METHODS:
            return await self._query(user, edge_id, payload)
        if payload.method == "getEdgeConfig":
            return await self._edge_config(edge_id)
        if payload.method == "appCenter":
            inner = payload.members().request()
            if inner.method in appcenter.OF_OWNERS and not role.is_at_least(Role.OWNER):
                raise OpenemsError(errors.COMMON_ROLE_ACCESS_DENIED, inner.method, role.name)
            if inner.method in names.APP_CENTER:
                return await appcenter.handle_user_request(self._app_center, edge_id, user, inner)
            if inner.method == "installAppWithSuppliedKey":
                return await self._install_app(user, role, edge_id, inner)
        elif payload.method == "componentJsonApi":
            self._audit(user, edge_id, payload)
        return await self._edge_manager.send(edge_id, user, role, payload)

    async def _edge_config(self, edge_id: str) -> Raw:
        """As stored. None at all is asked for at the edge, if that is there (T027). One without ``_sum`` is of the
        middle of a burst and breaks nearly every page of the UI (reality.md R5, R18): it is answered, and the edge
        asked all the same, so that the whole one is pushed."""
        stored: Raw = await self._metadata.get_edge_config(edge_id)
        components = EdgeConfig(stored).components
        if "_sum" in components or not self._edge_manager.is_connected(edge_id):
            return stored
        if not components:
            return await self._config_of_edge(edge_id) or stored or EMPTY_CONFIG
        if edge_id not in self._asked_for_config:
            self._asked_for_config.add(edge_id)
            asked: Deferred[Raw | None] = Deferred.fromCoroutine(self._config_of_edge(edge_id))
            asked.addBoth(lambda _: self._asked_for_config.discard(edge_id))
        return stored

    async def _config_of_edge(self, edge_id: str) -> Raw | None:
        inner = Request("getEdgeConfig", jsonrpc.EMPTY, new_id())
        params = Raw(b'{"componentId":"_componentManager","payload":%b}' % inner.encode())
        request = Request("componentJsonApi", params, new_id(), CONFIG_TIMEOUT)
        try:
            config: Raw = await self._edge_manager.send(edge_id, _INTERNAL, Role.ADMIN, request)
        except OpenemsError as e:
            self._log.info("[{edge}] does not tell its configuration: {reason}", edge=edge_id, reason=e.message)
            return None
        if self._events is not None and EdgeConfig(config).components:
            self._events.publish(ConfigReceived(edge_id, config))
        return config

    async def _install_app(self, user: User, role: Role, edge_id: str, inner: Request) -> Raw:
        """The key is filled in, then the edge installs. Wrapped once, which is what the UI reads (ui.md 19, 35)."""
        install = inner.members().request("installRequest", id_optional=True)
        _expect(install, "componentJsonApi")
        component = install.members()
        add = component.request(id_optional=True)
        _expect(add, "addAppInstance")
        properties = dict(add.members().as_dict())
        if not isinstance(properties.get("key"), str):
            app_id = add.members().string("appId")
            properties["key"] = await appcenter.provider(self._app_center).get_suppliable_key(user, edge_id, app_id)
        with_key = Request(add.method, raw(properties), new_id())
        component_id = jsonrpc.dumps(component.string("componentId"))
        params = Raw(b'{"componentId":%b,"payload":%b}' % (component_id, with_key.encode()))
        forwarded = Request(install.method, params, new_id(), install.timeout)
        result: Raw = await self._edge_manager.send(edge_id, user, role, forwarded)
        return result

    def _audit(self, user: User, edge_id: str, payload: Request) -> None:
        """System commands are recorded before they leave (core.md 3.5)."""
        members = payload.members()
        component_id = members.string("componentId")
        inner = members.request(id_optional=True)
        if component_id != "_host":
            return
        values = inner.members()
        if inner.method == "executeSystemCommand":
            self._metadata.log_generic_system_log(
                edge_id,
                user,
                f"Systemcommand: {values.string('command')}",
                {
                    "Sudo": _flag(values.optional_boolean("sudo")),
                    "Command": values.string("command"),
                    "Username": values.optional_string("username") or "",
                    "Password": "[SET]" if values.optional_string("password") else "[NOT_SET]",
                    "Run in Background": _flag(values.optional_boolean("runInBackground")),
                },
            )
        elif inner.method == "executeSystemUpdate":
            self._metadata.log_generic_system_log(edge_id, user, "Systemupdate", {})
        elif inner.method == "executeSystemRestart":
            kind = values.optional_string("type")
            self._metadata.log_generic_system_log(edge_id, user, "Systemrestart", {"type": kind} if kind else {})

    # --- history

    async def _query(self, user: User, edge_id: str, payload: Request) -> Any:
        query = HistoryQuery.parse(payload.method, payload.members())
        timeout = payload.timeout if payload.timeout is not None and payload.timeout > 0 else DEFAULT_TIMEOUT
        name = _TASKS[query.method]
        if query.method == history.EXPORT:
            language = user.language or Language.DE
            return await self.pool.run(
                user.id, (edge_id, query, language), lambda: self._export(edge_id, query, language), timeout, name
            )
        return await self.pool.run(user.id, (edge_id, query), lambda: self._answer(edge_id, query), timeout, name)

    async def _answer(self, edge_id: str, query: HistoryQuery) -> Raw:
        if query.resolution is None:
            energy = await self._timedata.query_historic_energy(edge_id, query.from_date, query.to_date, query.channels)
            return raw({"data": energy})
        ask = (
            self._timedata.query_historic_data
            if query.method == history.DATA
            else self._timedata.query_historic_energy_per_period
        )
        answer = await ask(edge_id, query.from_date, query.to_date, query.channels, query.resolution)
        return raw(history.table(answer.timestamps, answer.data))

    async def _export(self, edge_id: str, query: HistoryQuery, language: Language) -> dict[str, str]:
        config = EdgeConfig(await self._edge_config(edge_id))
        details = xlsx.details_of(config)
        power = await self._timedata.query_historic_data(
            edge_id,
            query.from_date,
            query.to_date,
            sorted({*xlsx.POWER_CHANNELS, *(item.channel for item in details.items)}),
            EXPORT_RESOLUTION,
        )
        try:
            energy = await self._timedata.query_historic_energy(
                edge_id, query.from_date, query.to_date, sorted(xlsx.ENERGY_CHANNELS)
            )
        except OpenemsError as e:
            # Powers without energies still make a file, with "not available" in those cells.
            self._log.info("[{edge}] export without energies: {reason}", edge=edge_id, reason=e.message)
            energy = {}
        created = datetime.datetime.fromtimestamp(self._now() / 1000, query.from_date.tzinfo)
        workbook = await self._in_thread(
            xlsx.workbook,
            edge_id,
            created,
            query.from_date,
            query.to_date,
            power,
            energy,
            details,
            language,
        )
        return {"payload": base64.b64encode(workbook).decode()}

    @staticmethod
    def _thread(reactor: Any, function: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)

    # --- IDebugLoggable

    def debug_log(self) -> str | None:
        pool = self.pool
        return (
            f"[Core.JsonRpcRequestHandler] [monitor] Timedata-Executor: Pool: {pool.running}/{pool.size}, "
            f"Pending: {pool.queued}, Completed: {pool.completed}, Active: {pool.running}"
            f"{' !!!BACKPRESSURE!!!' if pool.running == pool.size else ''}, "
            f"Active-Tasks: {_named(pool.active)}, Sum-Tasks: {_named(pool.total)}, "
            f"RejectedExecutions:{pool.rejected}"
        )

    def debug_metrics(self) -> Mapping[str, int | float]:
        pool = self.pool
        return {
            f"{ID}/PoolSize": pool.running,
            f"{ID}/MaxPoolSize": pool.size,
            f"{ID}/Active": pool.running,
            f"{ID}/Pending": pool.queued,
            f"{ID}/Completed": pool.completed,
        }


#: The names that queries have in metrics and in the debug line (metrics.md 6.2).
_TASKS = {
    history.DATA: "handleQueryHistoricDataRequest",
    history.ENERGY: "handleQueryHistoricEnergyRequest",
    history.ENERGY_PER_PERIOD: "handleQueryHistoricEnergyPerPeriodRequest",
    history.EXPORT: "handleQueryHistoricTimeseriesExportXlxsRequest",
}


def _named(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}:{count}" for name, count in counts.items() if count)


def _expect(request: Request, method: str) -> None:
    if request.method != method:
        raise generic(f"JSON-RPC Methods to not match: {errors.short(request.method, 100)}, {method}")


def _flag(value: bool | None) -> str:
    return "true" if value else "false"
