"""A fleet of simulated edges over real WebSockets, and what may happen to it.

Scenarios: ``steady``; ``outage``, every edge is away for half a minute each five minutes and resends afterwards;
``fault``, each edge is in FAULT for a minute each ten; ``storm``, all edges reconnect at once each five minutes;
``slow``, links that take one message in five seconds and delay answers by as much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.task import LoopingCall

from openems.simulator.edge import RESEND_WAIT, SimulatedEdge
from openems.websocket.client import ReconnectingClient

SCENARIOS = ("steady", "outage", "fault", "storm", "slow")
#: Seconds between two looks at what the scenario wants.
_TICK = 5.0
_SLOW = 5.0


class Fleet:
    """``apikeys``: edge id -> key. ``backfill_days``: history each edge sends before its live data; ``backfilled`` is
    called when all have. ``resend_wait``: seconds between a connect and the resend of what was missed, drawn from this
    span."""

    def __init__(
        self,
        url: str,
        apikeys: Mapping[str, str],
        *,
        reactor: Any,
        now: Callable[[], int],
        scenario: str = "steady",
        cycle: float = 1.0,
        seed: int = 1,
        backfill_days: float = 0.0,
        backfilled: Callable[[], None] = lambda: None,
        min_wait: float = 1.0,
        max_wait: float = 5.0,
        resend_wait: tuple[float, float] = RESEND_WAIT,
    ) -> None:
        if scenario not in SCENARIOS:
            raise ValueError(f"no such scenario: {scenario!r}; there are {', '.join(SCENARIOS)}")
        self._scenario = scenario
        self._ticks = 0
        self._backfilled = backfilled
        self._to_backfill = len(apikeys)
        self.edges: list[SimulatedEdge] = []
        self._clients: list[ReconnectingClient] = []
        for number, (edge_id, apikey) in enumerate(apikeys.items()):
            edge = SimulatedEdge(
                number,
                seed=seed,
                reactor=reactor,
                now=now,
                cycle=cycle,
                backfill_days=backfill_days,
                backfilled=self._one_backfilled,
                resend_wait=resend_wait,
            )
            edge.slow = _SLOW if scenario == "slow" else 0.0
            self.edges.append(edge)
            self._clients.append(
                ReconnectingClient(
                    url,
                    {"apikey": apikey},
                    edge.endpoint,
                    reactor=reactor,
                    min_wait=min_wait,
                    max_wait=max_wait,
                    name=f"Controller.Api.Backend:{edge_id}",
                )
            )
        self._loop = LoopingCall(self._tick)
        self._loop.clock = reactor

    def _one_backfilled(self) -> None:
        self._to_backfill -= 1
        if not self._to_backfill:
            self._backfilled()

    async def start(self) -> None:
        for edge, client in zip(self.edges, self._clients, strict=True):
            edge.start()
            client.start()
        self._loop.start(_TICK, now=False)

    async def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()
        for edge in self.edges:
            edge.stop()
        for client in self._clients:
            await client.stop()

    def _tick(self) -> None:
        self._ticks += 1
        seconds = int(self._ticks * _TICK)
        if self._scenario == "storm" and seconds % 300 == 0:
            for client in self._clients:
                client.reconnect()
        for number, (edge, client) in enumerate(zip(self.edges, self._clients, strict=True)):
            shifted = seconds + number * 35
            if self._scenario == "fault":
                edge.household.fault = shifted % 600 < 60
            elif self._scenario == "outage" and shifted % 300 < _TICK:
                client.reconnect(after=30)
