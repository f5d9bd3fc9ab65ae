from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.b2b import rest as module
from openems.common import errors
from openems.common.errors import OpenemsError, generic
from tests.backend.b2b.http import Connection, RestWorld, request
from tests.backend.b2b.world import SlowHandler, basic

ID = "11111111-1111-4111-8111-111111111111"
STATUS = {"method": "getEdgesStatus", "params": {"edgeIds": ["edge4"]}}


class LifeTest(SynchronousTestCase):
    """What becomes of a request."""

    def setUp(self) -> None:
        self.world = RestWorld(request_limit=None)
        self.handler = self.world.rest._handler = SlowHandler()

    def test_slow_answer(self) -> None:
        self.world.send({**STATUS, "id": ID})
        self.assertEqual(self.world.connection.replies(), [])
        self.handler.waiting[0].callback({"edge4": {"online": True}})
        self.assertEqual(self.world.connection.reply().json["id"], ID)
        self.assertEqual(self.handler.requests[0][0], "Backend2Backend.Rest")
        self.assertEqual(self.world.observed, [("getEdgesStatus", 0.0)])

    def test_own_timeout(self) -> None:
        self.world.send({**STATUS, "id": ID, "timeout": 3})
        self.world.clock.advance(2.9)
        self.assertEqual(self.world.connection.replies(), [])
        self.world.clock.advance(0.2)
        reply = self.world.connection.reply()
        self.assertEqual((reply.status, reply.error), (504, (1, "Timeout after [3 s]", ["Timeout after [3 s]"])))
        self.assertEqual(reply.json["id"], ID)
        self.assertTrue(self.handler.waiting[0].called)

    def test_timeout_of_60_seconds(self) -> None:
        for timeout in ({}, {"timeout": 0}, {"timeout": -5}, {"timeout": None}):
            self.world.send({**STATUS, **timeout})
            self.world.clock.advance(59.9)
            self.assertEqual(self.world.connection.replies(), [])
            self.world.clock.advance(0.2)
            self.assertEqual(self.world.connection.reply().status, 504)

    def test_longest_timeout(self) -> None:
        self.world.send({**STATUS, "timeout": 2**31 - 1})
        self.world.clock.advance(module.MAX_TIMEOUT - 1)
        self.assertEqual(self.world.connection.replies(), [])
        self.world.clock.advance(1)
        self.assertEqual(self.world.connection.reply().error[1], "Timeout after [3600 s]")

    def test_ends_before_what_it_waits_for(self) -> None:
        """The edge has the same time for its answer: what comes is 504 all the same, however slow the machine."""
        clock = self.world.clock

        class Handler:
            async def handle_request(self, context: str, user: Any, request: Any) -> Any:
                clock.rightNow += 0.01
                answer: Deferred[Any] = Deferred()
                deadline = clock.callLater(request.timeout, answer.errback, generic("No answer"))
                clock.rightNow += 0.5
                try:
                    return await answer
                finally:
                    if deadline.active():
                        deadline.cancel()

        self.world.rest._handler = Handler()
        self.world.send({**STATUS, "timeout": 3})
        clock.advance(3)
        self.assertEqual(self.world.connection.reply().status, 504)

    def test_time_of_the_login_counts(self) -> None:
        self.world.passwords.wait = True
        self.world.send({**STATUS, "timeout": 10})
        self.world.clock.advance(8)
        self.world.passwords.waiting[0].callback(None)
        self.world.clock.advance(2)
        self.assertEqual(self.world.connection.reply().status, 504)

    def test_client_goes_away(self) -> None:
        self.world.send(STATUS)
        self.world.connection.lose()
        self.assertTrue(self.handler.waiting[0].called)
        self.assertEqual((self.world.rest.running, self.world.rest.cancelled), (0, 1))
        self.assertEqual(self.world.rest._users, {})
        self.assertEqual([c for c in self.world.clock.getDelayedCalls() if c.active()], [])

    def test_client_goes_away_at_the_login(self) -> None:
        self.world.passwords.wait = True
        self.world.send(STATUS)
        self.world.connection.lose()
        self.assertEqual(self.world.rest.running, 0)
        self.world.passwords.waiting[0].callback(None)
        self.assertEqual(self.handler.requests, [])

    def test_failures(self) -> None:
        for error, status, code in (
            (OpenemsError(errors.BACKEND_EDGE_NOT_CONNECTED, "edge4"), 400, 3000),
            (OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE), 503, 1006),
            (OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS), 429, 4005),
        ):
            self.world.send({**STATUS, "id": ID})
            self.handler.waiting[-1].errback(error)
            reply = self.world.connection.reply()
            self.assertEqual((reply.status, reply.error[0], reply.json["id"]), (status, code, ID))
            self.assertEqual("retry-after" in reply.headers, status in (429, 503))

    def test_unforeseen(self) -> None:
        self.world.send({**STATUS, "id": ID})
        self.handler.waiting[0].errback(RuntimeError("secret"))
        reply = self.world.connection.reply()
        self.assertEqual((reply.status, reply.error[1]), (500, "Internal error: RuntimeError"))
        self.assertNotIn(b"secret", reply.body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_unforeseen_before(self) -> None:
        self.patch(self.world.rest, "_check_request", lambda request: 1 / 0)
        reply = self.world.ask(STATUS)
        self.assertEqual((reply.status, reply.error[1]), (500, "Internal error: ZeroDivisionError"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_not_unbuildable(self) -> None:
        self.world.send(STATUS)
        self.handler.waiting[0].callback({"x": object()})
        self.assertEqual(self.world.connection.reply().status, 500)
        self.flushLoggedErrors(TypeError)

    def test_metadata_is_not_there(self) -> None:
        """b2b.md 7, 25"""
        self.world.metadata.initialized = False
        reply = self.world.ask(STATUS)
        self.assertEqual((reply.status, reply.error[0], reply.headers["retry-after"]), (503, 1006, "5"))

    def test_too_much_at_once(self) -> None:
        self.patch(module, "MAX_RUNNING_OF_USER", 2)
        others = [Connection(self.world.rest) for _ in range(2)]
        for other in others:
            other.send(request(STATUS))
        reply = self.world.ask(STATUS)
        self.assertEqual((reply.status, reply.error[0]), (429, 4005))
        self.patch(module, "MAX_RUNNING", 2)
        self.assertEqual(self.world.ask(STATUS).status, 503)
        self.handler.waiting[0].callback({})
        self.world.send(STATUS)
        self.assertEqual(len(self.handler.waiting), 3)

    def test_logins_keep_nobody_out(self) -> None:
        """However many strangers wait for the end of theirs, who is known is served."""
        self.world.send(STATUS)
        self.handler.waiting[0].callback({})
        self.world.connection.replies()
        self.patch(module, "MAX_RUNNING", 2)
        self.world.passwords.wait = True
        strangers = [Connection(self.world.rest, f"192.0.2.{n}") for n in range(3)]
        for stranger in strangers:
            stranger.send(request(STATUS, auth=basic("alice", "guess")))
        self.world.send(STATUS)
        self.handler.waiting[1].callback({})
        self.assertEqual(self.world.connection.reply().status, 200)
        for stranger in strangers:
            self.assertEqual(stranger.replies(), [])

    def test_request_limit(self) -> None:
        world = RestWorld(request_limit=5)
        statuses = [world.ask(STATUS).status for _ in range(10)]
        self.assertEqual(statuses, [200] * 6 + [429] * 4)
        world.clock.advance(1)
        self.assertEqual(world.ask(STATUS).status, 200)

    def test_guesses_are_limited(self) -> None:
        statuses = [self.world.ask(STATUS, auth=basic("alice", f"no{n}")).status for n in range(40)]
        self.assertEqual(statuses[:20], [401] * 20)
        self.assertEqual(set(statuses[22:]), {429})
        # Others are not hindered, and who is known neither.
        other = Connection(self.world.rest, "192.0.2.2")
        other.send(request(STATUS))
        self.assertEqual(len(self.handler.waiting), 1)

    def test_forwarded(self) -> None:
        """The last address, and only what a proxy nearby says."""
        for host, header, expected in (
            ("127.0.0.1", "10.9.9.9, 203.0.113.7", "203.0.113.7"),
            ("127.0.0.1", "nonsense", "127.0.0.1:4711"),
            ("8.8.8.8", "203.0.113.7", "8.8.8.8"),
        ):
            connection = Connection(self.world.rest, host)
            connection.send(request(STATUS, headers={"X-Forwarded-For": header}, auth=basic("x", host + header)))
            self.assertEqual(self.world.passwords.asked[-1][2], expected)

    def test_stop(self) -> None:
        self.world.send({**STATUS, "id": ID})
        idle = Connection(self.world.rest)
        stopped = Deferred.fromCoroutine(self.world.rest.stop())
        reply = self.world.connection.reply()
        self.assertEqual((reply.status, reply.error[0], reply.json["id"]), (503, 1006, ID))
        self.assertTrue(self.handler.waiting[0].called)
        self.assertTrue(self.world.connection.transport.disconnecting)
        self.world.connection.lose()
        idle.lose()
        self.world.clock.advance(module.FLUSH_STEP)
        self.world.clock.advance(0)
        self.successResultOf(stopped)
        self.assertFalse(idle.transport.aborted)

    def test_stop_at_the_login(self) -> None:
        self.world.passwords.wait = True
        self.world.send(STATUS)
        Deferred.fromCoroutine(self.world.rest.stop())
        reply = self.world.connection.reply()
        self.assertEqual((reply.status, reply.error[0]), (503, 1006))
        self.world.connection.lose()
        for _ in range(2):
            self.world.clock.advance(module.FLUSH_STEP)
        self.assertEqual([c for c in self.world.clock.getDelayedCalls() if c.active()], [])

    def test_stop_does_not_wait_for_a_reader(self) -> None:
        stopped = Deferred.fromCoroutine(self.world.rest.stop())
        self.assertTrue(self.world.connection.transport.disconnecting)
        for _ in range(25):
            self.world.clock.advance(module.FLUSH_STEP)
        self.assertTrue(self.world.connection.transport.aborted)
        self.successResultOf(stopped)

    def test_debug(self) -> None:
        self.world.send(STATUS)
        metrics = self.world.rest.debug_metrics()
        self.assertEqual(metrics["b2brest0/Active"], 1)
        self.assertEqual(metrics["b2brest0/Connections"], 1)
        self.assertEqual(metrics["b2brest0/Logins"], 1)
        self.assertIn("NOT STARTED", self.world.rest.debug_log() or "")
