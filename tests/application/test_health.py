import json

from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from openems.application.health import Component, site


class TestHealthPage(SynchronousTestCase):
    def get(self, components: dict[str, Component], method: bytes = b"GET") -> tuple[int, str]:
        made = site(lambda: components)
        protocol = made.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        assert protocol is not None
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(method + b" / HTTP/1.0\r\n\r\n")
        head, _, body = transport.value().partition(b"\r\n\r\n")
        protocol.connectionLost(None)  # type: ignore[arg-type]
        return int(head.split()[1]), body.decode()

    def test_all_well(self) -> None:
        status, body = self.get({"Metadata": Component(True, "3 edges")})
        self.assertEqual(status, 200)
        self.assertEqual(
            json.loads(body), {"status": "ok", "components": {"Metadata": {"ok": True, "state": "3 edges"}}}
        )

    def test_one_component_fails(self) -> None:
        status, body = self.get({"Metadata": Component(False, "no file"), "edge": Component(True, "port 1")})
        self.assertEqual(status, 503)
        self.assertEqual(json.loads(body)["status"], "failing")

    def test_only_reading(self) -> None:
        self.assertEqual(self.get({}, b"POST")[0], 405)

    def test_a_look_without_the_body_leaves_no_line_in_the_log(self) -> None:
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.assertEqual(self.get({"Metadata": Component(False, "no file")}, b"HEAD"), (503, ""))
        self.assertEqual(self.get({}, b"HEAD"), (200, ""))
        self.assertEqual(events, [])
