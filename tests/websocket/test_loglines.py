"""What peers may make of the log: nothing that looks like another line, nothing that a terminal obeys."""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from openems.common.errors import printable
from openems.common.jsonrpc import Notification, raw
from openems.testing.connections import FakeConnection
from tests.backend.edge.world import World as EdgeWorld
from tests.backend.ui.world import World as UiWorld

EVIL = "x\x1b[2J\r\n2026-01-01 [root] all is well\u202e\x9b31m"


class LogLines(SynchronousTestCase):
    def lines(self, work: Any) -> list[str]:
        with capturedLogs() as events:
            work()
        lines = [formatEvent(event) for event in events if "log_failure" not in event]
        self.assertTrue(lines)
        for line in lines:
            self.assertTrue(line.isprintable(), repr(line))
        return lines

    def test_printable(self) -> None:
        self.assertEqual(printable("Größe 5 µ"), "Größe 5 µ")
        self.assertEqual(printable("a\nb\x1bc"), "a\\nb\\x1bc")

    def test_ui(self) -> None:
        ui = UiWorld().login()
        ui.session.user = type(ui.session.user)(id="a", user_id="a", name=EVIL)
        self.lines(lambda: ui.notify("logMessage", {"level": "INFO", "msg": EVIL}))
        self.lines(lambda: ui.notify(EVIL, {}))
        self.lines(lambda: ui.connection.receive('{"' + EVIL.replace("\r\n", "") + '":'))

    def test_edges(self) -> None:
        world = EdgeWorld()
        connection = world.direct()
        for method, params in ((EVIL, {}), ("logMessage", {"level": EVIL, "msg": EVIL})):
            self.lines(lambda method=method, params=params: connection.receive(Notification(method, raw(params))))

    def test_a_handler_that_fails(self) -> None:
        class Endpoint:
            def opened(self) -> None: ...
            def received(self, text: bytes) -> bool:
                return False

            def request(self, request: Any) -> Any:
                raise ZeroDivisionError

            def notification(self, notification: Any) -> None:
                raise ZeroDivisionError

            def closed(self) -> None: ...

        connection = FakeConnection()
        connection.open(Endpoint())
        with capturedLogs() as events:
            connection.receive({"method": EVIL, "params": {}})
            connection.receive({"method": EVIL, "params": {}, "id": "1-1-1-1-1"})
        self.assertEqual(len(events), 2)
        for event in events:
            self.assertNotIn("\x1b", formatEvent(event))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
