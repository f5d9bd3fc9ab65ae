"""Recorded conversations with both sides: what the recorded peer said is said again, what it heard must come.

A hand-made edge and a scripted user spoke with the real programs. Frames are fed in their order and at their time; the
replies are compared by shape, errors and pushes by content. What differs stands in the tables, with its reason.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.timedata.dummy import DummyTimedata
from openems.testing.connections import FakeConnection
from tests.captures import recording
from tests.captures.house import House

CURRENT = "push currentData"
#: What the recorded programs answered -> why this backend answers otherwise. Keys begin with the member that differs.
NO_VALUE = "a value that is no value costs only itself"
DUMMY_OPEN = "dummy metadata makes edges up for unknown apikeys and takes any password"
CLEAR = "a clear error instead of a Java exception's text"
EDGE_WANTED: dict[str, str] = {
    "refused-badkey: not refused": DUMMY_OPEN,
    "refused-case: not refused": DUMMY_OPEN,
    'push currentData {"_meta/Version": null, "_sum/State": null, "a/B": [1]}: missing': NO_VALUE,
    'push currentData {"_meta/Version": null, "_sum/State": null, "a/B": {"x": 1}}: missing': NO_VALUE,
    'push currentData {"_meta/Version": null, "_sum/State": 0, "a/B": null}: missing': "no data, no push",
    "reply edgeRpc/slow (timeout outer 3 inner 2): error": "the time-out says what it waited for",
    "reply checkSetupPassword: error": CLEAR,
    "reply appCenter/nope: error": CLEAR,
    "reply oauthRegistry/getInitMetadata: error": "without a registry the edge is told so",
    "authenticatedRpc: missing": "of two connections of one edge the newer one is asked, not any",
    "reply edgeRpc/otherid (which of the two gets it?): missing": "of two connections the newer one is asked",
}
FULL_BUCKET = "the rate limiter's bucket starts full: a page that opens with ten requests is an honest user"
UI_WANTED: dict[str, str] = {
    "reply unknownMethod (unknown, not logged in): error": FULL_BUCKET,
    "reply authenticateWithPassword (wrong password)": DUMMY_OPEN,
    "reply authenticateWithPassword (no password): error": "credentials are not repeated in errors",
    "reply authenticateWithPassword (no username): error": CLEAR,
    "reply getEdge (burst)": FULL_BUCKET,
    "reply getEdges.result.edges[].lastmessage: new": "edges come sorted, the first one is another",
    "reply ?: missing": "a request in single quotes is no JSON",
    "reply authenticateWithToken (token after logout)": "a logout ends the token",
    "reply authenticateWithToken (new conn, token)": "a logout ends the token",
}


class Conversation:
    """Replays one file; ``differences`` maps what differed to how often."""

    def __init__(self, name: str) -> None:
        self.lines = list(recording.lines(name))
        self.house = House(int(self.lines[0]["t"] * 1000), DummyTimedata("timedata0"))
        self.connections: dict[str, FakeConnection] = {}
        #: What we sent and nobody expected yet, by connection.
        self.heard: dict[str, list[dict[str, Any]]] = {}
        #: Ids of requests to edges: recorded -> ours.
        self.ids: dict[str, str] = {}
        self.differences: dict[str, int] = {}
        self.compared = 0

    def differ(self, what: str) -> None:
        self.differences[what] = self.differences.get(what, 0) + 1

    def run(self) -> None:
        begin = self.lines[0]["t"]
        for index, line in enumerate(self.lines):
            late = line["t"] - begin - self.house.clock.seconds()
            if late > 0:
                self.advance(late)
            name, kind = line["conn"], line["kind"]
            if kind == "open":
                self.open(name, line.get("hdr", {}))
            elif kind == "text" and line["dir"] == "c>s":
                self.say(name, line["text"])
            elif kind == "text":
                self.expect(name, json.loads(line["text"]), line, index)
            elif kind == "closed":
                self.closed(name, line)

    def advance(self, seconds: float) -> None:
        while seconds > 0:
            self.house.clock.advance(min(seconds, 0.05))
            seconds -= 0.05

    def open(self, name: str, headers: dict[str, str]) -> None:
        if name.startswith(("u", "tab")):
            self.connections[name] = self.house.tab()
        else:
            self.connections[name] = self.house.edge(headers.get("apikey", ""))
        self.heard[name] = []

    def edge_says(self, method: str, params: Any) -> None:
        """What the user's recording shows of the edge's side."""
        self.connections["edge0"].receive({"method": method, "params": params})

    def say(self, name: str, text: str) -> None:
        for recorded, ours in self.ids.items():
            text = text.replace(recorded, ours)
        self.connections[name].text_received(text.encode())

    def expect(self, name: str, recorded: dict[str, Any], line: dict[str, Any], index: int) -> None:
        if "edge0" in self.connections:
            self.other_side(recorded)
        ours = self.find(name, recorded)
        what = recorded.get("method") or f"reply {self.asked(name, recorded, index)}"
        if what == "edgeRpc":
            what = f"push {recorded['params']['payload']['method']}"
            if what == CURRENT:
                what += f" {_short(recorded['params']['payload']['params'])}"
        if ours is None:
            self.differ(f"{what}: missing")
            return
        self.compared += 1
        if recorded.get("method") == "authenticatedRpc":
            self.ids[recorded["id"]] = ours["id"]
        if "error" in recorded and "error" in ours:
            if recorded["error"] != ours["error"]:
                self.differ(f"{what}: error {_short(recorded['error'])} became {_short(ours['error'])}")
        else:
            if isinstance(token := recorded.get("result", {}).get("token"), str) and "token" in ours.get("result", {}):
                self.ids[token] = ours["result"]["token"]
            for difference in recording.differences(recorded, ours):
                self.differ(f"{what}{difference}")

    def other_side(self, recorded: dict[str, Any]) -> None:
        """The edge gives the answer, and says what the recording shows that it gave and said."""
        edge = self.connections["edge0"]
        for request in edge.take():
            if request.get("method") != "authenticatedRpc":
                continue
            payload = recorded.get("result", {}).get("payload")
            if payload is not None:
                result = {"payload": {"jsonrpc": "2.0", "id": payload["id"], "result": payload["result"]}}
                edge.receive({"id": request["id"], "result": result})
            elif "error" in recorded:
                edge.receive({"id": request["id"], "error": recorded["error"]})
        if recorded.get("method") != "edgeRpc":
            return
        pushed = recorded["params"]["payload"]
        if pushed["method"] == "currentData":
            self.edge_says("timestampedData", {str(self.house.now()): pushed["params"]})
        else:
            self.edge_says(pushed["method"], pushed["params"])

    def find(self, name: str, recorded: dict[str, Any]) -> dict[str, Any] | None:
        """Our message for a recorded one: a reply by its id, a push or request by kind and order. Waits a little."""
        heard = self.heard[name]
        for _ in range(20):
            heard += self.connections[name].take()
            for index, message in enumerate(heard):
                if _same_kind(recorded, message) and _says(recorded, message):
                    return heard.pop(index)
            self.house.clock.advance(0.1)
        return None

    def asked(self, name: str, recorded: dict[str, Any], index: int) -> str:
        """The method of the request a recorded reply belongs to, with the recorder's note."""
        for line in reversed(self.lines[:index]):
            if line["kind"] == "text" and line["dir"] == "c>s" and line["conn"] == name:
                try:
                    request = json.loads(line["text"])
                except ValueError:
                    continue
                if isinstance(request, dict) and request.get("id") == recorded.get("id") and "method" in request:
                    params = request.get("params")
                    inner = params.get("payload") if isinstance(params, dict) else None
                    method = str(request["method"])
                    if isinstance(inner, dict) and "method" in inner:
                        method += f"/{inner['method']}"
                    return f"{method} ({line['note']})" if "note" in line else method
        return "?"

    def closed(self, name: str, line: dict[str, Any]) -> None:
        connection = self.connections[name]
        if line["dir"] == "s>c" and line.get("code") == 1006 and connection.is_open:
            self.differ(f"{name}: not refused")
        if connection.is_open:
            connection.lose()


