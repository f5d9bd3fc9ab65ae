"""What the Java backend answered (java-rest.txt, java-websocket.jsonl: recorded with dummy metadata, edge0 online,
edge1 offline) and what this one answers to the same. Every difference is a row of DIFFERENCES, with its reason, and of
docs/compatibility.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.models import User
from openems.common.errors import generic
from openems.common.jsonrpc import Members, Request
from openems.common.role import Role
from tests.backend.b2b.http import Connection, Reply, RestWorld, request
from tests.backend.b2b.sockets import WebsocketWorld
from tests.backend.b2b.world import World, basic

HERE = Path(__file__).parent

UNAUTHENTICATED = "a login that is missing or wrong is 401 with a JSON error, not a page with status 500"
NO_SUCH_PATH = "a path that does not exist is 404, not 200 or 500"
NO_SUCH_METHOD = "another HTTP method is 405"
STRICT = "what is wrong with the JSON is told with line and column"
MISSING = "the missing member is named"
NO_HTTP = "JSON, not a page"

#: Title in java-rest.txt -> (status, code) here, and why.
DIFFERENCES: dict[str, tuple[int, int, str]] = {
    "GET no auth": (404, 1, NO_SUCH_PATH),
    "GET /jsonrpc no auth": (405, 1, NO_SUCH_METHOD),
    "POST no auth": (401, 1003, UNAUTHENTICATED),
    "POST wrong password": (401, 1003, UNAUTHENTICATED),
    "POST bearer auth": (401, 1003, UNAUTHENTICATED),
    "POST bad base64": (401, 1003, UNAUTHENTICATED),
    "POST basic no colon": (401, 1003, UNAUTHENTICATED),
    "GET with auth": (405, 1, NO_SUCH_METHOD),
    "PUT with auth": (405, 1, NO_SUCH_METHOD),
    "OPTIONS": (405, 1, NO_SUCH_METHOD),
    "HEAD": (405, 1, NO_SUCH_METHOD),
    "POST other path": (404, 1, NO_SUCH_PATH),
    "POST root": (404, 1, NO_SUCH_PATH),
    "POST broken json": (400, 5016, STRICT),
    "POST no params": (400, 5003, MISSING),
    "malformed request line": (400, 1, NO_HTTP),
}
#: What the Java program puts before the text of an error; here the text comes with its own code, and the request's id.
_BEFORE = re.compile(r"^(Unable to get Response: |Unable to parse: |[a-z]+(\.[a-z0-9]+)+\.\w+(\$\w+)?: )+(?!Could not)")
#: The code that belongs to such a text.
_CODES = (
    (3000, "is not connected"),
    (4001, "Unhandled JSON-RPC method"),
    (1000, "is not a valid channel address"),
    (5007, "is not JSON-Array"),
    (5002, "is not a JSON-Object"),
    (5033, "is not a UUID member"),
)


def prepare(world: World) -> None:
    world.metadata.set_keys({"0": "edge0", "1": "edge1"})
    for edge_id in ("edge0", "edge1", "edgeXX"):
        world.metadata.roles[edge_id] = Role.ADMIN
    edge = world.metadata.get_edge("edge0")
    assert edge is not None
    edge.set_online(True)
    world.edges.connected = {"edge0"}
    world.edges.values.update({"_sum/EssSoc": 50, "_sum/GridActivePower": -8, "_sum/State": 0})
    world.metadata.configs["edge0"] = Raw(b'{"components":{"_sum":{"properties":{}}},"factories":{}}')
    world.metadata.users["sub-admin"] = User(id="admin", user_id="sub-admin", name="admin")
    world.passwords.passwords = {"admin": "admin"}
    world.timedata.error = generic("Unable to query historic data. Result is null")
    world.edges.send = _Edge(world).send  # type: ignore[method-assign]


class _Edge:
    def __init__(self, world: World) -> None:
        self._send = world.edges.send
        self._world = world

    async def send(self, edge_id: str, user: User, role: Role, request: Request) -> Any:
        self._world.edges.answer = _answer(request)
        return await self._send(edge_id, user, role, request)


def _answer(request: Request) -> Any:
    if request.method == "noSuch":
        return generic('Endpoint with method "noSuch" is not defined!')
    if request.method == "componentJsonApi":
        members = Members(request.params)
        if members.string("componentId") == "ctrlBalancingSchedule0":
            return generic("Component with id 'ctrlBalancingSchedule0' was not found")
        if members.request().method == "getSystemUpdateState":
            return generic("java.io.IOException: Could not read dpkg-query result.")
        channel = {"id": "EssSoc", "accessMode": "RO", "persistencePriority": "VERY_HIGH", "text": "Range 0..100"}
        return Raw(
            json.dumps({"channel": {**channel, "type": "INTEGER", "unit": "%", "category": "OPENEMS_TYPE"}}).encode()
        )
    return Raw(b"{}")


def shape(value: Any) -> Any:
    """Types and members; ids of requests that had none are made up."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape(element) for element in value]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


class RestTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = RestWorld()
        prepare(self.world)
        # One address asks wrongly here more often than one may.
        self.world.credentials._limits.take = lambda peer, now: True  # type: ignore[method-assign]

    def test_transcript(self) -> None:
        sections = (HERE / "java-rest.txt").read_text().split("### ")[1:]
        self.assertGreater(len(sections), 35)
        seen = set()
        for section in sections:
            title, _, rest = section.partition("\n")
            command, _, answer = rest.partition("\n")
            for theirs, ours in zip(_answers(answer), self._ask(command), strict=True):
                self._compare(title, theirs, ours)
            seen.add(title)
        self.assertEqual(set(DIFFERENCES) - seen, set())

    def _ask(self, command: str) -> list[Reply]:
        """The requests of a line as curl was called, without quotes."""
        replies = []
        for part in command.split(" --next "):
            connection = Connection(self.world.rest)
            connection.send(_request(part))
            if " -I " in part:
                head = connection.transport.value().partition(b"\r\n\r\n")[0]
                replies.append(Reply(int(head.split(b" ")[1]), {}, b""))
            else:
                replies.append(connection.reply())
        return replies

    def _compare(self, title: str, theirs: Reply, ours: Reply) -> None:
        difference = DIFFERENCES.get(title)
        if difference is not None:
            status, code, _ = difference
            self.assertEqual(ours.status, status, title)
            if ours.body:
                self.assertEqual(ours.error[0], code, title)
                self.assertEqual(ours.headers["content-type"], "application/json")
            return
        self.assertEqual(ours.status, theirs.status, title)
        self.assertEqual(ours.headers["content-type"], theirs.headers["content-type"], title)
        if theirs.status == 200:
            self.assertEqual(shape(ours.json), shape(theirs.json), title)
            self.assertEqual(list(ours.json), list(theirs.json), title)
            return
        _, text, data = theirs.error
        text = _BEFORE.sub("", text)
        code = next((code for code, part in _CODES if part in text), 1)
        self.assertEqual(ours.error[:2], (code, text), title)
        if code == 1:
            self.assertEqual([_BEFORE.sub("", part) for part in data], ours.error[2], title)


def _request(command: str) -> bytes:
    """From ``curl -u admin:admin -H Accept: x -X POST -d {...} http://127.0.0.1:8075/jsonrpc``."""
    url = re.search(r"http://127\.0\.0\.1:8075(\S*)", command)
    assert url is not None
    before = command[: url.start()]
    body = re.search(r" -d (.*) $", before)
    if body is not None:
        before = before[: body.start()]
    method = re.search(r"-X (.+?)\s*$", before)
    headers = dict(re.findall(r"-H ([\w-]+): (.*?)(?= -\w| --|$)", before))
    name = "POST" if body is not None else "HEAD" if " -I" in command else "GET"
    auth = headers.pop("Authorization", headers.pop("authorization", None))
    user = re.search(r"-u (\S+?):(\S+)", before)
    if user is not None:
        auth = basic(user[1], user[2])
    made = request(
        body[1] if body is not None else b"",
        method=method[1] if method is not None else name,
        path=url[1],
        headers={name: value for name, value in headers.items() if name != "Expect"},
        auth=auth,
    )
    return made.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1) if "--http1.0" in command else made


def _answers(text: str) -> list[Reply]:
    replies = []
    for part in re.split(r"(?=HTTP/1\.1 )", text):
        head, _, body = part.partition("\n\n")
        lines = head.split("\n")
        if not lines[0].startswith("HTTP/1.1 ") or " 100 " in lines[0]:
            continue
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        replies.append(Reply(int(lines[0].split(" ")[1]), headers, body.strip().encode()))
    return replies


#: Connection in java-websocket.jsonl -> (close code, reason) here, and why.
CLOSES = {
    "noauth": (1000, "Authentication failed"),
    "wrongpw": (1000, "Authentication failed"),
    "bearer": (1000, "Authentication failed"),
    # There it stays open and each request waits 5 s for nothing (b2b.md 7, 10).
    "badb64": (1000, "Authentication failed"),
}


class WebsocketTest(SynchronousTestCase):
    def test_transcript(self) -> None:
        lines = [json.loads(line) for line in (HERE / "java-websocket.jsonl").read_text().splitlines()]
        names = list(dict.fromkeys(line["conn"] for line in lines))
        self.assertEqual(names, [*CLOSES, "good"])
        for name in names:
            self._replay(name, [line for line in lines if line["conn"] == name])

    def _replay(self, name: str, lines: list[dict[str, Any]]) -> None:
        world = WebsocketWorld()
        prepare(world)
        connection = world.connect(lines[0]["hdr"].get("Authorization"))
        now = lines[0]["t"]
        theirs: list[Any] = []
        for line in lines[1:]:
            while now < line["t"]:
                step = min(0.01, line["t"] - now)
                world.clock.advance(step)
                now += step
            if line["kind"] != "text":
                continue
            if line["dir"] == "c>s":
                connection.receive(line["text"])
            else:
                theirs.append(json.loads(line["text"]))
        ours = connection.messages()
        if name in CLOSES:
            self.assertEqual((connection.close_code, connection.close_reason), CLOSES[name], name)
            self.assertEqual(ours, [])
            return
        self.assertIsNone(connection.close_code)
        replies = {message["id"]: message for message in ours if "id" in message}
        expected = {message["id"]: message for message in theirs if "id" in message}
        self.assertEqual(list(replies), list(expected))
        for id_, reply in expected.items():
            if "error" in reply:
                self.assertEqual(replies[id_], reply)
            elif "components" not in json.dumps(reply):
                self.assertEqual(shape(replies[id_]), shape(reply))
        pushed = [shape(message) for message in ours if "id" not in message]
        self.assertEqual(pushed, [shape(message) for message in theirs if "id" not in message])
