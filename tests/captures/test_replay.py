"""The real programs' own frames against this backend: an edge's side replayed, a UI's requests asked again.

Replies are compared with the recorded ones by shape: members, types, error codes. What differs stands in
:data:`WANTED`, with its reason; anything else fails.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.edge.application import ApplicationEndpoint
from openems.common import jsonrpc
from openems.common.data import DataKind
from openems.common.edgeconfig import EdgeConfig
from openems.testing.connections import FakeConnection
from tests.captures import recording
from tests.captures.house import House

#: (method, difference) -> why it is wanted. ``*`` as method: any.
WANTED: dict[tuple[str, str], str] = {
    ("authenticateWithPassword", ".error: missing"): "this test's provider takes any password",
    ("authenticateWithPassword", ".result: new"): "this test's provider takes any password",
    ("authenticateWithToken", ".error: new"): "the recorded token is of another server",
    ("authenticateWithToken", ".result: missing"): "the recorded token is of another server",
    ("edgeRpc/queryHistoricTimeseriesData", ".error: missing"): "this test's history has a number for everything",
    ("edgeRpc/queryHistoricTimeseriesData", ".result: new"): "this test's history has a number for everything",
}


class EdgeSide(SynchronousTestCase):
    def test_first_start(self) -> None:
        """Thirteen configurations in two seconds, snapshots, changes: nothing is lost, the last configuration stays."""
        house = House()
        edge = house.edge()
        texts = recording.texts("edge-edgeapp", 1, "c>s")
        self.assertGreater(len(texts), 50)
        for text in texts:
            edge.text_received(text.encode())
            house.clock.advance(0.01)
        configs = [text for text in texts if '"method":"edgeConfig"' in text]
        self.assertEqual(len(house.configs), len(configs))
        stored = EdgeConfig(house.configs[-1].config)
        self.assertIn("_sum", stored.components)
        # verbatim: the bytes of the last frame
        self.assertIn(bytes(house.configs[-1].config).decode(), configs[-1])
        sent = [json.loads(text) for text in texts if '"method":"timestampedData"' in text]
        written = [d for _, d in house.provider.written if d.kind is DataKind.TIMESTAMPED]
        self.assertEqual(len(written), sum(1 for message in sent if message["params"]))
        known = self.metadata_edge(house)
        self.assertTrue(known.online)
        self.assertNotEqual(str(known.version), "0.0.0")
        latest: dict[str, Any] = {}
        for message in sent:
            for row in message["params"].values():
                latest.update(row)
        self.assertEqual(house.manager.get_channel_values("edge0", sorted(latest)), dict(sorted(latest.items())))
        self.assertEqual(house.manager.dropped, {})

    def test_same_run_through_the_application(self) -> None:
        """The other link of the same run leads to the same values."""
        house = House()
        connection = FakeConnection({"id": "edges0"}, house.clock)
        connection.open(ApplicationEndpoint(connection, house.manager))
        self.assertEqual(connection.messages()[0]["method"], "updateMetadataCache")
        first = next(line["conn"] for line in recording.lines("edgeapp-manager") if line["kind"] == "text")
        for text in recording.texts("edgeapp-manager", first, "c>s"):
            connection.text_received(text.encode())
            house.clock.advance(0.01)
        edges = {edge_id for edge_id, _ in house.provider.written}
        self.assertIn("edge0", edges)
        self.assertIn("backend0", edges)  # the application's own metrics
        self.assertGreater(len(house.configs), 10)
        kinds = {data.kind for edge_id, data in house.provider.written if edge_id == "edge0"}
        self.assertIn(DataKind.TIMESTAMPED, kinds)

    @staticmethod
    def metadata_edge(house: House) -> Any:
        return house.metadata.get_edge("edge0")


class UiSide(SynchronousTestCase):
    def test_walk_of_the_real_ui(self) -> None:
        replies: dict[str, Any] = {}
        requests: list[tuple[int, dict[str, Any]]] = []
        for line in recording.lines("ui-walk"):
            frame = line["frame"]
            if line["dir"] == "received" and "id" in frame:
                replies[frame["id"]] = frame
            elif line["dir"] == "sent" and "id" in frame:
                requests.append((line["ws"], frame))
        self.assertGreater(len(requests), 400)
        self.compare(requests, replies)

    def compare(self, requests: list[tuple[int, dict[str, Any]]], replies: dict[str, Any]) -> None:
        house = House()
        edge = house.edge()
        edge.receive({"method": "edgeConfig", "params": _config()})
        edge.receive({"method": "timestampedData", "params": {str(house.now()): {"_sum/EssSoc": 50}}})
        tabs: dict[int, FakeConnection] = {}
        unexplained: dict[tuple[str, str], int] = {}
        used: set[tuple[str, str]] = set()
        for ws, request in requests:
            if ws not in tabs:
                tabs[ws] = house.tab()
                tabs[ws].receive(_login())
            tab = tabs[ws]
            recorded = replies.get(request["id"])
            if recorded is None:
                continue
            tab.take()
            tab.receive(request)
            self.answer_as_recorded(edge, request, recorded)
            house.clock.advance(0.2)
            ours = [message for message in tab.take() if message.get("id") == request["id"]]
            method = _method(request)
            self.assertEqual(len(ours), 1, f"{method}: {len(ours)} replies")
            if request["method"] == "logout":
                tab.receive(_login())
            for difference in recording.differences(recorded, ours[0]):
                key = next((k for k in ((method, difference), ("*", difference)) if k in WANTED), None)
                if key is None:
                    unexplained[method, difference] = unexplained.get((method, difference), 0) + 1
                else:
                    used.add(key)
        self.assertEqual(unexplained, {})
        self.assertEqual(set(WANTED) - used, set(), "differences that are no more")

    def answer_as_recorded(self, edge: FakeConnection, request: dict[str, Any], recorded: dict[str, Any]) -> None:
        """Our edge gives the answer the real edge gave."""
        for message in edge.take():
            if message.get("method") != "authenticatedRpc":
                continue
            payload = recorded.get("result", {}).get("payload")
            if payload is not None:
                result = {"payload": {"jsonrpc": "2.0", "id": payload["id"], "result": payload["result"]}}
                edge.receive({"id": message["id"], "result": result})
            else:
                edge.receive({"id": message["id"], "error": recorded["error"]})


def _config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads(
        [text for text in recording.texts("edge-edgeapp", 1, "c>s") if '"method":"edgeConfig"' in text][-1]
    )["params"]
    return config


def _login() -> dict[str, Any]:
    params = {"username": "admin@example.org", "password": "x"}
    return {"method": "authenticateWithPassword", "params": params, "id": jsonrpc.new_id()}


def _method(request: dict[str, Any]) -> str:
    params = jsonrpc.raw(request["params"])
    return jsonrpc.qualified_method(jsonrpc.Request(request["method"], params, request["id"]))
