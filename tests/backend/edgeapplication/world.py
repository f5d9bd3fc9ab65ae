"""An edge application in memory: edges on one side, a manager on the other."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import succeed
from twisted.internet.testing import MemoryReactorClock, _FakePort

from openems.backend.edgeapplication.application import EdgeApplication
from openems.backend.edgeapplication.edge import EdgeEndpoint
from openems.backend.edgeapplication.manager import ManagerEndpoint
from openems.common.jsonrpc import new_id
from openems.testing.connections import FakeConnection

KEYS = {"key0": "edge0", "key1": "edge1"}


class Port(_FakePort):
    def stopListening(self) -> Any:
        return succeed(None)


class Reactor(MemoryReactorClock):
    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Port:
        super().listenTCP(port, factory, backlog, interface)
        return Port(IPv4Address("TCP", "0.0.0.0", port))


class World:
    def __init__(self, keys: dict[str, str] | None = None, *, connect: bool = True, **options: Any) -> None:
        self.reactor = Reactor()
        self.application = EdgeApplication("edges0", "ws://localhost:8083", reactor=self.reactor, port=8081, **options)
        self.manager: FakeConnection | None = None
        if connect:
            self.connect()
            self.keys(KEYS if keys is None else keys)

    def connect(self) -> FakeConnection:
        """The manager is there."""
        self.manager = FakeConnection({}, self.reactor, name="Backend.Edge.Client")
        self.manager.open(ManagerEndpoint(self.manager, self.application))
        return self.manager

    def lose(self) -> None:
        assert self.manager is not None
        self.manager.lose()
        self.manager = None

    def keys(self, keys: dict[str, Any]) -> None:
        assert self.manager is not None
        self.manager.receive(notification("updateMetadataCache", {"apikeysToEdgeIds": keys}))

    def edge(self, apikey: str | None = "key0", *, told: bool = False) -> FakeConnection:
        """One more; the list of edges that goes to the manager by that only if ``told``."""
        if not told:
            self.application._told_at = self.reactor.seconds()
        connection = FakeConnection({} if apikey is None else {"apikey": apikey}, self.reactor)
        connection.open(EdgeEndpoint(connection, self.application))
        return connection

    def up(self) -> list[Any]:
        """What the manager got."""
        assert self.manager is not None
        return self.manager.take()

    @property
    def listening(self) -> bool:
        return self.application.port is not None

    def tick(self) -> None:
        """The loop that tells of the edges."""
        self.application._tell_edges()


def notification(method: str, params: Any, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params, **more}


def request(method: str, params: Any = None, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params or {}, "id": new_id(), **more}


def edge_rpc(edge_id: str, payload: Any, **more: Any) -> dict[str, Any]:
    return notification("edgeRpc", {"edgeId": edge_id, "payload": payload}, **more)


def data(value: Any, time: int = 1_775_383_200_000) -> dict[str, Any]:
    return notification("timestampedData", {str(time): {"c/a": value}})
