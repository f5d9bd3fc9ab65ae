"""Edges and users that talk nonsense to a whole backend in memory, and what must hold all the while.

- No exception gets out of the border, none is logged.
- A request that is well-formed gets exactly one reply, every other message at most one.
- When all peers are gone nothing is left: no session, no timer, no pending request; and the number of objects does not
  grow with the number of messages.
"""

from __future__ import annotations

import gc
import json
import uuid
from typing import Any

from twisted.logger import LogEvent, globalLogPublisher

from openems.common import jsonrpc
from openems.testing.connections import FakeConnection
from tests.captures.house import House
from tests.fuzz.messages import Mutator, corpus

EDGES, TABS = 3, 4
#: Virtual seconds between two messages; a day passes in a million of them.
STEP = 0.08


class Broken(Exception):
    """A rule that did not hold, with the message that broke it."""


class Campaign:
    def __init__(self, seed: int) -> None:
        self.house = House()
        self.users = Mutator(seed, [*corpus("ui-session", "u1"), *corpus("fake-edge", "ui")])
        self.devices = Mutator(seed + 1, [*corpus("fake-edge", "edge3"), *corpus("edge-edgeapp", 1)])
        self.random = self.users.random
        self.failures: list[str] = []
        self.timers = len(self.house.clock.getDelayedCalls())
        self.edges: list[FakeConnection] = []
        self.tabs: list[FakeConnection] = []
        #: Ids of well-formed requests without a reply, by connection.
        self.owed: dict[FakeConnection, dict[str, bytes]] = {}
        self.answered: dict[FakeConnection, set[str]] = {}
        self.replies = 0

    def run(self, messages: int) -> None:
        """Raises :class:`Broken`."""
        globalLogPublisher.addObserver(self._observe)
        try:
            for number in range(messages):
                self._one(number)
            self._end()
        finally:
            globalLogPublisher.removeObserver(self._observe)

    def _observe(self, event: LogEvent) -> None:
        if "log_failure" in event or event.get("isError"):
            failure = event.get("log_failure")
            self.failures.append(failure.getTraceback() if failure is not None else str(event))

    def _one(self, number: int) -> None:
        self._refill()
        if self.random.random() < 0.5:
            peer, text = self.random.choice(self.edges), self.devices.message()
            if self.random.random() < 0.3:
                text = self._answer(peer) or text
        else:
            peer, text = self.random.choice(self.tabs), self.users.message()
        self._expect(peer, text)
        try:
            peer.text_received(text)
            self.house.clock.advance(STEP)
        except Exception as e:
            raise Broken(f"message {number} {text[:2000]!r}: {e!r}") from e
        if self.failures:
            raise Broken(f"message {number} {text[:2000]!r}: {self.failures[0]}")
        for connection in (*self.edges, *self.tabs):
            self._read(connection)
        if self.random.random() < 0.002:
            self._leave(self.random.choice([*self.edges, *self.tabs]))

    def _refill(self) -> None:
        """Peers that were closed come back."""
        for connection in [c for c in (*self.edges, *self.tabs) if not c.is_open]:
            self._leave(connection)
        while len(self.edges) < EDGES:
            self.edges.append(self.house.edge(f"edge{len(self.edges)}"))
        while len(self.tabs) < TABS:
            tab = self.house.tab()
            tab.receive(
                {
                    "method": "authenticateWithPassword",
                    "params": {"username": "u1", "password": "u1"},
                    "id": str(uuid.UUID(int=self.random.getrandbits(128), version=4)),
                }
            )
            self.tabs.append(tab)

    def _leave(self, connection: FakeConnection) -> None:
        self._read(connection)
        for peers in (self.edges, self.tabs):
            if connection in peers:
                peers.remove(connection)
        self.owed.pop(connection, None)
        self.answered.pop(connection, None)
        if connection.is_open:
            connection.lose()

    def _answer(self, edge: FakeConnection) -> bytes | None:
        """To the newest request the edge has got, right or not."""
        asked = [m for m in edge.messages() if isinstance(m, dict) and m.get("method") == "authenticatedRpc"]
        if not asked:
            return None
        inner = asked[-1]["params"].get("payload") or {}
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": asked[-1]["id"]}
        way = self.random.random()
        if way < 0.5:
            reply["result"] = {"payload": {"jsonrpc": "2.0", "id": inner.get("id"), "result": {"a": 1}}}
        elif way < 0.7:
            reply["error"] = {"code": self.random.choice((1, 1002, 9999, "x")), "message": "m", "data": []}
        elif way < 0.9:
            reply["result"] = self.random.choice(({}, [], None, 1, {"payload": 1}, {"payload": {}}))
        return json.dumps(reply).encode()

    def _expect(self, peer: FakeConnection, text: bytes) -> None:
        try:
            message = json.loads(text)
            request_id = str(uuid.UUID(message["id"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return
        well_formed = (
            message["id"] == request_id
            and isinstance(message.get("method"), str)
            and isinstance(message.get("params"), dict)
            and len(text) < 60_000
            and b"NaN" not in text
            and b"Infinity" not in text
        )
        if well_formed:
            self.owed.setdefault(peer, {})[request_id] = text

    def _read(self, connection: FakeConnection) -> None:
        owed = self.owed.get(connection, {})
        answered = self.answered.setdefault(connection, set())
        for reply in connection.messages():
            if "method" in reply:
                continue
            self.replies += 1
            request_id = str(reply.get("id"))
            if owed.pop(request_id, None) is None and request_id in answered:
                raise Broken(f"two replies to {request_id}: {reply}")
            answered.add(request_id)
        # Edges answer what they were asked last: keep that.
        connection.sent[:] = [text for text in connection.sent[-3:] if jsonrpc.loads(text).get("method")]

    def _end(self) -> None:
        for _ in range(100):
            self.house.clock.advance(1)
            for connection in (*self.edges, *self.tabs):
                self._read(connection)
        missing = [text for connection, owed in self.owed.items() if connection.is_open for text in owed.values()]
        if missing:
            raise Broken(f"{len(missing)} requests without a reply, first {missing[0][:2000]!r}")
        for connection in (*self.edges, *self.tabs):
            self._leave(connection)
        self.house.clock.advance(100)
        if self.house.ui.sessions:
            raise Broken(f"{len(self.house.ui.sessions)} sessions are left")
        left = len(self.house.clock.getDelayedCalls()) - self.timers
        if left > 5:
            raise Broken(f"{left} timers are left: {self.house.clock.getDelayedCalls()[:5]}")
        if self.failures:
            raise Broken(self.failures[0])


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())
