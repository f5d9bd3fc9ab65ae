"""What a stranger may cost at a page for monitors."""

from __future__ import annotations

import tempfile
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metrics.pages import MAX_BODY, MAX_CONNECTIONS, RECEIVE, PageSite
from openems.backend.metrics.web import MetricsPages, Tokens


class Bodies(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        pages = MetricsPages(
            lambda: [], reactor=self.clock, tokens=Tokens(["s3cret"]), ready=lambda: {}, healthy=lambda: True
        )
        self.site = PageSite(pages, timeout=60, reactor=self.clock)
        self.patch(tempfile, "TemporaryFile", lambda *_: self.fail("a stranger's body goes to the disk"))

    def connect(self) -> Any:
        channel: Any = self.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        assert channel is not None
        channel.makeConnection(StringTransport())
        return channel

    def status(self, channel: Any) -> bytes:
        value: bytes = channel.transport.value()
        return value.partition(b"\r\n")[0]

    def test_announced(self) -> None:
        channel = self.connect()
        channel.dataReceived(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n")
        self.assertEqual(self.status(channel), b"HTTP/1.1 413 Content Too Large")
        self.assertTrue(channel.transport.disconnecting)
        channel.dataReceived(b"x" * 100_000)

    def test_in_pieces(self) -> None:
        channel = self.connect()
        channel.dataReceived(b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(MAX_BODY // 1024 + 1):
            channel.dataReceived(b"400\r\n" + b"x" * 1024 + b"\r\n")
        self.assertEqual(self.status(channel), b"HTTP/1.1 413 Content Too Large")
        self.assertTrue(channel.transport.disconnecting)

    def test_forms_are_not_parsed(self) -> None:
        channel = self.connect()
        body = b"a=" + b"&" * 1000
        channel.dataReceived(
            b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Authorization: Bearer s3cret\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.assertEqual(self.status(channel), b"HTTP/1.1 405 Method Not Allowed")
        channel.dataReceived(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\r\n\r\n")
        self.assertIn(b"HTTP/1.1 200 OK", channel.transport.value(), "the connection goes on")

    def test_a_request_that_trickles_in(self) -> None:
        channel = self.connect()
        for byte in b"GET /metrics HTTP/1.1\r\nHost: x\r\n":
            channel.dataReceived(bytes([byte]))
            self.clock.advance(1)
        self.assertEqual(self.status(channel), b"HTTP/1.1 408 Request Timeout")
        self.assertLess(RECEIVE, self.clock.seconds())

    def test_connections(self) -> None:
        channels = [self.connect() for _ in range(MAX_CONNECTIONS)]
        self.assertIsNone(self.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1)))
        channels[0].connectionLost(None)
        self.assertIsNotNone(self.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1)))
        self.assertEqual(self.site.refused, 1)
