"""Who reads which log (edge.md 3.9, vectors 9.7, T037)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.edge.systemlog import STRAY_INTERVAL, SystemLogSubscriptions, printed_line
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Notification, raw
from openems.common.role import Role
from openems.testing.connections import FakeConnection
from openems.testing.services import decoded

from .world import USER, World, envelope, notification, request

LINE = {"time": "2026-04-05T12:02:00.5+02:00", "level": "warn", "source": "io.openems.edge.ess.Foo", "message": "hot"}


class Subscriptions(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.ui.sessions = {"u1", "u2"}
        self.edge = self.world.direct()

    def subscribe(self, session: str, subscribe: bool = True) -> Deferred[Any]:
        asked = request("subscribeSystemLog", {"subscribe": subscribe})
        return Deferred.fromCoroutine(
            self.world.manager.subscribe_system_log("edge0", USER, Role.OWNER, session, asked)
        )

    def told(self, edge: FakeConnection | None = None) -> list[tuple[bool, str, str]]:
        """subscribe, user, role of what the edge got; each is answered."""
        edge = edge or self.edge
        got = []
        for message in edge.take():
            who, payload = message["params"]["user"], message["params"]["payload"]
            self.assertEqual(payload["method"], "subscribeSystemLog")
            got.append((payload["params"]["subscribe"], who["id"], who["role"]))
            edge.answer(envelope({}))
        return got

    def line(self, edge: FakeConnection | None = None) -> list[str]:
        (edge or self.edge).receive(notification("systemLog", {"line": LINE}))
        sessions = [session for session, _, _ in self.world.ui.sent]
        self.world.ui.sent.clear()
        return sessions

    def test_9_7_subscribe_and_unsubscribe(self) -> None:
        self.subscribe("u1")
        self.assertEqual(self.told(), [(True, "user0", "owner")])
        self.subscribe("u2")
        self.assertEqual(self.told(), [(True, "user0", "owner")])
        self.assertEqual(self.line(), ["u1", "u2"])
        self.assertEqual(decoded(self.successResultOf(self.subscribe("u1", False))), {})
        self.assertEqual(self.told(), [])
        self.assertEqual(self.line(), ["u2"])
        self.subscribe("u2", False)
        self.assertEqual(self.told(), [(False, "user0", "owner")])

    def test_9_7_a_line_that_nobody_reads(self) -> None:
        self.line()
        self.assertEqual(self.told(), [(False, "internal", "guest")])

    def test_stray_lines_make_one_unsubscription_at_a_time(self) -> None:
        for _ in range(100):
            self.line()
        self.assertEqual(len(self.told()), 1)
        self.line()
        self.assertEqual(self.told(), [])
        self.world.clock.advance(STRAY_INTERVAL)
        self.line()
        self.assertEqual(len(self.told()), 1)

    def test_an_edge_that_does_not_answer_is_told_again(self) -> None:
        self.line()
        self.edge.take()
        self.world.clock.advance(61)
        self.line()
        self.assertEqual(len(self.edge.take()), 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_9_7_the_socket_is_gone(self) -> None:
        self.subscribe("u1")
        self.told()
        self.world.ui.sessions.clear()
        self.assertEqual(self.line(), [])
        self.assertEqual(self.told(), [])
        self.line()
        self.assertEqual(self.told(), [(False, "internal", "guest")])

    def test_a_session_that_ends_tells_the_edge_at_once(self) -> None:
        self.subscribe("u1")
        self.subscribe("u2")
        self.told()
        self.world.manager.unsubscribe_system_logs("u1")
        self.assertEqual(self.told(), [])
        self.world.manager.unsubscribe_system_logs("u2")
        self.assertEqual(self.told(), [(False, "internal", "guest")])

    def test_t037_subscribed_again_after_a_reconnect(self) -> None:
        self.subscribe("u1")
        self.told()
        self.edge.lose()
        edge = self.world.direct()
        self.assertEqual(self.told(edge), [(True, "internal", "owner")])
        self.assertEqual(self.line(edge), ["u1"])

    def test_t037_not_without_readers(self) -> None:
        self.subscribe("u1")
        self.told()
        self.edge.lose()
        self.world.manager.unsubscribe_system_logs("u1")
        self.assertEqual(self.told(self.world.direct()), [])

    def test_subscribed_while_the_edge_was_away(self) -> None:
        """The page shows the lines once the edge is back."""
        self.edge.lose()
        self.assertEqual(self.failureResultOf(self.subscribe("u1"), OpenemsError).value.code, 3000)
        self.assertEqual(self.told(self.world.direct()), [(True, "internal", "owner")])

    def test_t037_a_thousand_times_without_growth(self) -> None:
        for number in range(1000):
            self.subscribe(f"s{number}")
            self.told()
            self.world.manager.unsubscribe_system_logs(f"s{number}")
            self.told()
        self.assertEqual(len(self.world.manager._logs), 0)

    def test_lines_that_are_none(self) -> None:
        self.world.ui.sessions.add("u1")
        self.subscribe("u1")
        self.told()
        for line in (None, {}, [], {**LINE, "level": "LOUD"}, {**LINE, "time": "now"}, {**LINE, "message": 5},
                     {**LINE, "time": "2026-04-05T12:02:00"}):  # fmt: skip
            self.edge.receive(notification("systemLog", {"line": line}))
        self.assertEqual(self.world.ui.sent, [])
        self.assertEqual(self.line(), ["u1"])
        self.assertEqual(self.flushLoggedErrors(), [])


class Lines(SynchronousTestCase):
    def printed(self, **changed: Any) -> Any:
        return decoded(printed_line(Notification("systemLog", raw({"line": {**LINE, **changed}}))).params)["line"]

    def test_level_and_time(self) -> None:
        self.assertEqual(self.printed(), {**LINE, "level": "WARN", "time": "2026-04-05T12:02:00.500+02:00"})
        self.assertEqual(self.printed(time="2026-04-05T12:02:00.123456Z")["time"], "2026-04-05T12:02:00.123Z")
        self.assertEqual(self.printed(time="2026-04-05T12:02+02:00")["time"], "2026-04-05T12:02:00.000+02:00")

    def test_forget_names_the_edges_left_alone(self) -> None:
        logs = SystemLogSubscriptions()
        logs.subscribe("edge0", "a")
        logs.subscribe("edge1", "a")
        logs.subscribe("edge1", "b")
        self.assertEqual(logs.forget("a"), ["edge0"])
        self.assertEqual((logs.readers("edge0"), logs.readers("edge1")), ((), ("b",)))
