"""An edge manager with its neighbours in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from openems.backend.edge.application import ApplicationEndpoint
from openems.backend.edge.direct import DirectEndpoint
from openems.backend.edge.keptvalues import KeptValues
from openems.backend.edge.manager import EdgeManager
from openems.backend.events import ConfigReceived, EventBus, LastmessageSet, OnlineSet, SumStateSet, VersionSet
from openems.backend.models import User
from openems.common.jsonrpc import Request, new_id, raw
from openems.common.role import Language
from openems.testing.connections import FakeConnection
from openems.testing.services import FakeMetadata, FakeTimedata, FakeUi

#: 2026-04-05T10:00:00Z
START = 1_775_383_200_000
USER = User(id="user0", user_id="7", name="", language=Language.DE)


class World:
    def __init__(self, keys: dict[str, str] | None = None, kept: KeptValues | None = None) -> None:
        self.clock = Clock()
        self.events = EventBus()
        self.seen: list[Any] = []
        for kind in (OnlineSet, LastmessageSet, SumStateSet, VersionSet, ConfigReceived):
            self.events.subscribe(kind, self.seen.append)
        if keys is None:
            keys = {"key0": "edge0", "key1": "edge1"}
        self.metadata = FakeMetadata(self.events, keys)
        self.timedata = FakeTimedata()
        self.ui = FakeUi()
        self.manager = EdgeManager(
            self.metadata, self.timedata, self.events, reactor=self.clock, now=self.now, ui=self.ui, kept=kept
        )

    def now(self) -> int:
        return START + int(self.clock.seconds() * 1000)

    def direct(self, apikey: str = "key0", **headers: str) -> FakeConnection:
        connection = FakeConnection({"apikey": apikey, **headers}, self.clock)
        connection.open(DirectEndpoint(connection, self.manager))
        return connection

    def application(self, application_id: str = "edges0") -> FakeConnection:
        connection = FakeConnection({"id": application_id}, self.clock)
        connection.open(ApplicationEndpoint(connection, self.manager))
        return connection

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kind)]

    def online(self, edge_id: str = "edge0") -> bool:
        edge = self.metadata.get_edge(edge_id)
        assert edge is not None
        return edge.online


def notification(method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def data(row: Any, time: Any = START, method: str = "timestampedData") -> dict[str, Any]:
    return notification(method, {str(time): row})


def edge_rpc(edge_id: str, payload: Any) -> dict[str, Any]:
    return notification("edgeRpc", {"edgeId": edge_id, "payload": payload})


def connected(*edge_ids: str, metrics: dict[str, Any] | None = None) -> dict[str, Any]:
    return notification("connectedEdges", {"edgeIds": list(edge_ids), "metrics": metrics or {}})


def request(method: str, params: Any = None, timeout: int | None = None) -> Request:
    return Request(method, raw(params or {}), new_id(), timeout)


def envelope(result: Any) -> dict[str, Any]:
    """How an edge answers ``authenticatedRpc``."""
    return {"payload": {"jsonrpc": "2.0", "id": new_id(), "result": result}}
