"""HTTP with identity providers, over real connections (auth.md S4, S20 to S22, Part D)."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openems.http.concurrency import Busy, Concurrency
from openems.http.exchange import Exchange, ExchangeError, encoded, form_body, is_local

reactor: Any = _reactor


class Texts(SynchronousTestCase):
    def test_encoding(self) -> None:
        for text, expected in (
            ("http://localhost:4200/oauthcallback", "http%3A%2F%2Flocalhost%3A4200%2Foauthcallback"),
            ("openid profile", "openid%20profile"),
            ("p&ss w=rd+%~*ä", "p%26ss%20w%3Drd%2B%25%7E*%C3%A4"),
            ("va lu+e", "va%20lu%2Be"),
        ):
            self.assertEqual(encoded(text), expected)
        self.assertEqual(form_body({"a": "1 2", "b": "&="}), b"a=1%202&b=%26%3D")

    def test_local(self) -> None:
        for url, local in (
            ("http://localhost:1/", True), ("http://[::1]/", True), ("http://127.1.2.3/", True),
            ("http://10.0.0.1/", False), ("http://localhost.example/", False),
            ("http://127.0.0.1.example/", False), ("http://x@localhost/", True),
            ("http://", False), ("http://localhost@evil.example/", False),
        ):  # fmt: skip
            self.assertEqual(is_local(url), local, url)


class Turns(SynchronousTestCase):
    def test_limit_queue_and_order(self) -> None:
        gate = Concurrency(2, 3)
        running: list[Deferred[int]] = []
        order: list[int] = []

        async def work(number: int) -> int:
            order.append(number)
            waiting: Deferred[int] = Deferred()
            running.append(waiting)
            return await waiting

        outcomes = [Deferred.fromCoroutine(gate.run(lambda n=n: work(n))) for n in range(6)]
        self.failureResultOf(outcomes[5], Busy)
        self.assertEqual((gate.active, gate.waiting, gate.rejected), (2, 3, 1))
        outcomes[2].cancel()
        self.failureResultOf(outcomes[2])
        running[0].callback(7)
        self.assertEqual(self.successResultOf(outcomes[0]), 7)
        self.assertEqual(order, [0, 1, 3])
        for waiting in running[1:]:
            waiting.callback(0)
        running[3].callback(0)
        self.assertEqual((gate.active, gate.waiting, gate.completed), (0, 0, 5 - 1))

    def test_work_that_ends_at_once_does_not_nest(self) -> None:
        gate = Concurrency(1, 10_000)
        first: Deferred[None] = Deferred()

        async def wait() -> None:
            await first

        async def nothing() -> None:
            return

        outcomes = [Deferred.fromCoroutine(gate.run(wait))]
        outcomes += [Deferred.fromCoroutine(gate.run(nothing)) for _ in range(5000)]
        first.callback(None)
        for outcome in outcomes:
            self.successResultOf(outcome)


class Script(Protocol):
    """Answers each connection's request with a text, or ends it."""

    def dataReceived(self, data: bytes) -> None:
        self.factory.requests.append(data)  # type: ignore[attr-defined]
        answer = self.factory.answer  # type: ignore[attr-defined]
        if answer is None:
            self.transport.loseConnection()
        else:
            self.transport.write(answer)


