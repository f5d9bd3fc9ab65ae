"""The Autobahn cases of RFC 6455, driven by a client of its own process against our server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet import defer, reactor
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SkipTest, TestCase

from openems.websocket.server import ServerProtocol, WebSocketServer

KOSOKU = Path(sys.executable).with_name("kosoku")


class Echo:
    """Sends each text back. It decodes no JSON, so it has to look at the UTF-8 itself."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def opened(self) -> None:
        pass

    def received(self, text: bytes) -> bool:
        try:
            text.decode()
        except UnicodeDecodeError:
            self._connection._wire.invalid_utf8()
            return True
        self._connection.send(text)
        return True

    def closed(self) -> None:
        pass


#: Seconds for all cases. On a loaded machine a case of a thousand messages there and back (9.7, 9.8) takes fifty times
#: as long; the suite itself gives each of them up to eight minutes.
ALL_CASES = 900


class Conformance(TestCase):
    timeout = ALL_CASES

    async def test_all_cases(self) -> None:
        if not KOSOKU.exists():
            raise SkipTest("kosoku, the suite's client, is not installed")
        server = WebSocketServer("Echo", Echo, reactor=reactor, max_message_size=32 * 1024 * 1024)
        self.addCleanup(lambda: defer.ensureDeferred(server.stop(None)))

        def echo(protocol: ServerProtocol, payload: bytes, is_binary: bool) -> None:
            # The backend ignores binary messages; the suite wants them back.
            if is_binary:
                protocol.sendMessage(payload, True)
            else:
                protocol.text_received(payload)

        self.patch(ServerProtocol, "onMessage", echo)
        port = await server.listen(0, "127.0.0.1")
        reports = Path(self.mktemp())
        arguments = ["-m", "fuzzingclient", "-o", str(reports), f"127.0.0.1:{port}"]
        # Compression (12, 13) is refused by design.
        for left_out in ("12.*", "13.*"):
            arguments = ["-x", left_out, *arguments]
        output, _, status = await getProcessOutputAndValue(str(KOSOKU), arguments)
        self.assertEqual(status, 0, output.decode()[-2000:])
        (results,) = json.loads((reports / "index.json").read_text()).values()
        self.assertGreater(len(results), 200)
        bad = {
            case: r["behavior"]
            for case, r in results.items()
            if r["behavior"] not in ("OK", "NON-STRICT", "INFORMATIONAL")
        }
        self.assertEqual(bad, {})