def _same_kind(recorded: dict[str, Any], ours: dict[str, Any]) -> bool:
    if "method" not in recorded:
        return "method" not in ours and recorded.get("id") == ours.get("id")
    if recorded["method"] != ours.get("method"):
        return False
    if recorded["method"] in ("edgeRpc", "authenticatedRpc"):
        mine, other = recorded["params"]["payload"], ours["params"]["payload"]
        return bool(mine["method"] == other["method"])
    return True


def _says(recorded: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether a push of ours has the recorded values; what Java did not know then (it loses the first snapshot after a
    connect), ours may. Other messages are told apart by their kind."""
    if recorded.get("method") != "edgeRpc" or recorded["params"]["payload"]["method"] != "currentData":
        return True
    mine = ours["params"]["payload"]["params"]
    values = recorded["params"]["payload"]["params"]
    return all(
        _short(mine.get(channel)) == _short(value) or (value is None and channel[0] == "_")
        for channel, value in values.items()
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 600 else text[:597] + "..."


class Conversations(SynchronousTestCase):
    maxDiff = None

    def check(self, conversation: Conversation, wanted: dict[str, str], at_least: int) -> None:
        conversation.run()
        unexplained = {
            what: count
            for what, count in conversation.differences.items()
            if not any(what.startswith(known) for known in wanted)
        }
        self.assertEqual("\n".join(f"{count} x {what}" for what, count in unexplained.items()), "")
        unused = [known for known in wanted if not any(what.startswith(known) for what in conversation.differences)]
        self.assertEqual(unused, [], "differences that are no more")
        self.assertGreater(conversation.compared, at_least)

    def test_a_hand_made_edge(self) -> None:
        self.check(Conversation("fake-edge"), EDGE_WANTED, 50)

    def test_a_scripted_user(self) -> None:
        conversation = Conversation("ui-session")
        conversation.open("edge0", {"apikey": "edge0"})
        config = next(
            line["text"] for line in recording.lines("edge-edgeapp") if '"method":"edgeConfig"' in line.get("text", "")
        )
        conversation.say("edge0", config)
        conversation.edge_says("timestampedData", {str(conversation.house.now()): {"_sum/GridActivePower": 1}})
        self.check(conversation, UI_WANTED, 80)
