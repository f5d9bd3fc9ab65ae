"""What messages and connections leave behind is freed at once (T101)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from openems.common.jsonrpc import new_id
from tests.test_cycles import garbage

from .world import World, data, request

REPEAT = 200


class Garbage(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.edge = self.world.edge()

    def assertNone(self, function: Callable[[], None]) -> None:
        function()

        def often() -> None:
            for _ in range(REPEAT):
                function()

        left = garbage(often)
        # The wire in memory and its connection know each other, with what belongs to them.
        for kind in ("FakeConnection", "_MemoryWire", "dict", "list", "set"):
            left.pop(kind, None)
        self.assertLess(sum(left.values()), REPEAT, left)

    def test_messages(self) -> None:
        def message() -> None:
            self.edge.receive(data(1))
            self.edge.receive('{"jsonrpc":"2.0","method":"x","params":{"a":NaN},"extra":1}')
            self.edge.receive("{")
            self.world.up()

        self.assertNone(message)

    def test_requests_of_the_manager(self) -> None:
        def answered() -> None:
            payload = request("x")
            self.world.manager.receive(request("edgeRpc", {"edgeId": "edge0", "payload": payload}))
            self.edge.receive({"jsonrpc": "2.0", "id": payload["id"], "result": {}})
            self.world.up()
            self.edge.take()

        self.assertNone(answered)

    def test_requests_of_the_edge(self) -> None:
        def answered() -> None:
            self.edge.receive(request("x"))
            [up] = self.world.up()
            payload = {"jsonrpc": "2.0", "id": new_id(), "result": {}}
            self.world.manager.receive({"jsonrpc": "2.0", "id": up["id"], "result": {"payload": payload}})
            self.edge.take()

        self.assertNone(answered)

    def test_refused_requests(self) -> None:
        def refused() -> None:
            self.world.manager.receive(request("edgeRpc", {"edgeId": "edge9", "payload": request("x")}))
            self.world.manager.receive(request("nope"))
            self.world.up()

        self.assertNone(refused)

    def test_failed_requests(self) -> None:
        def failed() -> None:
            self.edge.receive(request("x"))
            [up] = self.world.up()
            error = {"code": 4001, "message": "x", "data": ["x"]}
            self.world.manager.receive({"jsonrpc": "2.0", "id": up["id"], "error": error})
            self.edge.take()

        self.assertNone(failed)

    def test_edges_that_come_and_go(self) -> None:
        def came_and_went() -> None:
            edge = self.world.edge("key1")
            edge.receive(data(1))
            edge.lose()
            self.world.edge("unknown")
            self.world.up()

        self.assertNone(came_and_went)
