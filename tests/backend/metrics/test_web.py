"""The endpoint over HTTP (metrics.md 3, 18, 23.1)."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import treq
from prometheus_client.core import Metric
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from openems.backend.metrics.families import gauge
from openems.backend.metrics.web import Tokens
from tests.backend.metrics.world import MetricsWorld

reactor: Any = _reactor
TOKEN = "s3cr3t"


class TestTokens(SynchronousTestCase):
    def test_23_1(self) -> None:
        tokens = Tokens([TOKEN, "", "  "])
        for header, expected in (
            ([], False),
            ([b"Bearer wrong"], False),
            ([b"Bearer  s3cr3t"], False),
            ([b"Basic s3cr3t"], False),
            ([b"Bearer"], False),
            ([b"Bearer "], False),
            ([b"Bearer s3cr3t\xff"], False),
            ([b"Bearer x", b"Bearer s3cr3t"], False),
            ([b"Bearer s3cr3t"], True),
            ([b"Bearer s3cr3t "], True),
            ([b"bearer s3cr3t"], True),
        ):
            self.assertIs(tokens.allow(header), expected, header)

    def test_blank_is_none(self) -> None:
        self.assertFalse(Tokens(["   ", ""]))
        self.assertTrue(Tokens(["   ", ""]).allow([]))

    def test_two_for_a_change(self) -> None:
        tokens = Tokens(["old", " new "])
        self.assertTrue(tokens.allow([b"Bearer old"]))
        self.assertTrue(tokens.allow([b"Bearer new"]))


class Over(TestCase):
    """HTTP against one endpoint."""

    timeout = 20
    options: dict[str, Any] = {}

    def setUp(self) -> None:
        self.world = MetricsWorld(clock=reactor, **self.options)
        self.port = self.world.metrics.start(0, "127.0.0.1")
        self.pool = HTTPConnectionPool(reactor, persistent=False)
        self.agent = Agent(reactor, pool=self.pool)
        self.addCleanup(self.pool.closeCachedConnections)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.world.metrics.stop()))

    async def ask(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None
    ) -> tuple[int, Headers, bytes]:
        url = f"http://127.0.0.1:{self.port}{path}".encode()
        sent = Headers({name: [value] for name, value in (headers or {}).items()})
        response = await self.agent.request(method.encode(), url, sent)
        return response.code, response.headers, await treq.content(response)

    def one(self, headers: Headers, name: str) -> str:
        values = headers.getRawHeaders(name, [])
        return values[0] if values else ""


class TestOpen(Over):
    async def test_23_1_metrics(self) -> None:
        for path in ("/metrics", "/metrics/"):
            code, headers, body = await self.ask(path)
            self.assertEqual(code, 200)
            self.assertEqual(self.one(headers, "content-type"), "text/plain; version=0.0.4; charset=utf-8")
            self.assertIn(b'openems_version_info{version="1.2.3"} 1.0\n', body)
            self.assertIn(b"process_open_fds ", body)

    async def test_openmetrics(self) -> None:
        accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
        _, headers, body = await self.ask("/metrics", headers={"Accept": accept})
        self.assertEqual(
            self.one(headers, "content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8"
        )
        self.assertTrue(body.endswith(b"# EOF\n"))
        self.assertIn(b"# TYPE openems_version info\n", body)

    async def test_healthy_and_ready(self) -> None:
        code, headers, body = await self.ask("/-/healthy")
        self.assertEqual((code, body), (200, b"Exporter is healthy.\n"))
        self.assertEqual(self.one(headers, "content-type"), "text/plain; charset=utf-8")
        self.assertEqual((await self.ask("/-/ready"))[0], 200)
        self.world.failed = {"Metadata": "file is missing"}
        code, _, body = await self.ask("/-/ready")
        self.assertEqual(code, 503)
        expected = b'{"ready":false,"failed":[{"component":"Metadata","reason":"file is missing"}]}\n'
        self.assertEqual(body, expected)
        self.world.metrics.lag.last = 60.0
        self.assertEqual((await self.ask("/-/healthy"))[0], 503)

    async def test_22_14_everything_else(self) -> None:
        self.assertEqual((await self.ask("/"))[0], 200)
        for path in ("/foo", "/metricsfoo", "/metrics/x", "/-/", "/%2e%2e/etc/passwd"):
            self.assertEqual((await self.ask(path))[0], 404, path)
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            code, headers, _ = await self.ask("/metrics", method)
            self.assertEqual((code, self.one(headers, "allow")), (405, "GET, HEAD"))

    async def test_head(self) -> None:
        code, headers, body = await self.ask("/metrics", "HEAD")
        self.assertEqual((code, body), (200, b""))
        self.assertGreater(int(self.one(headers, "content-length")), 1000)

    async def test_gzip(self) -> None:
        for accept, expected in (("gzip", True), ("deflate, gzip;q=1.0", True), ("gzip;q=0", False), ("br", False)):
            _, headers, body = await self.ask("/metrics", headers={"Accept-Encoding": accept})
            self.assertEqual(self.one(headers, "content-encoding") == "gzip", expected, accept)
            text = gzip.decompress(body) if expected else body
            self.assertIn(b"websocket_connections", text)

    async def test_23_1_names(self) -> None:
        _, _, body = await self.ask("/metrics?name[]=websocket_connections&name%5B%5D=thread_pool_queue")
        types = [line.split()[2] for line in body.decode().splitlines() if line.startswith("# TYPE")]
        self.assertEqual(sorted(types), ["thread_pool_queue", "websocket_connections"])
        code, _, body = await self.ask("/metrics?name[]=nope")
        self.assertEqual((code, body), (200, b""))

    async def test_collector_that_raises_costs_its_own(self) -> None:
        def broken() -> Iterator[Metric]:
            yield gauge("before", "before", 1)
            raise RuntimeError("broken")

        self.world.metrics.add("broken", broken)
        code, _, body = await self.ask("/metrics")
        self.assertEqual(code, 200)
        self.assertIn(b'openems_backend_metric_collector_errors_total{collector="broken"} 1.0\n', body)
        self.assertIn(b"openems_version_info", body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_22_20_no_stack_trace(self) -> None:
        # A value that no format can write.
        self.world.metrics.add("broken", lambda: iter([gauge("g", "g", "no number")]))  # type: ignore[arg-type]
        code, _, body = await self.ask("/metrics")
        self.assertEqual(code, 500)
        self.assertNotIn(b"Traceback", body)
        self.assertNotIn(b"no number", body)
        self.flushLoggedErrors()

    async def test_many_at_once(self) -> None:
        asked = [Deferred.fromCoroutine(self.ask("/metrics")) for _ in range(12)]
        codes = [code for code, _, _ in await gatherResults(asked)]
        self.assertIn(200, codes)
        self.assertEqual(set(codes) - {200, 503}, set())

    async def test_who_hangs_up_holds_nothing(self) -> None:
        asked = [Deferred.fromCoroutine(self.ask("/metrics")) for _ in range(3)]
        for one in asked:
            one.addErrback(lambda failure: None)
            one.cancel()
        self.assertEqual((await self.ask("/metrics"))[0], 200)


class TestGuarded(Over):
    options = {"tokens": [TOKEN]}

    async def test_23_1_every_path_asks(self) -> None:
        for path in ("/metrics", "/-/healthy", "/-/ready", "/", "/foo", f"/metrics?token={TOKEN}"):
            code, headers, body = await self.ask(path)
            self.assertEqual((code, body), (401, b""), path)
            self.assertEqual(self.one(headers, "www-authenticate"), "Bearer")

    async def test_wrong_and_right(self) -> None:
        for value, expected in (("Bearer wrong", 401), ("Basic czpz", 401), (f"Bearer {TOKEN}", 200)):
            code, _, _ = await self.ask("/metrics", headers={"authorization": value})
            self.assertEqual(code, expected, value)
        self.assertEqual(self.world.metrics.pages.refused, 2)


class TestOpenHealth(Over):
    options = {"tokens": [TOKEN], "open_health": True}

    async def test_probes_need_no_token(self) -> None:
        self.assertEqual((await self.ask("/-/healthy"))[0], 200)
        self.assertEqual((await self.ask("/-/ready"))[0], 200)
        self.assertEqual((await self.ask("/metrics"))[0], 401)

    async def test_reasons_are_for_those_with_a_token(self) -> None:
        self.world.metrics.pages._ready = lambda: {"Timedata timedata0": "no connection to openems@db.internal"}
        code, _, body = await self.ask("/-/ready")
        self.assertEqual((code, b"Timedata timedata0" in body, b"db.internal" in body), (503, True, False))
        code, _, body = await self.ask("/-/ready", headers={"Authorization": f"Bearer {TOKEN}"})
        self.assertEqual((code, b"db.internal" in body), (503, True))
