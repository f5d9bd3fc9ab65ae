"""The edge application as a program: its configuration, its pages, its life as a process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from openems.application import edgeapplication
from openems.application.config import BadConfiguration
from openems.backend.edgeapplication.counters import PREFIX, Status
from openems.websocket.client import ReconnectingClient
from tests.backend.edgeapplication.test_live import KEYS, LiveCase, Peer

ROOT = Path(__file__).parents[2]


class TestConfiguration(SynchronousTestCase):
    def problems(self, text: str) -> list[str]:
        with self.assertRaises(BadConfiguration) as refused:
            edgeapplication.parse(text, "f.toml")
        return refused.exception.problems

    def test_the_example(self) -> None:
        configuration = edgeapplication.load(str(ROOT / "examples" / "edge-application.toml"))
        self.assertEqual(configuration.backend_edge_app.uri, "ws://10.0.0.5:8083")

    def test_defaults_are_the_java_programs(self) -> None:
        section = edgeapplication.parse("", "f.toml").backend_edge_app
        self.assertEqual((section.id, section.uri, section.port), ("edges0", "ws://localhost:8083", 8081))

    def test_what_is_wrong_is_named(self) -> None:
        for text, part in (
            ("[backend.edge.app]\nclientPoolSize = 10", "clientPoolSize: has no effect here"),
            ("[backend.edge.app]\nkeepedges = true", 'the nearest known is "keepEdges"'),
            ("[backend.edge.app]\nport = 0", "port:"),
            ('[backend.edge.app]\nid = "a b"', "id:"),
            ('[backend.edge.app]\nuri = "http://x"', "uri:"),
            ('[backend.edge.app]\nuri = "ws://"', "uri: 'ws://' names no host"),
            ('[backend.edge.app]\nuri = "ws://x:99999"', "uri:"),
            ('[backend.edge.app]\ntrustedProxies = ["x"]', "trustedProxies:"),
            ("[health]\nport = 8081", "8081 is the port of [backend.edge.app] already"),
            ("[metadata.file]\npath = 'x'", "unknown section"),
        ):
            [problem] = self.problems(text)
            self.assertIn(part, problem)
            self.assertIn("f.toml", problem)

    def test_the_java_programs_folder(self) -> None:
        folder = Path(self.mktemp()) / "Backend" / "Edge"
        folder.mkdir(parents=True)
        (folder / "App.config").write_bytes(
            b'\xef\xbb\xbfservice.pid="Backend.Edge.App"\r\nid="edges3"\r\nuri="ws://10.0.0.5:8083"\r\n'
            b'port=I"8181"\r\nclientPoolSize=I"10"\r\nodd="x"\r\n'
        )
        (folder / "Prometheus.config").write_text('service.pid="Metrics.Prometheus"\nport=I"9400"\n')
        configuration, notes = edgeapplication.from_felix(str(folder.parent.parent))
        section = configuration.backend_edge_app
        self.assertEqual((section.id, section.uri, section.port), ("edges3", "ws://10.0.0.5:8083", 8181))
        self.assertEqual(len(notes), 2)
        self.assertIn("odd is no known key", notes[0])
        self.assertIn("/metrics of [health]", notes[1])
        (folder / "App.config").write_text('service.pid="Backend.Edge.App"\nport=I"0"\n')
        self.assertRaises(BadConfiguration, edgeapplication.from_felix, str(folder))

    def test_documentation(self) -> None:
        """The page has what the program reads."""
        page = (ROOT / "docs" / "edge-application.md").read_text()
        self.assertIn(edgeapplication.documentation(), page)

    def test_the_unit_starts_what_is_there(self) -> None:
        unit = (ROOT / "examples" / "openems-edge-application.service").read_text()
        self.assertIn(" openems-edge-application --config ", unit)


class TestPages(SynchronousTestCase):
    def get(self, path: str, status: Status, method: str = "GET") -> tuple[int, str, str]:
        protocol = edgeapplication.site(lambda: status).buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        assert protocol is not None
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(f"{method} {path} HTTP/1.0\r\n\r\n".encode())
        head, _, body = transport.value().partition(b"\r\n\r\n")
        protocol.connectionLost(None)  # type: ignore[arg-type]
        return int(head.split()[1]), head.decode(), body.decode()

    def test_health(self) -> None:
        good = Status(id="edges0", connected=True, informed=True, listening=True, port=8081, edges=3, known_edges=4)
        for path in ("/", "/health"):
            code, _, body = self.get(path, good)
            self.assertEqual(code, 200)
            self.assertEqual(json.loads(body)["components"]["Backend.Edge.Server"]["state"], "port 8081, 3 edges of 4")
        for bad, part in (
            (Status(), "NOT CONNECTED"),
            (Status(), "no list of edges yet"),
            (Status(connected=True, informed=True), "the backend knows no edge"),
            (Status(connected=True, trouble="port 8081 cannot be opened: in use"), "cannot be opened"),
            (Status(listening=True, waiting_messages=7, waiting_bytes=9), "7 messages wait for it (9 bytes)"),
            (Status(dropped_messages=5), "5 messages dropped"),
        ):
            code, _, body = self.get("/health", bad)
            self.assertEqual(code, 503)
            self.assertIn(part, body)

    def test_metrics(self) -> None:
        status = Status(connected=True, edges=3, messages_up=5, bytes_down=7, dropped_messages=2)
        code, head, body = self.get("/metrics", status)
        self.assertEqual(code, 200)
        self.assertIn("text/plain; version=0.0.4", head)
        for line in (
            "manager_connected 1.0",
            "connected_edges 3.0",
            'messages_total{direction="up"} 5.0',
            'bytes_total{direction="down"} 7.0',
            "dropped_messages_total 2.0",
        ):
            self.assertIn(f"\n{PREFIX}{line}\n", body)
        self.assertIn("openems_version_info{", body)

    def test_every_counter_is_shown(self) -> None:
        """Each field of a status changes what a scraper gets."""
        hidden = {"id", "informed", "port", "trouble"}
        empty = self.get("/metrics", Status())[2]
        for name in Status.__struct_fields__:
            shown = self.get("/metrics", Status(**{name: 1_000_003}))[2]
            changed = [line for line in shown.splitlines() if line.startswith(PREFIX) and line not in empty]
            self.assertEqual(len(changed), 0 if name in hidden else 1, name)

    def test_nothing_else(self) -> None:
        self.assertEqual(self.get("/nope", Status())[0], 404)
        self.assertEqual(self.get("/metrics", Status(), "POST")[0], 405)


class Program(ProcessProtocol):
    def __init__(self) -> None:
        self.output = ""
        self.ended: Deferred[int] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode()

    errReceived = outReceived

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(0 if isinstance(reason.value, ProcessDone) else reason.value.exitCode or -1)


class TestProgram(LiveCase):
    """``twistd -n openems-edge-application``, a process, between this backend and an edge."""

    def program(self, *arguments: str) -> Program:
        program = Program()
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        twistd = "import sys; from twisted.scripts.twistd import run; sys.exit(run())"
        command = [sys.executable, "-c", twistd, "-n", "--pidfile=", "openems-edge-application"]
        process: Any = reactor.spawnProcess(
            program, sys.executable, [*command, *arguments], env=environ, path=self.state
        )  # type: ignore[attr-defined]

        def end() -> Deferred[int]:
            if not program.ended.called:
                process.signalProcess("TERM")
            return program.ended

        self.addCleanup(end)
        program.end = end  # type: ignore[attr-defined]
        return program

    async def test_the_whole_way(self) -> None:
        backend = await self.backend()
        path = os.path.join(self.state, "app.toml")
        port, health = 8081 + self.offset, 8079 + self.offset
        Path(path).write_text(
            f'[backend.edge.app]\nuri = "ws://127.0.0.1:{8083 + self.offset}"\nport = {port}\n'
            f'interface = "127.0.0.1"\n[health]\nport = {health}\n'
        )
        program = self.program("--config", path)
        await self.until(lambda: f"listening on port {port}" in program.output)
        edge = Peer()
        client = ReconnectingClient(
            f"ws://127.0.0.1:{port}",
            {"apikey": KEYS["edge0"]},
            edge,
            reactor=reactor,
            min_wait=60,
            max_wait=60,
            name="E",
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(client.stop()))
        client.start()
        await self.until(lambda: backend.edge_manager.is_connected("edge0"))
        response = await treq.get(f"http://127.0.0.1:{health}/health", persistent=False)
        self.assertEqual((response.code, (await response.json())["status"]), (200, "ok"))
        self.assertEqual(await program.end(), 0)  # type: ignore[attr-defined]
        await self.until(lambda: edge.closes)
        await self.until(lambda: not backend.edge_manager.is_connected("edge0"))

    async def test_a_bad_start(self) -> None:
        program = self.program()
        self.assertEqual(await program.ended, 1)
        self.assertIn("--config FILE", program.output)
