from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from openems.backend.b2b import site
from openems.backend.interfaces import IDebugLoggable
from openems.common.jsonrpc import NIL_ID
from tests.backend.b2b.http import Connection, RestWorld, request
from tests.backend.b2b.world import basic

ID = "11111111-1111-4111-8111-111111111111"
STATUS = {"method": "getEdgesStatus", "params": {"edgeIds": ["edge4"]}}


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
        for path in ("http://ems.example.org/jsonrpc", "HTTPS://ems.example.org:8075/jsonrpc?x=1"):
            self.assertEqual(self.world.ask(STATUS, path=path).status, 200, path)
        self.assertEqual(self.world.ask(STATUS, path="http://ems.example.org").status, 404)
        for path in ("/%ff", "jsonrpc"):
            self.assertEqual(self.world.ask(STATUS, path=path).status, 400, path)

    def test_headers(self) -> None:
        """T013, T017: names in any letter case; the host is not judged"""
        for old, new in (
            (b"Authorization", b"authorization"),
            (b"Authorization", b"aUTHORIZATION"),
            (b"Host: ems.example.org", b"Host: ems.example.org:443"),
            (b"Host: ems.example.org", b"Host: [2001:db8::1]:8081"),
            (b"Host: ems.example.org", b"Host: a b@[:"),
            (b"Host: ems.example.org", b"X: y"),
        ):
            self.world.connection.send(request(STATUS).replace(old, new))
            self.assertEqual(self.world.connection.reply().status, 200, new)

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
        for path in ("/docs/swagger-ui.js", "/docs/..%2fcore.py", "/docs/swagger-ui.css/x"):
            self.assertEqual(self.world.ask(method="GET", path=path, auth=None).status, 404, path)

    def test_too_long(self) -> None:
        reply = self.world.ask(b"x" * 10_001)
        self.assertEqual(reply.status, 413)
        self.assertIn("10000 bytes", reply.error[1])
        self.assertEqual(self.world.rest.site.buffered, 0)
        # All of it was taken, so the connection is good for more, and nothing says otherwise.
        self.assertNotIn("connection", reply.headers)
        self.assertEqual(self.world.ask(STATUS).status, 200)

    def test_who_asks_before_he_sends(self) -> None:
        self.world.connection.send(request(headers={"Content-Length": "1000000", "Expect": "100-continue"}))
        reply = self.world.connection.reply()
        self.assertEqual((reply.status, reply.headers["connection"]), (413, "close"))
        self.assertTrue(self.world.connection.transport.disconnecting)
        other = Connection(self.world.rest)
        other.send(request(STATUS, headers={"Expect": "100-continue"}))
        self.assertEqual([reply.status for reply in other.replies()], [100, 200])

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

    def test_half_a_request(self) -> None:
        """T091: a body that ends early"""
        for begin in (request(headers={"Content-Length": "100"}) + b"{", b"POST /jsonrpc HT"):
            connection = Connection(self.world.rest)
            connection.send(begin)
            self.world.clock.advance(site.IDLE)
            self.assertEqual((reply := connection.reply()).status, 408)
            self.assertIn("Half a request", reply.error[1])
            self.assertTrue(connection.transport.disconnecting)

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

    def test_pages_of_other_sites_without_tls(self) -> None:
        """Browsers tell the site over TLS only. What a page may send to another site without asking for leave first,
        which nobody gets here, is a form or a text."""
        origin = {"Origin": "http://evil.example"}
        for kind, status in (
            ("text/plain", 403),
            ("application/x-www-form-urlencoded", 403),
            ("application/json", 200),
        ):
            answer = self.world.ask(STATUS, headers={**origin, "Content-Type": kind})
            self.assertEqual(answer.status, status, kind)
        self.assertEqual(self.world.ask(STATUS, headers={"Content-Type": "text/plain"}).status, 200, "no browser")

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
            (b'{"method":"x","params":{},"timeout":%b}' % (b"9" * 5000), "failed to parse"),
            (b'{"method":"x","params":{},"id":%b}' % (b"9" * 5000), "failed to parse"),
            (b'{"method":%b,"params":{}}' % (b"9" * 5000), "failed to parse"),
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
            b"POST /jsonrpc HTTP/1.1\r\nX: " + b"x" * 20_000,
            b"POST /" + b"x" * 20_000 + b" HTTP/1.1\r\n",
            b"POST /jsonrpc HTTP/1.1\r\n" + b"X: x\r\n" * 1000,
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


_WORDS = st.sampled_from(
    [
        b"POST /jsonrpc HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"Host: x\r\n", b"Content-Length: 5\r\n", b"\r\n", b"\n",
        b"Content-Length: 99999999\r\n",
        b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"{}", b" ",
        b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Content-Type: multipart/form-data; boundary=x\r\n",
        b"Authorization: " + basic().encode() + b"\r\n", b"Authorization: Basic \xff\r\n", b"OPTIONS * HTTP/1.1\r\n",
        b"POST http://x/jsonrpc HTTP/1.1\r\n", b"CONNECT x:1 HTTP/1.1\r\n", b"\xff /\xff HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n",
        json.dumps(STATUS).encode(), b"Content-Length: %d\r\n" % len(json.dumps(STATUS)), b"Upgrade: h2c\r\n",
    ]
)  # fmt: skip


class NonsenseTest(SynchronousTestCase):
    """T091: whatever comes, what goes back is HTTP with JSON; nothing is left behind and nothing is logged."""

    @given(st.lists(_WORDS | st.binary(max_size=20), max_size=12))
    def test_any_bytes(self, parts: list[bytes]) -> None:
        world = RestWorld()
        for part in parts:
            world.connection.send(part)
        for reply in world.connection.replies():
            if reply.status == 100:
                continue
            self.assertIn(reply.headers["content-type"], ("application/json", "text/html; charset=utf-8"))
            self.assertTrue(reply.status == 200 or reply.status >= 400, reply)
            if reply.body and reply.headers["content-type"] == "application/json":
                json.loads(reply.body)
        world.connection.lose()
        self.assertEqual((world.rest.running, world.rest.site.buffered, world.rest.site.channels), (0, 0, set()))
        self.assertEqual([call for call in world.clock.getDelayedCalls() if call.active()], [])
        self.assertEqual(self.flushLoggedErrors(), [])
