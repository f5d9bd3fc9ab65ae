from __future__ import annotations

import base64
import json
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from openems.backend.b2b import rest as module
from openems.backend.b2b import site
from openems.backend.interfaces import IDebugLoggable
from openems.common import errors
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import NIL_ID, canonical_id
from tests.backend.b2b.http import Connection, RestWorld, request
from tests.backend.b2b.world import basic

ID = "11111111-1111-4111-8111-111111111111"
STATUS = {"method": "getEdgesStatus", "params": {"edgeIds": ["edge4"]}}


class VectorTest(SynchronousTestCase):
    """b2b.md 8, REST; with the real code, message, data and id (b2b.md 7, 2)."""

    def setUp(self) -> None:
        self.world = RestWorld()

    def failed(self, body: Any, code: int, message: str, data: list[Any], id: str | None = None) -> None:
        reply = self.world.ask(body)
        self.assertEqual(reply.status, 400)
        self.assertEqual(reply.headers["content-type"], "application/json")
        self.assertEqual(reply.error, (code, message, data))
        self.assertEqual(list(reply.json), ["jsonrpc", "id", "error"])
        if id is not None:
            self.assertEqual(reply.json["id"], id)
        else:
            self.assertIsNotNone(canonical_id(reply.json["id"]))

    def test_no_authorization(self) -> None:
        reply = self.world.ask(STATUS, auth=None)
        self.assertEqual(reply.status, 401)
        self.assertEqual(reply.headers["www-authenticate"], 'Basic realm="OpenEMS Backend", charset="UTF-8"')
        self.assertEqual(reply.json["id"], NIL_ID)
        self.assertEqual(reply.error, (1003, "Authentication failed", []))

    def test_odd_authorization(self) -> None:
        text = base64.b64encode(b" alice : s3cret ").decode()
        self.assertEqual(self.world.ask(STATUS, auth=f"bASIC {text} extra").status, 200)
        self.assertEqual(self.world.ask(STATUS, auth=f"Basic  {text}").status, 401)

    def test_status(self) -> None:
        reply = self.world.call("getEdgesStatus", {"edgeIds": ["edge4", "edge4"]})
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.json["result"], {"edge4": {"online": True}})
        self.assertNotEqual(reply.json["id"], NIL_ID)
        self.assertEqual(
            self.world.call("getEdgesStatus", {"edgeIds": ["edge7"]}).json["result"], {"edge7": {"online": False}}
        )

    def test_short_id(self) -> None:
        reply = self.world.call("getEdgesStatus", {"edgeIds": []}, id="1-2-3-4-5")
        self.assertEqual(reply.json, {"jsonrpc": "2.0", "id": "00000001-0002-0003-0004-000000000005", "result": {}})

    def test_envelopes(self) -> None:
        text = '{"method": "getEdgesStatus"}'
        self.failed(text, 5003, f"JSON [params] ist not a member of JSON-Object [{text}]", ["params", text], NIL_ID)
        text = '{"method": "x", "params": []}'
        self.failed(text, 5003, f"JSON [params] ist not a member of JSON-Object [{text}]", ["params", text], NIL_ID)
        self.failed(
            {"method": "getEdgesStatus", "params": {}}, 5007, "JSON [edgeIds:{}] is not JSON-Array", ["edgeIds", "{}"]
        )
        text = '{"id":5,"method":"x","params":{}}'
        self.failed(text, 5033, f"JSON [id:{text}] is not a UUID member", ["id", text], NIL_ID)
        self.failed("", 5002, "JSON [null] is not a JSON-Object", ["null"], NIL_ID)
        self.failed("[1]", 5002, "JSON [[1]] is not a JSON-Object", ["[1]"], NIL_ID)
        text = "Only JSON-RPC Request is supported here."
        self.failed({"id": ID, "result": {}}, 1, text, [text], ID)
        self.failed({"id": ID, "error": {}}, 1, text, [text], ID)

    def test_roles(self) -> None:
        self.failed(
            {"id": ID, "method": "getEdgesStatus", "params": {"edgeIds": ["edge9"]}},
            1005,
            "Access to this resource [getEdgesStatus] is denied. Role for User [alice] is not defined",
            ["getEdgesStatus", "alice"],
            ID,
        )
        self.failed(
            {"method": "setGridConnSchedule", "params": {"id": "edge7", "schedule": []}},
            1002,
            "Access to this resource [setGridConnSchedule] is denied for User with Role [GUEST]",
            ["setGridConnSchedule", "GUEST"],
        )

    def test_methods(self) -> None:
        self.failed(
            {"method": "getEdgesChannelsValues", "params": {"ids": ["edge4"], "channels": ["nochannel"]}},
            1000,
            "This [nochannel] is not a valid channel address",
            ["nochannel"],
        )
        self.failed(
            {"method": "subscribeEdgesChannels", "params": {}},
            4001,
            "Unhandled JSON-RPC method [subscribeEdgesChannels]",
            ["subscribeEdgesChannels"],
        )
        self.failed(
            {"id": ID, "method": "edgeRpc", "params": {"edgeId": "edge7", "payload": {"method": "foo", "params": {}}}},
            3000,
            "Edge [edge7] is not connected",
            ["edge7"],
            ID,
        )

    def test_values(self) -> None:
        reply = self.world.call(
            "getEdgesChannelsValues", {"ids": ["edge7", "edge4"], "channels": ["_sum/EssSoc", "a/b"]}
        )
        self.assertEqual(
            reply.body.partition(b'"result":')[2],
            b'{"edge4":{"_sum/EssSoc":61,"a/b":null},"edge7":{"_sum/EssSoc":null,"a/b":null}}}',
        )

    def test_inner_id_is_made_up(self) -> None:
        self.world.metadata.configs["edge4"] = Raw(b'{"components":{"a":{"n":1.10}},"factories":{}}')
        reply = self.world.call("edgeRpc", {"edgeId": "edge4", "payload": {"method": "getEdgeConfig", "params": {}}})
        payload = reply.json["result"]["payload"]
        self.assertEqual(canonical_id(payload["id"]), payload["id"])
        self.assertEqual(sorted(payload["result"]), ["components", "factories"])
        self.assertIn(b'{"n":1.10}', reply.body)

    def test_grid_conn_schedule(self) -> None:
        """b2b.md 4.3: the nested envelope"""
        entries = [
            {"startTimestamp": 1775023200, "duration": 900, "activePowerSetPoint": 0},
            {"startTimestamp": 1775024100, "duration": 900, "activePowerSetPoint": -1500},
        ]
        reply = self.world.call("setGridConnSchedule", {"id": "edge4", "schedule": entries})
        self.assertEqual(sorted(reply.json["result"]), ["id", "jsonrpc", "result"])
        sent = json.loads(bytes(self.world.edges.requests[0][3].params))
        self.assertEqual(sent["componentId"], "ctrlBalancingSchedule0")
        self.assertEqual(sent["payload"]["params"]["schedule"], entries[::-1])


