"""The section, Felix files, and what a backend makes of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from openems.application import config, felix
from openems.application.backend import Backend
from openems.application.service import now_milliseconds
from openems.backend.metadata.file.demo import create_demo_file
from tests.backend.metrics.test_prometheus import ports

reactor: Any = _reactor
DUMMY = "[metadata.dummy]\n"


class TestConfiguration(SynchronousTestCase):
    def test_absent(self) -> None:
        self.assertIsNone(config.parse(DUMMY, "f.toml").metrics_prometheus)

    def test_2_defaults(self) -> None:
        section = config.parse(DUMMY + "[metrics.prometheus]\n", "f.toml").metrics_prometheus
        assert section is not None
        self.assertEqual((section.port, section.bearer_token, section.open_health), (9400, "", False))

    def test_tokens(self) -> None:
        text = DUMMY + '[metrics.prometheus]\nbearerToken = { env = "TOKEN" }\nnextBearerToken = "old"\n'
        section = config.parse(text, "f.toml", environ={"TOKEN": "new"}).metrics_prometheus
        assert section is not None
        self.assertEqual((section.bearer_token, section.next_bearer_token), ("new", "old"))
        self.assertNotIn("new", repr(section))
        self.assertNotIn("old", repr(section))

    def test_ports(self) -> None:
        text = DUMMY + "[metrics.prometheus]\nport = 8079\n"
        problems = self.assertRaises(config.BadConfiguration, config.parse, text, "f.toml").problems
        self.assertIn("8079 is the port of [health] already", problems[0])

    def test_felix(self) -> None:
        folder = Path(self.mktemp())
        (folder / "Metadata").mkdir(parents=True)
        (folder / "Metrics").mkdir(parents=True)
        (folder / "Metadata" / "Dummy.config").write_text('service.pid="Metadata.Dummy"\n')
        (folder / "Metrics" / "Prometheus.config").write_text(
            'bearerToken="secret"\nport=I"9401"\nservice.pid="Metrics.Prometheus"\n'
        )
        configuration, notes = felix.load(folder)
        section = configuration.metrics_prometheus
        assert section is not None
        self.assertEqual((section.port, section.bearer_token), (9401, "secret"))
        self.assertNotIn("secret", "".join(notes))


class TestBackend(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.state = os.path.abspath(self.mktemp())
        self.port, self.edge, self.ui, self.health = ports(4)
        pool = HTTPConnectionPool(reactor, persistent=False)
        self.agent = Agent(reactor, pool=pool)

    def backend(self) -> Backend:
        text = config.to_toml(
            {
                "backend": {"stateDir": self.state, "interface": "127.0.0.1"},
                "health": {"port": self.health},
                "edge": {"port": self.edge},
                "ui.websocket": {"port": self.ui},
                "metadata.file": {"path": os.path.join(self.state, "metadata.json")},
                "timedata.dummy": [{}],
                "metrics.prometheus": {"port": self.port},
                "alerting": {},
                "mail.smtp": {"host": "127.0.0.1", "fromAddress": "ems@example.org"},
            }
        )
        made = Backend(config.parse(text, "test"), reactor=reactor, now=now_milliseconds)
        self.addCleanup(lambda: Deferred.fromCoroutine(made.stop()))
        return made

    async def ask(self, path: str, port: int | None = None) -> tuple[int, bytes]:
        url = f"http://127.0.0.1:{port or self.port}{path}".encode()
        response = await self.agent.request(b"GET", url)
        return response.code, await treq.content(response)

    async def test_not_ready_until_metadata_is_there(self) -> None:
        backend = self.backend()
        await backend.start()
        code, body = await self.ask("/-/ready")
        failed = {entry["component"] for entry in json.loads(body)["failed"]}
        self.assertEqual((code, failed), (503, {"Metadata", "edge", "ui.websocket"}))
        self.assertEqual((await self.ask("/-/healthy"))[0], 200)
        metrics = (await self.ask("/metrics"))[1]
        self.assertIn(b"openems_backend_metadata_initialized 0.0\n", metrics)
        self.assertIn(b'openems_backend_mails_total{result="sent",template="alerting_offline"} 0.0\n', metrics)
        create_demo_file(
            os.path.join(self.state, "metadata.json"), "pass word", [("edge0", "key-of-edge-0-0123456789")]
        )
        await backend.listening()
        self.assertEqual(await self.ask("/-/ready"), (200, b'{"ready":true,"failed":[]}\n'))
        health = json.loads((await self.ask("/", self.health))[1])["components"]
        self.assertEqual(health["metrics.prometheus"], {"ok": True, "state": f"port {self.port}"})

    async def test_nothing_is_left_when_it_stops(self) -> None:
        create_demo_file(
            os.path.join(self.state, "metadata.json"), "pass word", [("edge0", "key-of-edge-0-0123456789")]
        )
        poller = getattr(reactor, "_poller", None)
        backend = self.backend()
        await backend.start()
        await backend.listening()
        await deferLater(reactor, 0.01)
        await backend.stop()
        self.assertIs(getattr(reactor, "_poller", None), poller)
        again = self.backend()
        await again.start()
        self.assertEqual((await self.ask("/metrics"))[0], 200)

    async def test_22_13_a_port_in_use_ends_the_start(self) -> None:
        taken = reactor.listenTCP(self.port, _Nothing(), interface="127.0.0.1")
        self.addCleanup(taken.stopListening)
        backend = self.backend()
        try:
            await backend.start()
        except CannotListenError as e:
            self.assertEqual(e.port, self.port)
        else:
            self.fail("it started")


class _Nothing:
    noisy = False
    numPorts = 0

    def doStart(self) -> None:
        pass

    doStop = doStart
