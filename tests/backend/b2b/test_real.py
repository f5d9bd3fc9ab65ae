"""The wired application over real sockets: treq, curl, Python's requests and websockets, schemathesis, and the examples
of docs/b2b.md."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor as reactor_
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from openems.application import config
from openems.application.backend import Backend
from openems.application.service import embedded, now_milliseconds
from openems.backend.b2b import rest as rest_module
from openems.backend.b2b.site import unsent
from openems.backend.metadata.file.demo import create_demo_file
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Notification, Request, loads, raw
from openems.websocket.client import ReconnectingClient
from openems.websocket.peer import Connection
from services.chromium import dump_dom
from tests.application.ports import free_offset
from tests.backend.b2b.world import basic
from tests.real import real

reactor: Any = reactor_
PAGE = Path(__file__).parents[3] / "docs" / "b2b.md"
ENERGY = "_sum/GridBuyActiveEnergy"
KEY = "key-of-edge-0-0123456789"
STATUS = {"method": "getEdgesStatus", "params": {"edgeIds": ["edge0"]}}


class Client:
    """A WebSocket client; ``closed_with``: (code, reason)."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self.client = ReconnectingClient(
            f"ws://127.0.0.1:{port}", headers, self._made, reactor=reactor, min_wait=60, max_wait=60, name="Client"
        )
        self.connected: Deferred[Connection] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self.values: list[Any] = []
        self.arrived: Deferred[Any] = Deferred()

    def _made(self, connection: Connection) -> Client:
        self.connection = connection
        return self

    def opened(self) -> None:
        if not self.connected.called:
            self.connected.callback(self.connection)

    def received(self, text: bytes) -> bool:
        return False

    async def request(self, request: Request) -> None:
        return None

    def notification(self, notification: Notification) -> None:
        self.values.append(loads(notification.params))
        arrived, self.arrived = self.arrived, Deferred()
        arrived.callback(self.values[-1])

    def closed(self) -> None:
        self.lost.callback(None)


