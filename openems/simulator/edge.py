"""One simulated edge: what it sends and when (edge.md 4)."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall, deferLater

from openems.common import jsonrpc
from openems.common.data import Row, Value
from openems.common.errors import OpenemsError, generic
from openems.common.jsonrpc import Notification, Request, raw
from openems.simulator import requests
from openems.simulator.aggregation import Window
from openems.simulator.configuration import VERSION, Configuration
from openems.simulator.energyflow import Household
from openems.simulator.resend import Unsent
from openems.websocket.peer import Connection

#: Seconds after which everything is sent again.
FULL = 300
AGGREGATION = 300_000
#: Seconds that aggregated values wait at most, drawn once.
AGGREGATION_DELAY = 269
#: Seconds between a connect and the run that sends again what was not sent.
RESEND_WAIT = (300.0, 3900.0)
#: Milliseconds a value set by a user is held.
HOLD = 60_000
#: Rows in one message of back-filled history, a day; messages a cycle.
BACKFILL_ROWS, BACKFILL_MESSAGES = 288, 4
LOG_INTERVAL = 5_000
#: Configurations of the first start: incomplete ones first, within two seconds (reality.md R5).
BURST, BURST_SECONDS = 13, 2.0
#: Seconds after the first connect, what the edge asks by itself then (reality.md R8).
QUESTIONS: tuple[tuple[float, str, dict[str, Any]], ...] = (
    (0.9, "getPossibleApps", {"key": "0000-0000-0000-0000"}),
    (180.0, "getInstalledApps", {}),
)


class SimulatedEdge:
    """State outlives connections; :meth:`endpoint` is the factory for each of them. ``now`` gives epoch ms.

    Edges are spread over the cycle by their number. ``backfill_days`` of history are sent after the first connect,
    some days a cycle, beside the live values, whose counters go on where it ends; then ``backfilled`` is called.
    ``slow`` seconds: a link that takes one message in this time and delays answers by it.
    """

    def __init__(
        self,
        number: int,
        *,
        seed: int,
        reactor: Any,
        now: Callable[[], int],
        cycle: float,
        backfill_days: float = 0.0,
        backfilled: Callable[[], None] = lambda: None,
        resend_wait: tuple[float, float] = RESEND_WAIT,
    ) -> None:
        self.configuration = Configuration()
        self.household = Household(seed, number)
        self.connection: Connection | None = None
        self.log_subscribed = False
        self.slow = 0.0
        self._random = random.Random(f"{seed}/{number}/times")
        self._reactor = reactor
        self._now = now
        self._cycle_seconds = cycle
        self._cycle_ms = max(1, round(cycle * 1000))
        self._phase = number * 0.618034 % 1 * cycle
        self._delay = self._random.randint(0, AGGREGATION_DELAY)
        self._resend_wait = resend_wait
        self._resend_due: int | None = None
        self._unsent = Unsent()
        self._unable = False
        self._aggregated: list[tuple[int, int, Row]] = []
        self._backfilled = backfilled
        self._backfill: Iterator[tuple[int, Row]] | None = None
        if backfill_days:
            # A household steps forward only: this one goes through the history now, another sends it bit by bit.
            times = _grid(now(), backfill_days)
            for time in times:
                self.household.step(time)
            past = Household(seed, number)
            self._backfill = ((time, past.step(time)) for time in times)
        self._connects = 0
        self._slow_until = 0
        self._sent: dict[str, Value] = {}
        self._full_due = 0
        self._log_due = 0
        self._window: Window | None = None
        self._last: dict[str, Value] = {}
        self._held: dict[str, tuple[Value, int]] = {}
        self._later: list[IDelayedCall] = []
        self._cycle = LoopingCall(self._run)
        self._cycle.clock = reactor

    def start(self) -> None:
        if self._phase:
            self._call_later(self._phase, self._cycle.start, self._cycle_seconds, False)
        else:
            self._cycle.start(self._cycle_seconds, now=False)

    def stop(self) -> None:
        for call in self._later:
            if call.active():
                call.cancel()
        self._later.clear()
        if self._cycle.running:
            self._cycle.stop()

    def endpoint(self, connection: Connection) -> _Link:
        return _Link(self, connection)

    def _call_later(self, seconds: float, call: Callable[..., Any], *args: Any) -> None:
        self._later = [waiting for waiting in self._later if waiting.active()]
        self._later.append(self._reactor.callLater(seconds, call, *args))

    # --- connection

    def opened(self, connection: Connection) -> None:
        self.connection = connection
        self._connects += 1
        self._full_due = 0
        self._resend_due = self._now() + round(self._random.uniform(*self._resend_wait) * 1000)
        if self._connects > 1:
            self._notify("edgeConfig", self.configuration.json())
            return
        for step in range(1, BURST + 1):
            self._call_later((step - 1) * BURST_SECONDS / BURST, self._burst, connection, step)
        for seconds, method, params in QUESTIONS:
            self._call_later(seconds, self._ask, connection, method, params)

    def closed(self, connection: Connection) -> None:
        if connection is self.connection:
            self.connection = None
            self._unable = True

    def _burst(self, connection: Connection, step: int) -> None:
        if connection is self.connection:
            complete = self.configuration.json()
            missing = (BURST - step) // 2
            components = list(complete["components"].items())
            self._notify("edgeConfig", {**complete, "components": dict(components[missing:])})

    def _ask(self, connection: Connection, method: str, params: dict[str, Any]) -> None:
        if connection is self.connection:
            payload = {"jsonrpc": "2.0", "method": method, "params": params, "id": jsonrpc.new_id()}
            connection.request("appCenter", {"payload": payload}).addErrback(lambda f: f.trap(OpenemsError) and None)

    # --- each cycle

    def _run(self) -> None:
        now = self._now()
        if self._backfill is not None and self.connection is not None:
            self._send_history(self._backfill)
        time = now - now % self._cycle_ms
        values = self._measure(time, now)
        self._last = values
        self._aggregate(time, values, now)
        self._log_line(now)
        if self.connection is None:
            return
        self._resend(now)
        if now < self._slow_until:
            return
        self._slow_until = now + round(self.slow * 1000)
        if now >= self._full_due:
            self._full_due = now + (FULL + 1) * 1000
            changed = values
        else:
            sent = self._sent
            changed = {a: v for a, v in values.items() if sent.get(a, _NOT_SENT) != v}
        if self._notify("timestampedData", {str(time): dict(sorted(changed.items()))} if changed else {}):
            self._sent = values

    def _measure(self, time: int, now: int) -> dict[str, Value]:
        values = self.household.step(time)
        values["_meta/Version"] = VERSION
        if self._unable:
            # A fault outside matters more than a warning about the link.
            values["ctrlBackend0/UnableToSend"] = 1
            values["ctrlBackend0/State"] = 2
            values["_sum/State"] = max(2, int(values["_sum/State"] or 0))
        for address, (value, until) in tuple(self._held.items()):
            if now > until:
                del self._held[address]
            else:
                values[address] = value
        return values

    def _aggregate(self, time: int, values: dict[str, Value], now: int) -> None:
        """Windows go on while nobody listens; the one the edge started in is sent although partial."""
        start = time - time % AGGREGATION
        window = self._window
        if window is None or window.start != start:
            if window is not None:
                row = window.result()
                self._unsent.add(window.start, row, self._unable)
                self._aggregated.append((now + self._delay * 1000, window.start, row))
            window = self._window = Window(start)
        window.add(values)
        while self._aggregated and now >= self._aggregated[0][0]:
            _, begin, row = self._aggregated.pop(0)
            self._unable = not self._notify("aggregatedData", {str(begin): row})

    def _resend(self, now: int) -> None:
        if self._resend_due is None or now < self._resend_due:
            return
        self._resend_due = None
        if all(
            self._notify("resendData", {str(time): row for time, row in part.items()}) for part in self._unsent.parts()
        ):
            self._unsent.clear()

    def _send_history(self, rows: Iterator[tuple[int, Row]]) -> None:
        for _ in range(BACKFILL_MESSAGES):
            part = dict(islice(rows, BACKFILL_ROWS))
            if not part:
                self._backfill = None
                self._backfilled()
                return
            self._notify("resendData", {str(time): row for time, row in part.items()})

    # --- system log

    def _log_line(self, now: int) -> None:
        if not self.log_subscribed or now < self._log_due:
            return
        self._log_due = now + LOG_INTERVAL
        at = datetime.datetime.fromtimestamp(now / 1000, datetime.UTC)
        soc, grid = self._last.get("_sum/EssSoc"), self._last.get("_sum/GridActivePower")
        # A line nobody hears ends the subscription.
        self.log_subscribed = self._notify(
            "systemLog",
            {
                "line": {
                    "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                    "level": "INFO",
                    "source": "io.openems.edge.controller.debuglog.ControllerDebugLogImpl",
                    "message": f"[ctrlDebugLog0] _sum[State:Ok Ess SoC:{soc} % Grid:{grid} W]",
                }
            },
        )

    def _notify(self, method: str, params: Any) -> bool:
        return self.connection is not None and self.connection.notify(Notification(method, raw(params)))

    # --- what requests do

    async def answer(self, request: Request) -> Any:
        if self.slow:
            await deferLater(self._reactor, self.slow)
        return jsonrpc.raw(requests.answer(self, request))

    def channels(self, component_id: str) -> list[str]:
        """Names of the channels of a component, ascending."""
        prefix = component_id + "/"
        return sorted(address[len(prefix) :] for address in self._last if address.startswith(prefix))

    def must_have_channel(self, component_id: str, channel_id: str) -> None:
        """Code 1 as an edge words it."""
        if component_id not in self.configuration:
            raise generic(f"Component with id '{component_id}' was not found")
        if f"{component_id}/{channel_id}" not in self._last:
            implementation = self.configuration.factory(component_id)
            raise generic(
                f"Channel [{channel_id}] is not defined for ID [{component_id}]. Implementation [{implementation}]"
            )

    def set_channel_value(self, component_id: str, channel_id: str, value: Value) -> None:
        self.must_have_channel(component_id, channel_id)
        self._held[f"{component_id}/{channel_id}"] = (value, self._now() + HOLD)

    def change_configuration(self, change: Callable[..., None], *args: Any) -> None:
        """Applied, told, and followed by a full snapshot."""
        change(*args, self._now())
        self._full_due = 0
        self._notify("edgeConfig", self.configuration.json())


def _grid(end: int, days: float) -> range:
    """Each five minutes of so many days before ``end``."""
    begin = end - round(days * 86_400_000)
    return range(begin - begin % AGGREGATION + AGGREGATION, end, AGGREGATION)


_NOT_SENT = object()


class _Link:
    """IEndpoint of one connection."""

    def __init__(self, edge: SimulatedEdge, connection: Connection) -> None:
        self._edge = edge
        self._connection = connection
        self._answers: set[Deferred[Any]] = set()

    def opened(self) -> None:
        self._edge.opened(self._connection)

    def received(self, text: bytes) -> bool:
        return False

    def request(self, request: Request) -> Deferred[Any]:
        answer = Deferred.fromCoroutine(self._edge.answer(request))
        if not answer.called:
            self._answers.add(answer)
            answer.addBoth(self._answered, answer)
        return answer

    def _answered(self, result: Any, answer: Deferred[Any]) -> Any:
        self._answers.discard(answer)
        return result

    def notification(self, notification: Notification) -> None:
        """A real edge ignores every notification."""

    def closed(self) -> None:
        self._edge.closed(self._connection)
        for answer in tuple(self._answers):
            answer.cancel()
