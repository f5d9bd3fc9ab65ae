"""The recorded edge application at this manager: every message counts, every request is answered as it was."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.edge.application import ApplicationEndpoint
from openems.backend.models import User
from openems.backend.timedata.dummy import DummyTimedata
from openems.common import jsonrpc
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Request
from openems.common.role import Language, Role
from openems.testing.connections import FakeConnection
from tests.captures import recording
from tests.captures.house import House

CONNECTIONS = (2, 4, 5, 7)
USER = User(id="u1", user_id="u1", name="u1", language=Language.DE)

#: (method, difference of the answer) -> why it is wanted.
WANTED = {
    ("checkSetupPassword", ".error.code: 1 became 5010"): "a clear error instead of a Java exception's text",
    ("appCenter/nope", ".error.code: 1 became 4001"): "a clear error instead of a Java exception's text",
}


class Link:
    """One recorded connection of the application."""

    def __init__(self, number: int) -> None:
        lines = [line for line in recording.lines("edgeapp-manager") if line["conn"] == number]
        self.frames = [(line["dir"], json.loads(line["text"])) for line in lines if line["kind"] == "text"]
        self.texts = [(line["dir"], line["text"]) for line in lines if line["kind"] == "text"]
        self.house = House(int(lines[0]["t"] * 1000), DummyTimedata("timedata0"))
        self.connection = FakeConnection({"id": "edges0"}, self.house.clock)
        self.connection.open(ApplicationEndpoint(self.connection, self.house.manager))
        #: Recorded id of a request to an edge -> ours.
        self.ids: dict[str, str] = {}
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[dict[str, Any], dict[str, Any], list[Any]]] = []

    def replay(self) -> None:
        for (direction, message), (_, text) in zip(self.frames, self.texts, strict=True):
            if direction == "c>s":
                recorded = message.get("id", "")
                if "method" not in message:
                    if recorded not in self.ids:
                        continue
                    text = text.replace(recorded, self.ids[recorded], 1)
                self.connection.receive(text)
                self.house.clock.advance(0.01)
                for sent in self.connection.take():
                    if "method" not in sent:
                        self.answers[sent["id"]] = sent
            elif message.get("method") == "edgeRpc" and "id" in message:
                self.ask(message)

    def ask(self, message: dict[str, Any]) -> None:
        """A user's request that the recorded manager passed on: this one passes it on, too."""
        payload = message["params"]["payload"]["params"]["payload"]
        request = Request(payload["method"], jsonrpc.raw(payload["params"]), payload["id"], payload.get("timeout"))
        edge_id = message["params"]["edgeId"]
        asked = Deferred.fromCoroutine(self.house.manager.send(edge_id, USER, Role.ADMIN, request))
        sent = [sent for sent in self.connection.take() if sent.get("method") == "edgeRpc"]
        self.ids[message["id"]] = sent[-1]["id"]
        outcome: list[Any] = []
        asked.addBoth(outcome.append)
        self.asked.append((message, sent[-1], outcome))


class RealApplication(SynchronousTestCase):
    def setUp(self) -> None:
        self.links = [Link(number) for number in CONNECTIONS]
        for link in self.links:
            link.replay()

    def test_nothing_is_refused(self) -> None:
        for link in self.links:
            said = [m["params"]["payload"] for d, m in link.frames if d == "c>s" and m.get("method") == "edgeRpc"]
            notifications = [payload for payload in said if "id" not in payload]
            self.assertEqual(link.house.manager.messages, len(notifications))

    def test_edges_get_their_answers(self) -> None:
        """Ids of the recorded requests are theirs, so the answers are found by them."""
        unexplained, used = [], set()
        for link in self.links:
            methods = {
                message["id"]: jsonrpc.qualified_method(jsonrpc.request_of(jsonrpc.raw(message["params"]["payload"])))
                for direction, message in link.frames
                if direction == "c>s" and message.get("method") == "edgeRpc" and "id" in message
            }
            recorded = {m["id"]: m for d, m in link.frames if d == "s>c" and m.get("id") in methods}
            self.assertEqual(set(link.answers), set(recorded))
            for request_id, answer in recorded.items():
                for difference in recording.differences(answer, link.answers[request_id]):
                    key = (methods[request_id], difference)
                    (used.add(key) if key in WANTED else unexplained.append(key))
        self.assertEqual(unexplained, [])
        self.assertEqual(set(WANTED) - used, set(), "differences that are no more")

    def test_what_is_asked_of_edges(self) -> None:
        """Requests have the recorded shape; the edge's answer reaches who asked."""
        total = 0
        for link in self.links:
            recorded = {m["id"]: m for d, m in link.frames if d == "c>s" and "method" not in m}
            for message, sent, outcome in link.asked:
                total += 1
                self.assertEqual(recording.differences(message, sent), [])
                answer = recorded.get(message["id"])
                if answer is None:
                    self.assertEqual(outcome, [])
                elif "error" in answer:
                    self.assertEqual(outcome[0].check(OpenemsError), OpenemsError)
                    self.assertEqual(outcome[0].value.code, _code(answer))
                else:
                    inner = answer["result"]["payload"]["result"].get("payload", {}).get("result")
                    if inner is None:
                        self.assertEqual(outcome[0].value.code, 5003)
                    else:
                        self.assertEqual(jsonrpc.loads(outcome[0]), inner)
        self.assertGreater(total, 25)


def _code(answer: dict[str, Any]) -> int:
    code: int = answer["error"]["code"]
    return code