class RealTest(TestCase):
    timeout = 120

    async def setUp(self) -> None:
        self.state = os.path.abspath(self.mktemp())
        offset = free_offset()
        self.write_metadata("secret")
        text = embedded(self.state, offset) + "\n[backend2backend.rest]\nmaxBody = 100000\n"
        text += "[[backend2backend.websocket]]\n[[backend2backend.websocket]]\nport = 8077\nmaxValues = 10\n"
        self.backend = Backend(config.parse(text, "test"), reactor=reactor, now=now_milliseconds)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.backend.stop()))
        await self.backend.start()
        await self.backend.listening()
        self.rest = self.backend.ports["backend2backend.rest"]
        self.url = f"http://127.0.0.1:{self.rest}/jsonrpc"
        self.pool = HTTPConnectionPool(reactor)
        self.addCleanup(self.pool.closeCachedConnections)
        self.treq: Any = treq.client.HTTPClient(Agent(reactor, pool=self.pool))

    def write_metadata(self, password: str) -> None:
        create_demo_file(os.path.join(self.state, "metadata.json"), password, [("edge0", KEY)])

    async def connect(self, port: int, headers: dict[str, str]) -> Client:
        client = Client(port, headers)
        client.client.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(client.client.stop()))
        await client.connected.addTimeout(10, reactor)
        return client

    async def edge(self) -> Client:
        """The edge, with two values in the cache."""
        edge = await self.connect(self.backend.ports["edge"], {"apikey": KEY})
        params = {str(now_milliseconds()): {"_sum/EssSoc": 61, "_sum/GridActivePower": -240}}
        edge.connection.notify(Notification("timestampedData", raw(params)))
        while self.backend.edge_manager.get_channel_values("edge0", ["_sum/EssSoc"])["_sum/EssSoc"] is None:
            await deferred_later(0.02)
        return edge

    async def run_python(self, code: str, *arguments: str) -> str:
        return await self.command(sys.executable, "-c", code, *arguments)

    async def command(self, *command: str) -> str:
        environ = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "NO_COLOR": "1"}
        out, err, code = await getProcessOutputAndValue(command[0], command[1:], env=environ)
        self.assertEqual(code, 0, (out + err).decode()[-6000:])
        return str(out.decode())

    async def test_examples_of_the_page(self) -> None:
        """T089"""
        edge = await self.edge()
        noon = datetime.combine(date.today() - timedelta(days=1), time(12), UTC)
        params = {str(round(noon.timestamp() * 1000) + 3_600_000 * h): {ENERGY: 1000 + 18450 * h} for h in (0, 1)}
        edge.connection.notify(Notification("resendData", raw(params)))
        await self.history(noon)
        offset = self.rest - 8075
        examples = re.findall(r"```(sh|python)\n(.*?)```", PAGE.read_text(), re.DOTALL)
        self.assertEqual([kind for kind, _ in examples], ["sh", "sh", "python", "python"])
        outputs = []
        for kind, text in examples:
            moved = re.sub(r"127\.0\.0\.1:(\d+)", lambda m: f"127.0.0.1:{int(m[1]) + offset}", text)
            outputs.append(await (self.command("/bin/sh", "-c", moved) if kind == "sh" else self.run_python(moved)))
        self.assertEqual(json.loads(outputs[0])["result"], {"edge0": {"online": True}})
        values = {"edge0": {"_sum/EssSoc": 61, "_sum/GridActivePower": -240}}
        self.assertEqual(json.loads(outputs[1])["result"], values)
        self.assertEqual(
            outputs[2].splitlines(),
            ["{'edge0': {'_sum/EssSoc': 61}}", "{'data': {'_sum/GridBuyActiveEnergy': 18450}}"],
        )
        self.assertEqual(outputs[3].splitlines(), [str(values)] * 2)

    async def history(self, noon: datetime) -> None:
        """Wait until it is written."""
        day = timedelta(hours=12)
        for _ in range(200):
            try:
                await self.backend.timedata_manager.query_historic_energy("edge0", noon - day, noon + day, [ENERGY])
                return
            except OpenemsError:
                await deferred_later(0.05)

    async def test_treq(self) -> None:
        async def ask(body: Any, auth: tuple[str, str] | None = ("admin", "secret"), **options: Any) -> tuple[int, Any]:
            reply = await self.treq.post(self.url, data=json.dumps(body).encode(), auth=auth, timeout=20, **options)
            return reply.code, await reply.json()

        self.assertEqual((await ask(STATUS))[1]["result"], {"edge0": {"online": False}})
        verified = self.backend.b2b.credentials.verified
        replies = await gatherResults([Deferred.fromCoroutine(ask(STATUS)) for _ in range(50)])
        self.assertEqual({code for code, _ in replies}, {200})
        self.assertEqual(len({body["id"] for _, body in replies}), 50)
        self.assertEqual(self.backend.b2b.credentials.verified, verified)
        code, body = await ask(STATUS, None)
        self.assertEqual((code, body["error"]["code"]), (401, 1003))
        code, body = await ask({"x": "y" * 200_000})
        self.assertEqual((code, body["error"]["message"]), (413, "The body is longer than 100000 bytes"))
        values = {"ids": ["edge0"], "channels": [f"meter0/Channel{n}" for n in range(3000)]}
        code, body = await ask({"method": "getEdgesChannelsValues", "params": values})
        self.assertEqual((code, len(body["result"]["edge0"])), (200, 3000))

    async def test_long_reply(self) -> None:
        """b2b.md 7, 6: no reply is cut off"""
        from openems.backend.b2b import rest

        async def handle_request(context: str, user: Any, request: Any) -> Any:
            return {"text": "x" * 20_000_000}

        server = self.backend.b2b.rest
        assert isinstance(server, rest.Backend2BackendRest)
        self.patch(server, "_handler", type("Handler", (), {"handle_request": staticmethod(handle_request)}))
        reply = await self.treq.post(self.url, data=json.dumps(STATUS).encode(), auth=("admin", "secret"), timeout=60)
        self.assertEqual(len((await reply.json())["result"]["text"]), 20_000_000)

    async def test_curl(self) -> None:
        out = await self.command("curl", "-sS", "-i", "-u", "admin:wrong", "-d", json.dumps(STATUS), self.url)
        head, _, body = out.replace("\r", "").partition("\n\n")
        self.assertIn("401 Unauthorized", head)
        self.assertIn('WWW-Authenticate: Basic realm="OpenEMS Backend"', head)
        self.assertEqual(json.loads(body)["error"]["code"], 1003)
        big = os.path.join(self.state, "big")
        with open(big, "wb") as file:
            file.write(b" " * 20_000_000)
        for way, answers in (
            # Asks before it sends.
            (["--data-binary", f"@{big}", "--expect100-timeout", "60"], (b"413",)),
            (["-T", big, "-X", "POST", "-H", "Transfer-Encoding: chunked"], (b"413", b"000")),
        ):
            options = ["-sS", "-o", os.path.join(self.state, "out"), "-w", "%{http_code}", "-u", "admin:secret"]
            # What is sent after the drained part may break the connection, with or without the answer.
            out, _, _ = await getProcessOutputAndValue("curl", [*options, *way, self.url], env=dict(os.environ))
            self.assertIn(out, answers)
        out = await self.command(
            "curl", "-sS", "--http1.0", "-u", "admin:secret", "-d", json.dumps(STATUS), self.url, "--next",
            "-sS", "-u", "admin:secret", "-H", "Expect: 100-continue", "-d", json.dumps(STATUS), self.url,
        )  # fmt: skip
        self.assertEqual(out.count('"result":{"edge0":{"online":false}}'), 2)

    async def test_requests(self) -> None:
        """Python's requests, with a session: redirects, authentication, JSON of each error."""
        code = """
import json, sys, requests
base = sys.argv[1]
session = requests.Session()
session.auth = ("admin", "secret")
seen = []
for method, path, body in (
    ("POST", "/jsonrpc", '{"method":"getEdgesStatus","params":{"edgeIds":["edge0"]}}'),
    ("POST", "/jsonrpc/", '{"method":"nope","params":{}}'),
    ("POST", "/jsonrpc", '{"method":'),
    ("GET", "/jsonrpc", None),
    ("POST", "/nope", "{}"),
    ("GET", "/live", None),
    ("GET", "/openapi.json", None),
):
    reply = session.request(method, base + path, data=body, timeout=10)
    seen.append([reply.status_code, reply.history == [], reply.json().get("error", {}).get("code")])
print(json.dumps(seen))
"""
        out = await self.run_python(code, f"http://127.0.0.1:{self.rest}")
        self.assertEqual(
            json.loads(out),
            [
                [200, True, None],
                [400, True, 4001],
                [400, True, 5016],
                [405, True, 1],
                [404, True, 1],
                [200, True, None],
                [200, True, None],
            ],
        )

    async def test_client_goes_away(self) -> None:
        """The edge's answer is not waited for when nobody waits for ours."""
        edge = await self.edge()
        asked: Deferred[Request] = Deferred()
        never: Deferred[None] = Deferred()

        async def request(request: Request) -> None:
            asked.callback(request)
            await never

        edge.request = request  # type: ignore[method-assign]
        body = {"method": "edgeRpc", "params": {"edgeId": "edge0", "payload": {"method": "x", "params": {}}}}
        reply = self.treq.post(self.url, data=json.dumps(body).encode(), auth=("admin", "secret"))
        await asked.addTimeout(10, reactor)
        rest = self.backend.b2b.rest
        assert rest is not None
        self.assertEqual(rest.running, 1)
        reply.cancel()
        await self.assertFailure(reply, Exception)
        for _ in range(100):
            if not rest.running:
                break
            await deferred_later(0.05)
        self.assertEqual((rest.running, rest.cancelled), (0, 1))

    async def test_websocket(self) -> None:
        await self.edge()
        port = self.backend.ports["backend2backend.websocket"]
        client = await self.connect(port, {"Authorization": basic("admin", "secret")})
        params = {"count": 0, "ids": ["edge0"], "channels": ["_sum/EssSoc"]}
        self.assertEqual(loads(await client.connection.request("subscribeEdgesChannels", params)), {})
        if not client.values:
            await client.arrived.addTimeout(10, reactor)
        self.assertEqual(client.values[0], {"edge0": {"_sum/EssSoc": 61}})
        await client.arrived.addTimeout(10, reactor)
        self.assertEqual(client.values[1], {"edge0": {"_sum/EssSoc": 61}})
        # A password that changes ends the connection, and what was remembered of it.
        self.write_metadata("other")
        await client.lost.addTimeout(20, reactor)
        reply = await self.treq.post(self.url, data=json.dumps(STATUS).encode(), auth=("admin", "secret"), timeout=20)
        self.assertEqual((reply.code, (await reply.json())["error"]["code"]), (401, 1003))

    async def test_second_websocket(self) -> None:
        client = await self.connect(
            self.backend.ports["backend2backend.websocket 2"], {"Authorization": basic("admin", "secret")}
        )
        params = {"count": 0, "ids": ["edge0"], "channels": [f"a/b{n}" for n in range(11)]}
        with self.assertRaisesRegex(Exception, "at most 10 values"):
            await client.connection.request("subscribeEdgesChannels", params)
        stranger = await self.connect(
            self.backend.ports["backend2backend.websocket 2"], {"Authorization": basic("admin", "wrong")}
        )
        await stranger.lost.addTimeout(10, reactor)
        health = self.backend.health()
        self.assertTrue(health["backend2backend.rest"].ok)
        self.assertTrue(health["backend2backend.websocket 2"].ok)

    async def test_files_of_the_page(self) -> None:
        """Whole for who reads them; for who does not little of them waits, and not for long."""
        self.patch(rest_module, "FILE_SECONDS", 1.5)
        base = f"http://127.0.0.1:{self.rest}"
        page = await (await self.treq.get(f"{base}/docs")).text()
        for link in re.findall('(?:src|href)="([^"]+)"', page):
            reply = await self.treq.get(f"{base}/{link}", timeout=20)
            self.assertEqual((reply.code, len(await reply.content())), (200, reply.length), link)
        rest = self.backend.b2b.rest
        assert rest is not None
        strangers = [socket.socket() for _ in range(5)]
        for stranger in strangers:
            self.addCleanup(stranger.close)
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await deferToThread(stranger.connect, ("127.0.0.1", self.rest))
            # More than the kernel takes.
            stranger.sendall(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        await deferred_later(0.5)
        waiting = [unsent(channel.transport) for channel in rest.site.channels]
        self.assertGreaterEqual(sum(map(bool, waiting)), 5)
        self.assertLess(max(waiting), 256 * 1024)
        strangers[0].close()
        for _ in range(200):
            if not any(unsent(channel.transport) for channel in rest.site.channels):
                break
            await deferred_later(0.1)
        self.assertLessEqual(len(rest.site.channels), 1)

    async def test_page(self) -> None:
        """In a browser that may load nothing but from here."""
        real("chromium")
        url = f"http://127.0.0.1:{self.rest}/docs"
        dom = await deferToThread(dump_dom, url, virtual_time=20_000)
        for text in ("One JSON-RPC request", "opblock-post", "Current values: every channel", "Authorize"):
            self.assertIn(text, dom)

    async def test_schemathesis(self) -> None:
        """Generated requests, right and wrong ones: no failure, nothing that the document does not tell."""
        await self.edge()
        program = str(Path(sys.executable).with_name("schemathesis"))
        if not os.path.exists(program):
            if os.environ.get("CI") == "true":
                self.fail("schemathesis is not installed")
            self.skipTest("schemathesis is not installed")
        out = await self.command(
            program, "run", f"http://127.0.0.1:{self.rest}/openapi.json", "--auth", "admin:secret",
            "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,"
            "response_headers_conformance,response_schema_conformance,ignored_auth,unsupported_method,"
            "missing_required_header,negative_data_rejection",
            "--max-examples", "60", "--generation-deterministic", "--phases", "examples,coverage,fuzzing",
            "--request-timeout", "20", "--mode", "all",
        )  # fmt: skip
        self.assertIn("4 selected / 4 total", out)
        generated = re.search(r"(\d+) generated, (\d+) passed", out)
        assert generated is not None, out
        self.assertEqual(generated[1], generated[2])
        self.assertGreater(int(generated[1]), 200)


def deferred_later(seconds: float) -> Deferred[None]:
    later: Deferred[None] = Deferred()
    reactor.callLater(seconds, later.callback, None)
    return later
