"""Every wait ends, every drop is counted, and a socket that is being closed counts for nothing (T019)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.edge.direct import DirectEndpoint
from openems.backend.edge.manager import MAX_TIMEOUT
from openems.backend.edge.systemlog import STRAY_INTERVAL
from openems.backend.events import OnlineSet
from openems.common.errors import OpenemsError
from openems.common.role import Role
from openems.testing.connections import FakeConnection
from tests.backend.edge.world import USER, World, data, envelope, notification, request


class SlowlyClosing(FakeConnection):
    """The peer does not answer our Close frame yet."""

    __slots__ = ()

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.is_open = False
        self.close_code = code


class Ends(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()

    def send(self, timeout: int | None = None) -> Deferred[Any]:
        asked = request("foo", timeout=timeout)
        return Deferred.fromCoroutine(self.world.manager.send("edge0", USER, Role.OWNER, asked))

    def test_t019_a_socket_that_is_being_closed_keeps_nothing_online(self) -> None:
        old = SlowlyClosing({"apikey": "key0"}, self.world.clock)
        old.open(DirectEndpoint(old, self.world.manager))
        new = self.world.direct()
        self.assertEqual(old.close_code, 1000)
        new.lose()
        self.assertFalse(self.world.online())
        self.assertEqual(self.failureResultOf(self.send(), OpenemsError).value.code, 3000)
        old.lose()
        self.assertEqual([event.online for event in self.world.of(OnlineSet)], [True, False])

    def test_no_time_out_is_endless(self) -> None:
        self.world.direct()
        asked = self.send(timeout=2**31 - 1)
        self.world.clock.advance(MAX_TIMEOUT - 1)
        self.assertNoResult(asked)
        self.world.clock.advance(2)
        self.assertEqual(self.failureResultOf(asked, OpenemsError).value.code, 1)

    def test_what_the_cache_drops_is_counted(self) -> None:
        self.world.direct().receive(data({"noslash": 1, "c/a": {}, "c/b": 1}))
        metrics = self.world.manager.debug_metrics()
        self.assertEqual((metrics["edgewebsocket0/DroppedAddress"], metrics["edgewebsocket0/DroppedValue"]), (1, 1))

    def test_bad_lines_of_a_system_log_are_counted(self) -> None:
        edge = self.world.direct()
        subscribe = request("subscribeSystemLog", {"subscribe": True})
        manager = self.world.manager
        self.world.ui.sessions.add("u1")
        Deferred.fromCoroutine(manager.subscribe_system_log("edge0", USER, Role.OWNER, "u1", subscribe))
        line = {"time": "2026-04-05T12:02:00.5+02:00", "level": "INFO", "source": "s", "message": "m"}
        for bad in ({"level": "FATAL"}, {"time": "yesterday"}, {"time": "2026-04-05T12:02:00"}, {"message": None}):
            edge.receive(notification("systemLog", {"line": {**line, **bad}}))
        self.assertEqual((self.world.ui.sent, manager.dropped), ([], {"line": 4}))

    def test_stray_lines_of_an_edge_that_answers_and_goes_on(self) -> None:
        edge = self.world.direct()
        line = {"time": "2026-04-05T12:02:00.5+02:00", "level": "INFO", "source": "s", "message": "m"}
        told = 0
        for _ in range(100):
            edge.receive(notification("systemLog", {"line": line}))
            for _ in edge.take():
                told += 1
                edge.answer(envelope(envelope({})))
            self.world.clock.advance(STRAY_INTERVAL / 50)
        self.assertEqual(told, 2)

    def test_a_log_message_is_not_hidden_by_other_lines(self) -> None:
        lines: list[str] = []

        def observer(event: Any) -> None:
            lines.append(str(event.get("text")))

        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        edge = self.world.direct()
        edge.receive(notification("foo", {}))
        edge.receive(notification("logMessage", {"level": "warning", "msg": "disk almost full"}))
        self.assertIn("WARNING-Message: disk almost full", lines)

    def test_6_13_an_unknown_method_of_the_oauth_registry(self) -> None:
        self.world.manager.requests._oauth_registry = object()
        edge = self.world.direct()
        inner = {"jsonrpc": "2.0", "method": "foo", "params": {}, "id": "0e000000-0000-4000-8000-000000000002"}
        edge.receive(request("oauthRegistry", {"payload": inner}))
        [reply] = edge.take()
        self.assertEqual((reply["error"]["code"], reply["error"]["data"]), (4001, ["foo"]))
