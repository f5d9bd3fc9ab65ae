from __future__ import annotations

from typing import Any

import treq
from klein import Klein
from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent
from twisted.web.server import Site

from openems.http.connections import KeptConnections

reactor: Any = _reactor


class Late(TestCase):
    async def test_one_that_comes_back_after_the_end_is_closed(self) -> None:
        app = Klein()

        @app.route("/")
        def answer(request: Any) -> bytes:
            return b"ok"

        site: Any = Site(app.resource())
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        kept = KeptConnections(reactor, per_host=2, idle=60.0)
        client = treq.client.HTTPClient(Agent(reactor, pool=kept))
        url = f"http://127.0.0.1:{port.getHost().port}/"
        first = await client.get(url)
        await treq.content(first)
        self.assertEqual([1], list(map(len, kept._connections.values())))
        second = await client.get(url, unbuffered=True)
        await kept.close()
        self.assertEqual(b"ok", await treq.content(second))
        self.assertEqual([], [one for ones in kept._connections.values() for one in ones])
