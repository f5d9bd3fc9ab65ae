"""What somebody may cost who has not logged in: his messages, what waits for him, his place among the others."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openems.backend.models import User
from openems.backend.ui import server
from openems.backend.ui.session import MAX_LOGINS, MESSAGE_OF_STRANGER, WAITING_OF_STRANGER
from openems.common import errors
from tests.backend.ui.world import ID, World
from tests.websocket.test_live import UPGRADE, Raw

PASSWORD = {"username": "anna@example.org", "password": "s3cret"}


def padded(method: str, params: dict[str, Any], size: int, id: str = ID) -> bytes:
    text = json.dumps({"method": method, "params": params, "id": id, "padding": ""})
    return (text[:-2] + "x" * (size - len(text)) + text[-2:]).encode()


class InMemory(SynchronousTestCase):
    def test_logins_that_wait_for_each_other(self) -> None:
        """Each keeps its message as long as the one before it takes."""
        world = World()
        world.password.wait = Deferred()
        ui = world.connect()
        for _ in range(MAX_LOGINS + 5):
            ui.send("authenticateWithPassword", PASSWORD)
        refused = ui.connection.take()
        self.assertEqual([reply["error"]["code"] for reply in refused], [errors.JSONRPC_TOO_MANY_REQUESTS] * 4)
        world.password.wait.callback(None)
        self.assertEqual(["result" in reply for reply in ui.connection.take()], [True] * (MAX_LOGINS + 1))

    def test_bytes_of_requests_under_way(self) -> None:
        world = World()
        world.password.wait = Deferred()
        ui = world.connect()
        ui.send("authenticateWithPassword", PASSWORD)
        size = WAITING_OF_STRANGER // 4
        for _ in range(8):
            ui.connection.receive(padded("getEdges", {"page": 0}, size))
        replies = ui.connection.take()
        self.assertEqual({reply["error"]["code"] for reply in replies}, {errors.JSONRPC_TOO_MANY_REQUESTS})
        self.assertEqual(len(replies), 5)
        world.password.wait.callback(None)
        self.assertEqual(len(ui.connection.take()), 4)
        self.assertEqual(ui.connection.running, 0)
        ui.connection.receive(padded("getEdges", {"page": 0}, WAITING_OF_STRANGER * 4))
        self.assertIn("result", ui.connection.take()[0], "his own messages may be long, and nothing is left over")

    def test_replies_he_does_not_read(self) -> None:
        world = World()
        ui = world.connect()
        ui.connection.slow = WAITING_OF_STRANGER + 1
        ui.send("getEdges", {"page": 0})
        self.assertTrue(ui.connection.dropped)
        ui = world.login()
        ui.connection.slow = WAITING_OF_STRANGER + 1
        ui.send("getEdges", {"page": 0})
        self.assertFalse(ui.connection.dropped)
        ui.send("logout", {})
        ui.send("getEdges", {"page": 0})
        self.assertTrue(ui.connection.dropped, "a stranger again")

    def test_strangers_do_not_keep_users_out(self) -> None:
        """Where all places are taken, the stranger who has been there for longest gives his up."""
        world = World(max_connections=3)
        user = world.login()
        first, second = world.connect(), world.connect()
        late = world.connect()
        self.assertEqual((first.connection.dropped, second.connection.dropped), (True, False))
        self.assertIn("result", late.ask("authenticateWithPassword", PASSWORD))
        self.assertIn("result", user.ask("getEdges", {"page": 0}))
        last = world.connect()
        self.assertTrue(second.connection.dropped)
        self.assertIn("result", last.ask("authenticateWithPassword", PASSWORD))
        nobody = world.connect()
        self.assertTrue(nobody.connection.dropped, "users keep theirs")
        self.assertEqual((len(world.server.sessions), world.server.refused), (3, 3))

    def test_one_user_does_not_keep_the_others_out(self) -> None:
        """Where all places are taken by users, the oldest session of the one with the most makes room."""
        self.patch(server, "FAIR_SHARE", 2)
        world = World(max_connections=4)
        world.metadata.users["sub-bob"] = User(id="bob", user_id="sub-bob", name="Bob")
        bob = world.connect()
        self.assertIn("result", bob.ask("authenticateWithPassword", {"username": "bob", "password": "s3cret"}))
        greedy = [world.login() for _ in range(3)]
        late = world.connect()
        self.assertEqual([ui.connection.dropped for ui in (bob, *greedy)], [False, True, False, False])
        self.assertIn("result", late.ask("authenticateWithPassword", {"username": "bob", "password": "s3cret"}))
        self.assertTrue(world.connect().connection.dropped, "a fair share each")
        self.assertEqual(dict(world.server.users), {"sub-bob": 2, "sub-anna": 2})
        for ui in (bob, late, *greedy):
            ui.send("logout", {})
            ui.connection.lose()
        self.assertEqual(dict(world.server.users), {})


class OnSockets(TestCase):
    async def connect(self, port: int) -> Raw:
        raw: Raw = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Raw())
        raw.transport.write(UPGRADE.format(path="/", host="x", more="").encode())
        await raw.until(lambda r: b"\r\n\r\n" in r.data)
        raw.data = b""
        return raw

    async def test_long_messages(self) -> None:
        world = World(reactor=reactor)
        port = await world.server.start(0, "127.0.0.1")
        assert port is not None
        try:
            for fragmented in (False, True):
                raw = await self.connect(port)
                long = padded("authenticateWithPassword", PASSWORD, MESSAGE_OF_STRANGER + 1)
                if fragmented:
                    half = len(long) // 2
                    raw.frame(long[:half], fin=False)
                    raw.frame(long[half:], opcode=0)
                else:
                    raw.frame(long)
                await raw.until(lambda r: r.lost or r.data[:1] == b"\x88")
                self.assertEqual(int.from_bytes(raw.data[2:4], "big"), 1009, f"fragmented: {fragmented}")
                raw.transport.abortConnection()
            raw = await self.connect(port)
            raw.frame(padded("authenticateWithPassword", PASSWORD, MESSAGE_OF_STRANGER))
            await raw.until(lambda r: b'"token":"token-1"' in r.data)
            raw.data = b""
            raw.frame(padded("getEdges", {"page": 0}, MESSAGE_OF_STRANGER * 10))
            await raw.until(lambda r: b'"edges":' in r.data)
            raw.transport.abortConnection()
            await raw.until(lambda r: r.lost)
        finally:
            await world.server.stop()
