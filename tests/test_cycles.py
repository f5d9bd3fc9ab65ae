"""T101: what a message, a refusal, a connection had in hand is freed at once, not by the garbage collector, whose runs
are pauses for everybody."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openems.common.jsonrpc import new_id
from openems.websocket.server import WebSocketServer
from tests.captures.house import House
from tests.faults.attacks import connect, frame

REPEAT = 200


def garbage(function: Callable[[], Any]) -> Counter[str]:
    """Kinds of objects that only the collector would have freed."""
    gc.collect()
    gc.disable()
    flags = gc.get_debug()
    try:
        function()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return Counter(type(thing).__name__ for thing in gc.garbage)
    finally:
        gc.set_debug(flags)
        gc.garbage.clear()
        gc.enable()


class Messages(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()
        self.edge, self.tab = self.house.edge("edge0"), self.house.tab()
        self.tab.receive(
            {"method": "authenticateWithPassword", "params": {"username": "u", "password": "p"}, "id": new_id()}
        )
        self.house.clock.advance(1)

    def ask(self, edge_id: str) -> None:
        payload = {"method": "x", "params": {}, "id": new_id()}
        self.tab.receive({"method": "edgeRpc", "params": {"edgeId": edge_id, "payload": payload}, "id": new_id()})

    def forwarded(self) -> None:
        self.ask("edge0")
        asked = self.edge.take()[-1]
        inner = asked["params"]["payload"]["id"]
        self.edge.receive({"id": asked["id"], "result": {"payload": {"jsonrpc": "2.0", "id": inner, "result": {}}}})
        self.tab.take()

    def refused(self) -> None:
        self.ask("edge9")
        self.tab.take()

    def failed(self) -> None:
        self.ask("edge0")
        asked = self.edge.take()[-1]
        self.edge.receive({"id": asked["id"], "error": {"code": 1, "message": "m"}})
        self.tab.take()

    def data(self) -> None:
        self.edge.receive({"method": "timestampedData", "params": {str(self.house.now()): {"_sum/EssSoc": 1}}})
        self.house.provider.written.clear()

    def test_nothing_is_left(self) -> None:
        for what in (self.forwarded, self.refused, self.failed, self.data):
            what()
            left = garbage(lambda what=what: [what() for _ in range(REPEAT)])  # type: ignore[misc]
            self.assertLess(sum(left.values()), REPEAT, f"{what.__name__}: {left.most_common(5)}")


class Silent:
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def opened(self) -> None: ...

    def received(self, text: bytes) -> bool:
        return True

    def closed(self) -> None: ...


class Connections(TestCase):
    async def test_nothing_is_left(self) -> None:
        server = WebSocketServer("Cycles", Silent, reactor=reactor)
        port = await server.listen(0, "127.0.0.1")
        self.addCleanup(server.stop)

        def come_and_go(count: int) -> None:
            for number in range(count):
                peer = connect(port)
                peer.sendall(frame(b"{}"))
                if number % 2:
                    peer.sendall(frame(b"\x03\xe8", 0x88))
                    peer.recv(100)
                peer.close()

        await deferToThread(come_and_go, 10)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        await deferToThread(come_and_go, REPEAT)
        await deferLater(reactor, 0.2)  # type: ignore[arg-type]
        self.assertLess(gc.collect(), REPEAT)