class HttpTest(SynchronousTestCase):
    """b2b.md 7; T089, T091"""

    def setUp(self) -> None:
        self.world = RestWorld(max_body=10_000)

    def test_interface(self) -> None:
        verifyObject(IDebugLoggable, self.world.rest)

    def test_paths(self) -> None:
        for path in ("/jsonrpc", "/jsonrpc/", "/jsonrpc/anything/x", "/jsonrpc?x=1", "/jsonrpc?%ff=&&"):
            self.assertEqual(self.world.ask(STATUS, path=path).status, 200, path)
        for path in ("/", "/nope", "/JSONRPC", "/jsonrpcx", "/live/x", "/%00", "/..%2f..%2fetc/passwd"):
            reply = self.world.ask(STATUS, path=path)
            self.assertEqual((reply.status, reply.error[0]), (404, 1), path)
        for path in ("//jsonrpc", "///"):
            self.assertIn(self.world.ask(STATUS, path=path).status, (200, 404), path)
        for path in ("/%ff", "jsonrpc"):
            self.assertEqual(self.world.ask(STATUS, path=path).status, 400, path)

    def test_methods(self) -> None:
        for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"):
            reply = self.world.ask(STATUS, method=method)
            self.assertEqual((reply.status, reply.headers["allow"]), (405, "POST"), method)
            self.assertIn(f"[{method}]", reply.error[1])

    def test_head(self) -> None:
        self.world.connection.send(request(method="HEAD"))
        head, _, body = self.world.connection.transport.value().partition(b"\r\n\r\n")
        self.assertIn(b"405 Method Not Allowed", head)
        self.assertEqual(body, b"")

    def test_live_needs_nothing(self) -> None:
        self.world.metadata.initialized = False
        self.assertEqual(self.world.ask(method="GET", path="/live", auth=None).json, {"status": "ok"})
        self.assertEqual(self.world.ask(method="POST", path="/live", auth=None).status, 405)

    def test_documents(self) -> None:
        reply = self.world.ask(method="GET", path="/openapi.json", auth=None)
        self.assertEqual(reply.json["openapi"], "3.1.0")
        reply = self.world.ask(method="GET", path="/docs", auth=None)
        self.assertEqual(reply.headers["content-type"], "text/html; charset=utf-8")
        self.assertIn("default-src 'none'", reply.headers["content-security-policy"])

    def test_too_long(self) -> None:
        reply = self.world.ask(b"x" * 10_001)
        self.assertEqual((reply.status, reply.headers["connection"]), (413, "close"))
        self.assertIn("10000 bytes", reply.error[1])
        self.assertEqual(self.world.rest.site.buffered, 0)

    def test_too_long_without_a_length(self) -> None:
        chunked = request(headers={"Transfer-Encoding": "chunked"}).replace(b"Content-Length: 0\r\n", b"")
        self.world.connection.send(chunked)
        for _ in range(20):
            self.world.connection.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        self.assertLessEqual(self.world.rest.site.buffered, 10_000)
        self.world.connection.send(b"0\r\n\r\n")
        self.assertEqual(self.world.connection.reply().status, 413)

    def test_endless(self) -> None:
        self.world.connection.send(request(headers={"Content-Length": "1000000000"}))
        for _ in range(700):
            self.world.connection.send(b"x" * 1000)
        reply = self.world.connection.reply()
        self.assertEqual((reply.status, reply.headers["connection"]), (413, "close"))
        self.assertTrue(self.world.connection.transport.disconnecting)

    def test_slow_request(self) -> None:
        """Body or head: byte by byte is no way to keep a connection."""
        for begin in (request(headers={"Content-Length": "100"}), b"POST /jsonrpc HTTP/1.1\r\nA: "):
            world = RestWorld()
            world.connection.send(begin)
            for _ in range(4):
                world.clock.advance(site.IDLE * 0.6)
                world.connection.send(b"x")
            self.assertEqual(world.connection.reply().status, 408)
            self.assertTrue(world.connection.transport.disconnecting)

    def test_next_request_has_its_own_time(self) -> None:
        for _ in range(5):
            self.world.clock.advance(site.IDLE * 0.9)
            self.assertEqual(self.world.ask(STATUS).status, 200)

    def test_slow_reader_gets_all(self) -> None:
        self.assertEqual(self.world.ask(STATUS).status, 200)
        transport = self.world.connection.transport
        for left in (5000, 3000, 1000):
            transport.dataBuffer = b"x" * left  # type: ignore[attr-defined]
            self.world.clock.advance(site.IDLE)
            self.assertFalse(transport.disconnecting)
        self.world.clock.advance(site.IDLE)
        self.assertTrue(transport.disconnecting)
        self.assertFalse(transport.aborted)
        self.world.clock.advance(site.IDLE)
        self.assertTrue(transport.aborted)

    def test_reader_who_takes_nothing(self) -> None:
        self.assertEqual(self.world.ask(STATUS, headers={"Connection": "close"}).status, 200)
        transport = self.world.connection.transport
        self.assertTrue(transport.disconnecting)
        transport.dataBuffer = b"x" * 5000  # type: ignore[attr-defined]
        self.world.clock.advance(site.IDLE)
        self.assertFalse(transport.aborted)
        self.world.clock.advance(site.IDLE)
        self.assertTrue(transport.aborted)

    def test_memory_of_all_bodies(self) -> None:
        self.patch(site, "BUFFERED", 1000)
        other = Connection(self.world.rest)
        other.send(request(headers={"Content-Length": "1000"}) + b"x" * 900)
        reply = self.world.ask(b"x" * 200)
        self.assertEqual((reply.status, reply.error[0]), (503, 1006))
        other.lose()
        self.assertEqual(self.world.rest.site.buffered, 0)
        self.assertEqual(self.world.ask(STATUS).status, 200)

    def test_idle(self) -> None:
        self.world.clock.advance(site.IDLE)
        self.assertTrue(self.world.connection.transport.disconnecting)

    def test_connections_of_an_address(self) -> None:
        self.world.rest.site.max_connections_of_address = 3
        some = [Connection(self.world.rest, "8.8.8.8") for _ in range(4)]
        self.assertEqual([one.channel is None for one in some], [False, False, False, True])
        self.assertIsNotNone(Connection(self.world.rest, "8.8.4.4").channel)
        some[0].lose()
        self.assertIsNotNone(Connection(self.world.rest, "8.8.8.8").channel)
        self.assertEqual(self.world.rest.site.refused, 1)

    def test_content_types(self) -> None:
        for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain; charset=UTF-8", "nonsense"):
            self.assertEqual(self.world.ask(STATUS, headers={"Content-Type": kind}).status, 200, kind)
        for kind in ("multipart/form-data; boundary=x", "application/json; charset=utf-16"):
            reply = self.world.ask(STATUS, headers={"Content-Type": kind})
            self.assertEqual((reply.status, reply.error[0]), (415, 1), kind)
        self.assertEqual(self.world.ask(STATUS, headers={"Content-Encoding": "gzip"}).status, 415)

    def test_pages_of_other_sites(self) -> None:
        for site_, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
            self.assertEqual(self.world.ask(STATUS, headers={"Sec-Fetch-Site": site_}).status, status)

    def test_bodies(self) -> None:
        for body, text in (
            (b'{"method":"getEdgesStatus","params":{"edgeIds: ["edge0"]}}', "line 1 column 50"),
            (b'{"method":"x",\n"params":{},}', "line 2 column 13"),
            (b"{method:'getEdgesStatus',params:{edgeIds:[edge7]}}", "line 1 column 2"),
            (b'[{"method":"x","params":{}}]', "Batches are not supported"),
            (b'{"method":"x","params":{"a":NaN}}', "NaN is no JSON value"),
            (b'{"method":"x","params":{"a":"\xff"}}', "no UTF-8 text (byte 29)"),
            (b'{"method":"x","params":' + b'{"a":' * 1900, "nested too deeply"),
            (b"[" * 9999, "nested too deeply"),
            (b'{"method":5,"params":{}}', "is not a String member"),
            (b'{"method":"x","params":{},"timeout":"5"}', "JSON [timeout:{"),
            (b'{"method":"x","params":{},"timeout":4294967296}', "JSON [timeout:{"),
            (b'{"method":"edgeRpc","params":{"edgeId":"edge4","payload":5}}', "[payload]"),
            (b'{"method":"edgeRpc","params":{"edgeId":"edge4","payload":{}}}', "is not a String member"),
        ):
            reply = self.world.ask(body)
            self.assertEqual(reply.status, 400, body[:80])
            self.assertIn(text, reply.error[1])
        self.assertEqual(self.world.ask(b"\xef\xbb\xbf" + json.dumps(STATUS).encode()).status, 200)

    def test_no_valid_http(self) -> None:
        for garbage in (
            b"garbage\r\n\r\n",
            b"POST /jsonrpc HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"\x16\x03\x01\x02\r\n",
        ):
            connection = Connection(self.world.rest)
            connection.send(garbage)
            reply = connection.reply()
            self.assertEqual((reply.status, reply.error[0]), (400, 1), garbage)
            self.assertTrue(connection.transport.disconnecting)

    def test_body_ends_early(self) -> None:
        self.world.connection.send(request(headers={"Content-Length": "100"}) + b"{")
        self.world.connection.lose()
        self.assertEqual(self.world.connection.transport.value(), b"")
        self.assertEqual((self.world.rest.running, self.world.rest.site.buffered), (0, 0))

    def test_pipelined(self) -> None:
        one = request({**STATUS, "id": ID})
        self.world.connection.send(one + one.replace(ID.encode(), NIL_ID.encode()))
        self.assertEqual([reply.json["id"] for reply in self.world.connection.replies()], [ID, NIL_ID])


