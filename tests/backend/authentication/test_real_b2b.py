"""Other systems that log in by passwords of a real Keycloak: what stays of it there, what ends (auth.md Q24, S16)."""

from __future__ import annotations

from typing import Any

import treq
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.web.client import Agent, HTTPConnectionPool

from openems.backend.b2b import websocket
from openems.common.jsonrpc import loads
from tests.backend.authentication.realserver import PASSWORD, USERS
from tests.backend.authentication.test_real_ui import WithBackend
from tests.backend.b2b.test_real import Client
from tests.backend.b2b.world import basic

reactor: Any = _reactor
JAN = "jan@example.com"
STATUS = {"method": "getEdgesStatus", "params": {"edgeIds": ["edge1"]}}


class OtherSystems(WithBackend):
    async def begin(self) -> None:
        await self.start("[backend2backend.rest]\n[[backend2backend.websocket]]\n")
        pool = HTTPConnectionPool(reactor)
        self.addCleanup(pool.closeCachedConnections)
        self.treq: Any = treq.client.HTTPClient(Agent(reactor, pool=pool))
        self.url = f"http://127.0.0.1:{self.backend.ports['backend2backend.rest']}/jsonrpc"

    async def rest(self, password: str = PASSWORD) -> int:
        headers = {"Authorization": basic(JAN, password)}
        reply = await self.treq.post(self.url, json=STATUS, headers=headers)
        await reply.content()
        return int(reply.code)

    def sessions(self) -> Any:
        return self.admin.ask("GET", f"/{self.name}/users/{USERS['jan']}/sessions")

    def ended(self) -> int:
        assert self.backend.oauth is not None
        return int(self.backend.oauth.debug_metrics()["auth0/ChecksEnded"])

    async def test_rest(self) -> None:
        await self.begin()
        for number in (1, 2, 3):
            self.assertEqual([await self.rest() for _ in range(5)], [200] * 5)
            await self.until(lambda number=number: self.ended() == number)
            self.assertEqual(self.sessions(), [])
            # As after a minute.
            self.backend.b2b.credentials.forget()
        self.assertEqual(await self.rest("wrong"), 401)
        # A session of her own in the UI stays.
        ui = await self.ui()
        await ui.login(JAN, PASSWORD)
        self.assertEqual(await self.rest(), 200)
        await self.until(lambda: self.ended() == 4)
        self.assertEqual(len(self.sessions()), 1)
        self.assertTrue(await ui.request("getEdges", {"page": 0}))

    async def test_websocket(self) -> None:
        await self.begin()
        self.patch(websocket, "REVALIDATION", 1.0)
        client = Client(self.backend.ports["backend2backend.websocket"], {"authorization": basic(JAN, PASSWORD)})
        client.client.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(client.client.stop()))
        connection = await client.connected.addTimeout(10, reactor)
        answer = await connection.request(STATUS["method"], STATUS["params"])
        self.assertIn("edge1", loads(answer))
        await self.until(lambda: self.ended() == 1)
        self.assertEqual(self.sessions(), [])
        path = f"/{self.name}/users/{USERS['jan']}"
        self.admin.ask("PUT", path, {**self.admin.ask("GET", path), "enabled": False})
        await client.lost.addTimeout(30, reactor)
        self.assertEqual(self.backend.b2b.websockets["backend2backend.websocket"].sessions, {})
