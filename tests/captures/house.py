"""A whole backend in memory, with dummy metadata as the recorded programs had, and recordings to speak to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from twisted.internet.defer import succeed
from twisted.internet.task import Clock

from openems.backend.core.jsonrpcrequesthandler import JsonRpcRequestHandler
from openems.backend.core.timedatamanager import TimedataManager
from openems.backend.edge.direct import DirectEndpoint
from openems.backend.edge.manager import EdgeManager
from openems.backend.events import ConfigReceived, EventBus
from openems.backend.metadata.appcenter import AppCenterMetadata
from openems.backend.metadata.dummy import DummyLogins, DummyMetadata
from openems.backend.models import History
from openems.backend.ui.server import UiWebsocket
from openems.common.data import DataNotification
from openems.common.resolution import periods
from openems.testing.connections import FakeConnection

#: A little after the last recorded frame, epoch milliseconds.
NOW = 1_795_600_000_000


class Timedata:
    """Has a number for everything."""

    id = "timedata0"

    def __init__(self) -> None:
        self.written: list[tuple[str, DataNotification]] = []

    def write(self, edge_id: str, data: DataNotification) -> None:
        self.written.append((edge_id, data))

    async def query_historic_data(
        self, edge_id: str, start: datetime, end: datetime, channels: Sequence[str], resolution: Any
    ) -> History:
        grid = periods(start, end, resolution)
        return History(grid.starts, {channel: [1.5] * len(grid) for channel in channels})

    query_historic_energy_per_period = query_historic_data

    async def query_historic_energy(
        self, edge_id: str, start: datetime, end: datetime, channels: Sequence[str]
    ) -> dict[str, Any]:
        return dict.fromkeys(channels, 100)


class House:
    """The backend in memory."""

    def __init__(self, start: int = NOW, provider: Any = None) -> None:
        self.start = start
        self.clock = Clock()
        self.events = EventBus()
        self.configs: list[ConfigReceived] = []
        self.events.subscribe(ConfigReceived, self.configs.append)
        self.metadata = DummyMetadata(self.events, reactor=self.clock, delay=0)
        jsonrpc_start = self.metadata.start()
        if jsonrpc_start is not None:
            _run(jsonrpc_start)
        self.clock.advance(1)
        self.provider = provider or Timedata()
        timedata = TimedataManager([self.provider])
        app_center = AppCenterMetadata()
        self.manager = EdgeManager(
            self.metadata, timedata, self.events, reactor=self.clock, now=self.now, app_center=app_center
        )
        handler = JsonRpcRequestHandler(
            self.metadata,
            self.manager,
            timedata,
            reactor=self.clock,
            now=self.now,
            app_center=app_center,
            in_thread=lambda function, *arguments: succeed(function(*arguments)),
        )
        self.ui = UiWebsocket(
            self.metadata, self.manager, handler, reactor=self.clock, password=DummyLogins(self.metadata)
        )
        self.manager.ui = self.ui

    def now(self) -> int:
        return self.start + int(self.clock.seconds() * 1000)

    def edge(self, apikey: str = "edge0") -> FakeConnection:
        connection = FakeConnection({"apikey": apikey}, self.clock)
        connection.open(DirectEndpoint(connection, self.manager))
        return connection

    def tab(self) -> FakeConnection:
        connection = FakeConnection({}, self.clock)
        connection.open(self.ui.endpoint(connection))
        return connection


def _run(coroutine: Any) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("would wait")