class _Handler:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Any]] = []
        self.requests: list[Any] = []

    async def handle_request(self, context: str, user: Any, request: Any) -> Any:
        self.requests.append((context, user, request))
        waiting: Deferred[Any] = Deferred()
        self.waiting.append(waiting)
        return await waiting


class LifeTest(SynchronousTestCase):
    """What becomes of a request."""

    def setUp(self) -> None:
        self.world = RestWorld(request_limit=None)
        self.handler = self.world.rest._handler = _Handler()

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
        self.assertTrue(self.world.passwords.waiting[0].called)
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
            ("127.0.0.1", "nonsense", "nonsense"),
            ("8.8.8.8", "203.0.113.7", "8.8.8.8"),
        ):
            connection = Connection(self.world.rest, host)
            connection.send(request(STATUS, headers={"X-Forwarded-For": header}, auth=basic("x", host + header)))
            self.assertEqual(self.world.passwords.asked[-1][2], expected)

    def test_stop(self) -> None:
        self.world.send(STATUS)
        stopped = Deferred.fromCoroutine(self.world.rest.stop())
        self.assertTrue(self.world.connection.transport.aborted)
        self.world.connection.lose()
        self.world.clock.advance(0)
        self.successResultOf(stopped)
        self.assertTrue(self.handler.waiting[0].called)

    def test_debug(self) -> None:
        self.world.send(STATUS)
        metrics = self.world.rest.debug_metrics()
        self.assertEqual(metrics["b2brest0/Active"], 1)
        self.assertEqual(metrics["b2brest0/Connections"], 1)
        self.assertEqual(metrics["b2brest0/Logins"], 1)
        self.assertIn("NOT STARTED", self.world.rest.debug_log() or "")
