"""The whole thing: real processes, real sockets (``./dev run``)."""

import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

from openems.application import simulator
from openems.testing.uiclient import UiClient
from tests.application.ports import free_offset

ROOT = str(Path(__file__).parents[2])


class Process(ProcessProtocol):
    def __init__(self) -> None:
        self.output = ""
        self.ended: Deferred[int] = Deferred()
        self.ready: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode()
        if "ready" in self.output.splitlines() and not self.ready.called:
            self.ready.callback(None)

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        status = 0 if isinstance(value, ProcessDone) else value.exitCode if value.signal is None else -value.signal
        if not self.ready.called:
            self.ready.errback(AssertionError(f"ended with {status} before it was ready:\n{self.output}"))
        self.ended.callback(status)


def takes_signals(pid: int) -> bool:
    """Whether the process is the demo already, and has a handler for SIGTERM."""
    if b"\0demo\0" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        return False
    caught = re.search(r"^SigCgt:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


class TestDemo(TestCase):
    timeout = 150

    def start(self, *arguments: str, through: tuple[str, ...] = ()) -> Process:
        process = Process()
        command = [*through, sys.executable, "-m", "openems.application", "demo", *arguments]
        self.transport = reactor.spawnProcess(  # type: ignore[attr-defined]
            process,
            command[0],
            command,
            env={**os.environ, "PYTHONPATH": ROOT},
            path=None,
        )
        transport = self.transport

        def end() -> Deferred[int] | None:
            if process.ended.called:
                return None
            transport.signalProcess("TERM")
            return process.ended

        self.addCleanup(end)
        return process

    async def stop(self, process: Process, name: str) -> None:
        began = time.monotonic()
        self.transport.signalProcess(name)
        self.assertEqual(await process.ended, 0, process.output)
        self.assertLess(time.monotonic() - began, 15)

    async def login(self, offset: int, password: str) -> UiClient:
        client = UiClient(f"ws://127.0.0.1:{8082 + offset}", reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(client.close()))
        await client.connect()
        await client.login("admin", password)
        return client

    async def until_online(self, client: UiClient, count: int) -> list[dict[str, Any]]:
        for _ in range(100):
            edges = (await client.request("getEdges", {"page": 0, "limit": 20, "searchParams": {}}))["edges"]
            if sum(edge["isOnline"] for edge in edges) == count:
                return edges
            await deferLater(reactor, 0.2)  # type: ignore[arg-type]
        raise AssertionError(f"not all edges are online: {edges}")

    async def assert_history(self, client: UiClient, begin: datetime, end: datetime) -> None:
        """Values between the two, with a day's query as the UI asks it."""
        result = await client.edge_rpc(
            "edge0",
            "queryHistoricTimeseriesData",
            {
                "timezone": "UTC",
                "fromDate": begin.date().isoformat(),
                "toDate": end.date().isoformat(),
                "channels": ["_sum/EssSoc"],
                "resolution": {"value": 5, "unit": "Minutes"},
            },
        )
        times = [datetime.fromisoformat(text.replace("Z", "+00:00")) for text in result["timestamps"]]
        values = dict(zip(times, result["data"]["_sum/EssSoc"], strict=True))
        self.assertTrue([v for t, v in values.items() if begin <= t <= end and v is not None], values)

    async def test_first_and_second_start(self) -> None:
        state = os.path.abspath(self.mktemp())
        offset = free_offset()
        arguments = ["--offset", str(offset), "--state", state, "--edges", "2"]
        process = self.start(*arguments)
        await process.ready
        found = re.search(r"login +admin, password (\S+)", process.output)
        assert found is not None, process.output
        password = found[1]
        self.assertLess(len(process.output.splitlines()), 24)
        self.assertEqual(process.output.splitlines()[-1], "ready")

        url = f"http://127.0.0.1:{8079 + offset}/"
        body = await deferToThread(lambda: urllib.request.urlopen(url, timeout=10).read())
        self.assertEqual(json.loads(body)["status"], "ok")

        client = await self.login(offset, password)
        if not simulator.available():
            await self.stop(process, "INT")
            raise SkipTest("no simulator: openems.simulator.fleet is missing")
        edges = await self.until_online(client, 2)
        self.assertEqual([edge["id"] for edge in edges], ["edge0", "edge1"])
        await client.request("subscribeEdges", {"edges": ["edge0"]})
        await client.edge_rpc("edge0", "subscribeChannels", {"count": 0, "channels": ["_sum/State", "_sum/EssSoc"]})
        pushed = await client.push("currentData", where=lambda data: data.get("_sum/EssSoc") is not None)
        self.assertEqual(pushed["_sum/State"], 0)
        # Some values of this start are to be found by the next one.
        began = datetime.now(UTC) - timedelta(minutes=5)
        await deferLater(reactor, 3)  # type: ignore[arg-type]
        await self.stop(process, "INT")
        ended = datetime.now(UTC)

        again = self.start(*arguments)
        await again.ready
        self.assertIn("password as before", again.output)
        self.assertNotIn(password, again.output)
        client = await self.login(offset, password)
        await self.assert_history(client, began, ended)
        await self.stop(again, "TERM")
        for name in ("backend.log", "simulator.log"):
            log = Path(state, name).read_text()
            self.assertNotIn("Traceback", log)
            self.assertNotIn(password, log)

    async def test_port_in_use_is_named(self) -> None:
        offset = free_offset()
        taken = socket.socket()
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 8082 + offset))
        taken.listen()
        state = os.path.abspath(self.mktemp())
        process = self.start("--offset", str(offset), "--state", state)
        process.ready.addErrback(lambda _: None)
        self.assertEqual(await process.ended, 1)
        self.assertIn(str(8082 + offset), process.output)
        self.assertNotIn("Traceback", process.output)
        # Nobody was shown the password of that start.
        taken.close()
        again = self.start("--offset", str(offset), "--state", state)
        await again.ready
        self.assertNotIn("as before", again.output)
        # kill -9: nothing is left that keeps the ports.
        self.transport.signalProcess("KILL")
        await again.ended
        third = self.start("--offset", str(offset), "--state", state)
        await third.ready
        self.assertIn("as before", third.output)
        await self.stop(third, "INT")

    async def test_stopped_while_it_starts(self) -> None:
        """At any moment from the first on in which the process can take a signal: no traceback, status 0."""
        state, offset = os.path.abspath(self.mktemp()), str(free_offset())
        for after in (0.0, 0.1, 0.2, 0.3, 0.5, 0.8):
            process = self.start("--offset", offset, "--state", state, "--edges", "1")
            process.ready.addErrback(lambda _: None)
            while not takes_signals(self.transport.pid):
                await deferLater(reactor, 0.002)  # type: ignore[arg-type]
            await deferLater(reactor, after)  # type: ignore[arg-type]
            await self.stop(process, "INT" if after in (0.1, 0.5) else "TERM")
            self.assertNotIn("Traceback", process.output)
            # Nobody has seen a password yet, so the next start must show one.
            self.assertIsNone(re.search("as before", process.output), process.output)

    async def test_sigint_where_a_shell_has_it_ignored(self) -> None:
        """As a shell does with what it starts in the background."""
        ignoring = ("/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh")
        state = os.path.abspath(self.mktemp())
        process = self.start("--offset", str(free_offset()), "--state", state, "--edges", "1", through=ignoring)
        await process.ready
        # Somebody is impatient.
        self.transport.signalProcess("INT")
        while not process.ended.called:
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
            with contextlib.suppress(ProcessExitedAlready):
                self.transport.signalProcess("INT")
        self.assertEqual(await process.ended, 0, process.output)
        self.assertNotIn("Traceback", process.output)
