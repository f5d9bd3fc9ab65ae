"""One simulated edge: what it sends, when, and how it answers (edge.md 4)."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from twisted.internet.task import LoopingCall

from openems.common import errors, jsonrpc
from openems.common.data import Value
from openems.common.errors import OpenemsError, generic
from openems.common.jsonrpc import Members, Notification, Request, raw
from openems.common.role import Role
from openems.simulator.aggregation import Window
from openems.simulator.configuration import VERSION, Configuration
from openems.simulator.energyflow import Household
from openems.websocket.peer import Connection

#: Seconds after which everything is sent again.
FULL = 300
AGGREGATION = 300_000
#: Milliseconds a value set by a user is held.
HOLD = 60_000
#: Timestamps in one resendData message.
RESEND_ROWS = 288
#: Rows kept while away: a month and a little more.
MAX_AWAY = 10_000
LOG_INTERVAL = 5.0

_ROLES = {
    "updateComponentConfig": Role.OWNER,
    "createComponentConfig": Role.INSTALLER,
    "deleteComponentConfig": Role.INSTALLER,
    "setChannelValue": Role.ADMIN,
}


class SimulatedEdge:
    """State outlives connections; :meth:`endpoint` is the factory for each of them. ``now`` gives epoch ms."""

    def __init__(
        self, number: int, *, seed: int, reactor: Any, now: Callable[[], int], cycle: float, backfill_days: float
    ) -> None:
        self.number = number
        self.configuration = Configuration()
        self.household = Household(seed, number)
        self.connection: Connection | None = None
        self._reactor = reactor
        self._now = now
        self._cycle_ms = max(1, round(cycle * 1000))
        self._sent: dict[str, Value] = {}
        self._full_due = 0
        self._window: Window | None = None
        self._last: dict[str, Value] = {}
        self._held: dict[str, tuple[Value, int]] = {}
        self._log_subscribed = False
        #: Time -> row of what was not sent. The household steps forward only: its counters know no way back.
        self._away: dict[int, dict[str, Value]] = {}
        end = now()
        begin = end - round(backfill_days * 86_400_000)
        for time in range(begin - begin % AGGREGATION + AGGREGATION, end, AGGREGATION):
            self._away[time] = self.household.step(time)
        self._cycle = LoopingCall(self._run)
        self._cycle.clock = reactor
        self._cycle_seconds = cycle
        self._log = LoopingCall(self._log_line)
        self._log.clock = reactor

    def start(self) -> None:
        self._cycle.start(self._cycle_seconds, now=False)
        self._log.start(LOG_INTERVAL, now=False)

    def stop(self) -> None:
        for loop in (self._cycle, self._log):
            if loop.running:
                loop.stop()

    def endpoint(self, connection: Connection) -> _Link:
        return _Link(self, connection)

    # --- connection

    def opened(self, connection: Connection) -> None:
        self.connection = connection
        self._notify("edgeConfig", self.configuration.json())
        self._full_due = 0
        kept, self._away = list(self._away.items()), {}
        for first in range(0, len(kept), RESEND_ROWS):
            self._notify("resendData", {str(time): row for time, row in kept[first : first + RESEND_ROWS]})

    def closed(self, connection: Connection) -> None:
        if connection is self.connection:
            self.connection = None

    def _keep(self, time: int, values: dict[str, Value]) -> None:
        """What happens while nobody listens, in steps of five minutes, for as long as a real edge would keep it."""
        if time % AGGREGATION < self._cycle_ms:
            self._away[time - time % AGGREGATION] = values
            if len(self._away) > MAX_AWAY:
                del self._away[next(iter(self._away))]

    # --- each cycle

    def _run(self) -> None:
        now = self._now()
        time = now - now % self._cycle_ms
        values = self.household.step(time)
        values["_meta/Version"] = VERSION
        for address, (value, until) in tuple(self._held.items()):
            if now > until:
                del self._held[address]
            else:
                values[address] = value
        self._last = values
        if self.connection is None:
            self._keep(time, values)
            self._window = None
            return
        self._aggregate(time, values)
        if now >= self._full_due:
            self._full_due = now + (FULL + 1) * 1000
            changed = values
        else:
            sent = self._sent
            changed = {a: v for a, v in values.items() if sent.get(a, _NOT_SENT) != v}
        if self._notify("timestampedData", {str(time): dict(sorted(changed.items()))} if changed else {}):
            self._sent = values

    def _aggregate(self, time: int, values: dict[str, Value]) -> None:
        start = time - time % AGGREGATION
        window = self._window
        if window is None or window.start != start:
            if window is not None:
                self._notify("aggregatedData", {str(window.start): window.result()})
            window = self._window = Window(start)
        window.add(values)

    def _log_line(self) -> None:
        if not self._log_subscribed:
            return
        now = datetime.datetime.fromtimestamp(self._now() / 1000, datetime.UTC)
        soc, grid = self._last.get("_sum/EssSoc"), self._last.get("_sum/GridActivePower")
        self._notify(
            "systemLog",
            {
                "line": {
                    "time": now.isoformat(timespec="milliseconds"),
                    "level": "INFO",
                    "source": "io.openems.edge.controller.debuglog.ControllerDebugLogImpl",
                    "message": f"[ctrlDebugLog0] _sum[State:Ok Ess SoC:{soc} % Grid:{grid} W]",
                }
            },
        )

    def _notify(self, method: str, params: Any) -> bool:
        return self.connection is not None and self.connection.notify(Notification(method, raw(params)))

    # --- requests

    def answer(self, request: Request) -> Any:
        """The ``result`` of a request of the backend."""
        if request.method != "authenticatedRpc":
            raise generic(f'Endpoint with method "{request.method}" is not defined!')
        try:
            members = request.members()
            user = Members(members.object("user"))
            name = f"{user.string('id')}: {user.string('name')}"
            role = Role.parse(user.string("role"))
            inner = members.request()
        except OpenemsError:
            raise generic("No response") from None
        return {"payload": self._success(*self._dispatch(inner, name, role))}

    def _dispatch(self, inner: Request, user: str, role: Role) -> tuple[str, Any]:
        """The id and result of the innermost request that was handled."""
        required = _ROLES.get(inner.method, Role.GUEST)
        if not role.is_at_least(required):
            raise OpenemsError(errors.COMMON_ROLE_ACCESS_DENIED, inner.method, role.name)
        members = inner.members()
        if inner.method == "getEdgeConfig":
            return inner.id, self.configuration.json()
        if inner.method == "subscribeSystemLog":
            self._log_subscribed = members.boolean("subscribe")
            return inner.id, {"payload": self._success(inner.id, {})}
        if inner.method == "componentJsonApi":
            nested = members.request(id_optional=True)
            return nested.id, self._component(members.string("componentId"), nested)
        if inner.method == "setChannelValue":
            address = f"{members.string('componentId')}/{members.string('channelId')}"
            self._held[address] = (members.any("value"), self._now() + HOLD)
            return inner.id, {}
        if inner.method == "updateComponentConfig":
            self.configuration.update(members.string("componentId"), members.array("properties"), user, self._now())
        elif inner.method == "createComponentConfig":
            self.configuration.create(members.string("factoryPid"), members.array("properties"), user, self._now())
        elif inner.method == "deleteComponentConfig":
            self.configuration.delete(members.string("componentId"))
        else:
            raise generic(f'Endpoint with method "{inner.method}" is not defined!')
        self._full_due = 0
        self._notify("edgeConfig", self.configuration.json())
        return inner.id, {}

    def _component(self, component_id: str, request: Request) -> Any:
        if component_id not in self.configuration:
            raise generic(f"Component with id '{component_id}' was not found")
        if component_id == "_componentManager" and request.method == "getEdgeConfig":
            return self.configuration.json()
        if component_id == "_componentManager" and request.method in (
            "getChannelsOfComponent",
            "getStateChannelsOfComponent",
        ):
            wanted = request.members().string("componentId") + "/"
            return {
                "channels": [
                    {
                        "id": address[len(wanted) :],
                        "accessMode": "RO",
                        "persistencePriority": "HIGH",
                        "text": "",
                        "type": "INTEGER",
                        "unit": "",
                        "category": "OPENEMS_TYPE",
                    }
                    for address in sorted(self._last)
                    if address.startswith(wanted)
                ]
            }
        if component_id == "_host" and request.method == "getSystemUpdateState":
            return {"unknown": {}}
        if component_id == "_appManager" and request.method in ("getApps", "getAppInstances"):
            return {"apps" if request.method == "getApps" else "instances": []}
        raise generic(f'Endpoint with method "{request.method}" is not defined!')

    @staticmethod
    def _success(request_id: str, result: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": request_id, "result": result}


_NOT_SENT = object()


class _Link:
    """IEndpoint of one connection."""

    def __init__(self, edge: SimulatedEdge, connection: Connection) -> None:
        self._edge = edge
        self._connection = connection

    def opened(self) -> None:
        self._edge.opened(self._connection)

    def received(self, text: bytes) -> bool:
        return False

    async def request(self, request: Request) -> Any:
        return jsonrpc.raw(self._edge.answer(request))

    def notification(self, notification: Notification) -> None:
        """A real edge ignores every notification."""

    def closed(self) -> None:
        self._edge.closed(self._connection)
