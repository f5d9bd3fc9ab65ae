"""The two links of one recorded run: what came in at one is fed in, what went out at the other must come out.

Edges' messages and the answers on both links come out the same, down to the texts of numbers and the order of members;
lists of edges by members and types.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.edgeapplication.edge import EdgeEndpoint
from openems.testing.connections import FakeConnection
from tests.backend.edgeapplication.world import World
from tests.captures import recording

Connections = tuple[int | str, ...]
#: Connections of the recorded edges -> the manager's connection in the same time. The named ones are a hand-made edge,
#: which sends what a real one does not: odd numbers, a NaN, nonsense, errors of every kind.
RUNS: tuple[tuple[Connections, int], ...] = (((1,), 2), ((3, 4), 4), ((14, "edge3"), 5), ((16,), 7))
LINKS = {"edge-edgeapp", "fake-edge"}
#: Seconds between the clock of the hand-made edge, which wrote its own file, and the recorder's.
SLOWER = 0.01


def exactly(text: str) -> Any:
    """The message with the texts of its numbers and the order of its members; escapes in texts may differ."""
    return json.dumps(
        json.loads(text, parse_float=lambda number: ["number", number], parse_int=lambda n: ["number", n])
    )


class Replay:
    """One run: the frames of both links in the order of their time."""

    def __init__(self, edge_connections: Connections, manager_connection: int) -> None:
        self.world = World(connect=False)
        self.world.connect()
        assert self.world.manager is not None
        self.manager = self.world.manager
        self.edges: dict[int | str, FakeConnection] = {}
        self.recorded_up: list[str] = []
        #: What the hand-made edge sent.
        self.handmade: list[Any] = []
        self.recorded_down: list[str] = []
        frames: list[tuple[float, int, str, Any, str]] = []
        for name in (*LINKS, "edgeapp-manager"):
            connections = edge_connections if name in LINKS else (manager_connection,)
            for line in recording.lines(name):
                if line["conn"] in connections and line["kind"] in ("text", "http", "open", "closed"):
                    # Its answers follow requests of the other file, its requests come before answers there.
                    late = (
                        SLOWER
                        if name == "fake-edge" and line["kind"] != "open" and '"method"' not in line["text"]
                        else 0
                    )
                    frames.append((line["t"] + late, len(frames), name, line, line["text"]))
        #: Recorded id of a request that went up -> ours.
        self.ids: dict[str, str] = {}
        self.recorded_ids = {
            message["params"]["payload"]["id"]: message["id"]
            for _, _, name, line, text in frames
            if name == "edgeapp-manager" and line["kind"] == "text" and line["dir"] == "c>s"
            for message in [json.loads(text)]
            if message.get("method") == "edgeRpc" and "id" in message
        }
        for _, _, name, line, text in sorted(frames, key=lambda frame: frame[:2]):
            self.frame(name, line, text)

    def frame(self, name: str, line: Any, text: str) -> None:
        if name in LINKS:
            if line["kind"] == "open":
                self.open_edge(line["conn"], line["hdr"])
            elif line["kind"] == "closed":
                self.edges[line["conn"]].lose()
            elif line["kind"] == "http":
                if line["dir"] == "c>s":
                    headers = dict(h.split(": ", 1) for h in text.split("\r\n")[1:] if ": " in h)
                    self.open_edge(line["conn"], headers)
            elif line["dir"] == "c>s":
                self.edges[line["conn"]].receive(text)
                self.learn_ids()
                if name == "fake-edge" and '"params"' in text:
                    self.handmade.append(json.loads(text.replace("NaN", '"NaN"')))
            else:
                self.recorded_down.append(text)
        elif line["kind"] == "text":
            if line["dir"] == "c>s":
                self.recorded_up.append(text)
            else:
                self.manager.receive(self.with_our_id(text))

    def open_edge(self, number: int | str, headers: dict[str, str]) -> None:
        edge = FakeConnection({name.lower(): value for name, value in headers.items()}, self.world.reactor)
        edge.open(EdgeEndpoint(edge, self.world.application))
        self.edges[number] = edge

    def learn_ids(self) -> None:
        message = json.loads(self.manager.sent[-1]) if self.manager.sent else {}
        if message.get("method") == "edgeRpc" and "id" in message:
            recorded = self.recorded_ids.get(message["params"]["payload"]["id"])
            if recorded is not None:
                self.ids[recorded] = message["id"]

    def with_our_id(self, text: str) -> str:
        message = json.loads(text)
        ours = self.ids.get(message.get("id", ""))
        return text if ours is None or "method" in message else text.replace(message["id"], ours, 1)

    def up(self) -> list[str]:
        """What we sent, with the recorded ids."""
        back = {ours: recorded for recorded, ours in self.ids.items()}
        texts = []
        for sent in self.manager.sent:
            text = sent.decode()
            message = json.loads(text)
            if "id" in message and message["id"] in back:
                # The last one: the request itself stands inside with its own.
                before, _, after = text.rpartition(message["id"])
                text = before + back[message["id"]] + after
            texts.append(text)
        return texts

    def down(self) -> list[str]:
        return [text.decode() for edge in self.edges.values() for text in edge.sent]


class SameRun(SynchronousTestCase):
    def replays(self) -> list[Replay]:
        return [Replay(edges, manager) for edges, manager in RUNS]

    def test_up(self) -> None:
        """All messages of the edge, and its answers to requests."""
        total = 0
        for replay in self.replays():
            ours = Counter(exactly(text) for text in replay.up() if '"connectedEdges"' not in text)
            recorded = Counter(exactly(text) for text in replay.recorded_up if '"connectedEdges"' not in text)
            # Threads of the recorded program: the order is not that of the edge; ours is.
            missing, more = recorded - ours, ours - recorded
            self.assertEqual(([t[:300] for t in missing], [t[:300] for t in more]), ([], []))
            total += sum(ours.values())
        self.assertGreater(total, 900)

    def test_the_order_of_the_edge_is_kept(self) -> None:
        for replay in self.replays():
            sent = [
                json.loads(line["text"])
                for line in recording.lines("edge-edgeapp")
                if line["conn"] in replay.edges and line["kind"] == "text" and line["dir"] == "c>s"
            ]
            relayed = [json.loads(text) for text in replay.up()]
            payloads = [message["params"]["payload"] for message in relayed if message.get("method") == "edgeRpc"]
            said = [payload for payload in payloads if "id" not in payload and payload not in replay.handmade]
            self.assertEqual(said, [message for message in sent if "id" not in message])

    def test_down(self) -> None:
        """All requests for the edge, and the answers to its own."""
        total = 0
        for replay in self.replays():
            ours, recorded = (Counter(map(exactly, texts)) for texts in (replay.down(), replay.recorded_down))
            self.assertEqual((list(recorded - ours), list(ours - recorded)), ([], []))
            total += len(replay.recorded_down)
        self.assertGreater(total, 20)

    def test_lists_of_edges(self) -> None:
        for replay in self.replays():
            recorded = [json.loads(text) for text in replay.recorded_up if '"connectedEdges"' in text]
            replay.manager.take()
            replay.world.application.fleet.changed = True
            replay.world.tick()
            [ours] = replay.manager.take()
            self.assertEqual(recording.differences(recorded[0], ours), [])
            self.assertEqual(set(recorded[0]["params"]["metrics"]), set(ours["params"]["metrics"]))
            self.assertEqual(ours["params"]["edgeIds"], ["edge0"])