class OverTcp(TestCase):
    def setUp(self) -> None:
        self.factory: Any = Factory.forProtocol(Script)
        self.factory.requests = []
        self.factory.answer = None
        self.factory.noisy = False
        self.port: Any = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.url = f"http://127.0.0.1:{self.port.getHost().port}/token"
        self.seen: list[tuple[str, str]] = []
        self.exchange = self.make()

    def make(self, **options: Any) -> Exchange:
        settings: dict[str, Any] = {
            "reactor": reactor,
            "concurrency": Concurrency(5, 5),
            "observe": lambda path, status, seconds: self.seen.append((path, status)),
            "timeout": 3.0,
            **options,
        }
        exchange = Exchange(**settings)
        self.addCleanup(lambda: Deferred.fromCoroutine(exchange.close()))
        return exchange

    async def fails(self, kind: str, **options: Any) -> ExchangeError:
        try:
            reply = await self.exchange.request("POST", self.url, form={"client_secret": "marker"}, **options)
            reply.object()
        except ExchangeError as e:
            self.assertEqual(e.kind, kind)
            self.assertNotIn("marker", f"{e} {e!r}")
            return e
        raise AssertionError("no failure")

    def run_(self, work: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(work)

    def test_s4_a_connection_closed_after_reading(self) -> Deferred[None]:
        async def test() -> None:
            await self.fails("connection")
            await deferLater(reactor, 0.1)
            self.assertEqual(len(self.factory.requests), 1)
            self.assertEqual(self.seen, [("/token", "-1")])

        return self.run_(test())

    def test_s4_a_kept_connection_that_ends(self) -> Deferred[None]:
        """Also on a connection that was good before: the request may have arrived."""

        async def test() -> None:
            self.factory.answer = http(b"{}")
            await self.exchange.request("POST", self.url, form={})
            self.factory.answer = None
            await self.fails("connection")
            await deferLater(reactor, 0.1)
            self.assertEqual(len(self.factory.requests), 2)
            self.factory.answer = http(b"{}")
            await self.exchange.request("GET", self.url)
            self.factory.answer = None
            try:
                await self.exchange.request("GET", self.url)
            except ExchangeError as e:
                self.assertEqual(e.kind, "connection")
            await deferLater(reactor, 0.1)
            self.assertEqual(len(self.factory.requests), 4)

        return self.run_(test())

    def test_s21_redirects(self) -> Deferred[None]:
        async def test() -> None:
            for status in (301, 302, 303, 307, 308):
                self.factory.requests.clear()
                self.factory.answer = http(b"", f"{status} Moved", f"Location: {self.url}/2\r\n")
                await self.fails("redirect")
                self.assertEqual(len(self.factory.requests), 1)

        return self.run_(test())

    def test_s21_plain_http_stays_on_this_machine(self) -> Deferred[None]:
        async def test() -> None:
            for url in ("http://192.0.2.1/token", "ftp://localhost/", "//x", "http://localhost.evil.example/"):
                self.url = url
                error = await self.fails("connection")
                self.assertFalse(error.sent)

        return self.run_(test())

    def test_s22_large_bodies(self) -> Deferred[None]:
        async def test() -> None:
            self.factory.answer = http(b" " * 5000)
            await self.fails("too large", max_body=4096)
            # Without a length, as much as comes; it is ended before all of it is there.
            self.factory.answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b" " * 50_000_000
            await self.fails("too large")

        return self.run_(test())

    def test_s22_bodies_that_are_no_json(self) -> Deferred[None]:
        async def test() -> None:
            for body, kind in (
                (b"[" * 100_000, "application/json"), (b"{", "application/json"), (b"\xff", "application/json"),
                (b"[]", "application/json"), (b"{}", "text/html"), (b"", "application/json"),
                (b"nul", "application/json"),
            ):  # fmt: skip
                self.factory.answer = http(body, kind=kind)
                await self.fails("no JSON")

        return self.run_(test())

    def test_s20_one_deadline(self) -> Deferred[None]:
        async def test() -> None:
            self.exchange = self.make(timeout=0.2)
            # Neither headers nor, with headers there, the end of the body.
            for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"):
                self.factory.answer = answer
                await self.fails("timeout")
            self.assertEqual(self.exchange.concurrency.active, 0)

        return self.run_(test())

    def test_cut_bodies(self) -> Deferred[None]:
        async def test() -> None:
            self.factory.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
            sending = self.run_(self.fails("connection"))
            await deferLater(reactor, 0.1)
            for transport in reactor.getReaders():
                if getattr(transport, "protocol", None).__class__ is Script:
                    transport.loseConnection()
            await sending

        return self.run_(test())

    def test_no_cookie_comes_back(self) -> Deferred[None]:
        async def test() -> None:
            self.factory.answer = http(b"{}", extra="Set-Cookie: AUTH_SESSION_ID=of-somebody; Path=/\r\n")
            for _ in range(2):
                await self.exchange.request("POST", self.url, form={"a": "ä"})
            self.assertNotIn(b"cookie", self.factory.requests[1].lower())
            self.assertIn(b"a=%C3%A4", self.factory.requests[1])

        return self.run_(test())

    def test_header_names_in_any_case(self) -> Deferred[None]:
        async def test() -> None:
            self.factory.answer = http(b"{}", "201 Created", "lOcAtIoN: here\r\n")
            reply = await self.exchange.request("POST", self.url, json={})
            self.assertEqual((reply.status, reply.headers["location"]), (201, "here"))

        return self.run_(test())

    def test_close_ends_what_is_under_way(self) -> Deferred[None]:
        async def test() -> None:
            self.factory.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
            waiting = self.run_(self.exchange.request("POST", self.url, form={}))
            await deferLater(reactor, 0.1)
            await self.exchange.close()
            try:
                await waiting
            except (CancelledError, ExchangeError):
                pass
            else:
                self.fail("a reply after the end")
            await self.fails("connection")
            self.assertEqual(len(self.factory.requests), 1)

        return self.run_(test())

    def test_many_at_once(self) -> Deferred[None]:
        async def test() -> None:
            self.factory.answer = http(b"{}")
            await gatherResults([self.run_(self.exchange.request("POST", self.url, form={})) for _ in range(10)])
            self.assertEqual(self.exchange.concurrency.completed, 10)

        return self.run_(test())


def http(body: bytes, status: str = "200 OK", extra: str = "", kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body
