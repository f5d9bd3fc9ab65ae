"""The Autobahn cases of RFC 6455, driven by a server of its own process against our client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet import defer, reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.trial.unittest import SkipTest, TestCase

from openems.websocket.client import ClientProtocol, ReconnectingClient
from tests.application.ports import free_offset
from tests.websocket.test_conformance import ALL_CASES, KOSOKU, Echo


class Suite(ProcessProtocol):
    """``listening`` fires when it does, ``ended`` with what it wrote."""

    def __init__(self) -> None:
        self.output = ""
        self.listening: Deferred[None] = Deferred()
        self.ended: Deferred[str] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode(errors="replace")
        if "listening" in self.output and not self.listening.called:
            self.listening.callback(None)

    errReceived = outReceived

    def processEnded(self, reason: Any) -> None:
        if not self.listening.called:
            self.listening.errback(AssertionError(self.output))
        self.ended.callback("" if isinstance(reason.value, ProcessDone) else self.output or str(reason.value))


class Conversation(Echo):
    """``ended`` fires with the texts that came when the connection is gone."""

    def __init__(self, connection: Any, ended: Deferred[list[bytes]]) -> None:
        super().__init__(connection)
        self._texts: list[bytes] = []
        self._ended = ended

    def received(self, text: bytes) -> bool:
        self._texts.append(text[:100])
        return super().received(text)

    def closed(self) -> None:
        self._ended.callback(self._texts)


class Conformance(TestCase):
    timeout = ALL_CASES

    async def connect(self, path: str) -> list[bytes]:
        ended: Deferred[list[bytes]] = Deferred()
        client = ReconnectingClient(
            f"ws://127.0.0.1:{self.port}/{path}",
            {},
            lambda connection: Conversation(connection, ended),
            reactor=reactor,
            min_wait=100,
            max_wait=100,
            name="Conformance",
            max_message_size=32 * 1024 * 1024,
        )
        client.start()
        try:
            return await ended.addTimeout(ALL_CASES, reactor)  # type: ignore[arg-type]
        finally:
            await client.stop()

    async def test_all_cases(self) -> None:
        if not KOSOKU.exists():
            raise SkipTest("kosoku, the suite's server, is not installed")

        def echo(protocol: ClientProtocol, payload: bytes, is_binary: bool) -> None:
            # Ours ignores binary messages; the suite wants them back.
            if is_binary:
                protocol.sendMessage(payload, True)
            else:
                protocol.text_received(payload)

        self.patch(ClientProtocol, "onMessage", echo)
        reports = Path(self.mktemp())
        self.port = 9001 + free_offset()
        suite = Suite()
        arguments = [str(KOSOKU), "-m", "fuzzingserver", "-o", str(reports), f"127.0.0.1:{self.port}"]
        # Compression (12, 13) is refused by design.
        for left_out in ("12.*", "13.*"):
            arguments[1:1] = ["-x", left_out]
        process: Any = reactor.spawnProcess(suite, arguments[0], arguments, env={"PYTHONUNBUFFERED": "1"})  # type: ignore[attr-defined]
        try:
            await suite.listening.addTimeout(20, reactor)  # type: ignore[arg-type]
            (count,) = await self.connect("getCaseCount")
            for number in range(1, int(count) + 1):
                await self.connect(f"runCase?case={number}&agent=openems")
            await self.connect("updateReports?agent=openems")
            await suite.ended.addTimeout(20, reactor)  # type: ignore[arg-type]
        finally:
            if not suite.ended.called:
                process.signalProcess("KILL")
                await defer.DeferredList([suite.ended])
        (results,) = json.loads((reports / "index.json").read_text()).values()
        self.assertEqual(len(results), int(count))
        self.assertGreater(len(results), 200)
        wrong = {
            case: (r["behavior"], r["behaviorClose"])
            for case, r in results.items()
            if r["behavior"] not in ("OK", "NON-STRICT", "INFORMATIONAL")
        }
        self.assertEqual(wrong, {})
