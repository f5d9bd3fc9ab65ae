"""The lines of the debug cycle (core.md 5.2, 12.7)."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.core.jsonrpcrequesthandler import JsonRpcRequestHandler
from openems.backend.events import EventBus
from openems.testing.services import FakeMetadata, FakeTimedata
from openems.websocket.server import WebSocketServer
from tests.backend.edge.world import World


class TestLines(SynchronousTestCase):
    def test_12_7_idle(self) -> None:
        handler = self.handler(1)
        self.assertEqual(
            handler.debug_log(),
            "[Core.JsonRpcRequestHandler] [monitor] Timedata-Executor: Pool: 0/1, Pending: 0, Completed: 0, Active: 0, "
            "Active-Tasks: , Sum-Tasks: , RejectedExecutions:0",
        )

    def test_tasks(self) -> None:
        handler = self.handler(1)
        gate: Deferred[None] = Deferred()

        async def work() -> None:
            await gate

        for number, name in enumerate(("handleQueryHistoricDataRequest", "handleQueryHistoricEnergyRequest")):
            handler.pool.run("user0", number, work, 60, name)
        self.assertIn(
            "Pool: 1/1, Pending: 1, Completed: 0, Active: 1 !!!BACKPRESSURE!!!, "
            "Active-Tasks: handleQueryHistoricDataRequest:1, Sum-Tasks: handleQueryHistoricDataRequest:1, ",
            handler.debug_log() or "",
        )
        gate.callback(None)
        self.assertIn(
            "Active-Tasks: , Sum-Tasks: handleQueryHistoricDataRequest:1, handleQueryHistoricEnergyRequest:1, ",
            handler.debug_log() or "",
        )

    def test_servers(self) -> None:
        self.assertEqual(
            WebSocketServer("Test", lambda _: None, reactor=Clock()).pool_text(),
            "Pool: 2000/2000, Pending: 0, Completed: 0, Active: 0",
        )
        world = World()
        world.application("edges0")
        self.assertIn("Pending: 0, Completed: 0, Active: 0, ", world.manager.debug_log() or "")
        self.assertTrue((world.manager.debug_log() or "").endswith("RemoteConnections: edges0:0"))

    def handler(self, size: int) -> JsonRpcRequestHandler:
        metadata = FakeMetadata(EventBus(), {})
        return JsonRpcRequestHandler(metadata, None, FakeTimedata(), reactor=Clock(), now=lambda: 0, pool_size=size)
