from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.ui.subscriptions import Subscriptions, Watcher, edge_rpc
from openems.common import jsonrpc
from openems.common.jsonrpc import Notification
from tests.backend.ui.world import EdgeManager


class Connection:
    def __init__(self) -> None:
        self.waiting = 0
        self.sent: list[bytes] = []

    def send(self, text: bytes) -> bool:
        self.sent.append(text)
        return True

    def values(self) -> list[Any]:
        texts, self.sent = self.sent, []
        return [jsonrpc.loads(text)["params"]["payload"]["params"] for text in texts]


class SubscriptionsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.edges = EdgeManager()
        self.edges.connected.add("edge0")
        self.edges.values["edge0"] = {"A/x": 1, "A/y": 2}
        self.subscriptions = Subscriptions(self.edges, slow=1_000)

    def watcher(self, *channels: str) -> tuple[Watcher, Connection]:
        connection = Connection()
        watcher = Watcher(connection)
        self.subscriptions.set_edges(watcher, frozenset({"edge0"}))
        self.subscriptions.set_channels(watcher, "edge0", channels)
        connection.sent.clear()
        return watcher, connection

    def test_equal_content_is_encoded_once(self) -> None:
        connections = [self.watcher("A/y", "A/x", "A/x")[1] for _ in range(50)]
        other = self.watcher("A/x")[1]
        self.edges.asked.clear()
        before = self.subscriptions.encoded
        self.subscriptions.push("edge0")
        self.assertEqual(self.subscriptions.encoded - before, 2)
        self.assertEqual(self.edges.asked, [("edge0", ("A/x", "A/y")), ("edge0", ("A/x",))])
        self.assertEqual(len({id(connection.sent[0]) for connection in connections}), 1)
        self.assertEqual(other.values(), [{"A/x": 1}])

    def test_names_of_channels_are_kept_once_for_all_sessions(self) -> None:
        """Each name of a request is a text of its own; thousands of them a session would be a megabyte."""
        one, other = (self.watcher(*orjson.loads(b'["A/x","A/y"]'))[0] for _ in range(2))
        for mine, theirs in zip(one.channels["edge0"], other.channels["edge0"], strict=True):
            self.assertIs(mine, theirs)

    def test_envelope(self) -> None:
        """ui.md 10.2"""
        _, connection = self.watcher("A/x", "foo0/Bar")
        self.subscriptions.push("edge0")
        self.assertEqual(
            connection.sent,
            [
                b'{"jsonrpc":"2.0","method":"edgeRpc","params":{"edgeId":"edge0","payload":'
                b'{"jsonrpc":"2.0","method":"currentData","params":{"A/x":1,"foo0/Bar":null}}}}'
            ],
        )

    def test_odd_values(self) -> None:
        self.edges.values["edge0"] = {"A/x": 2**70, "A/y": "a\u2028b", "A/z": float("nan")}
        _, connection = self.watcher("A/x")
        self.subscriptions.push("edge0")
        self.assertIn(b'"A/x":1180591620717411303424', connection.sent[0])
        _, connection = self.watcher("A/y", "A/z")
        self.subscriptions.push("edge0")
        self.assertIn(rb'"A/y":"a\u2028b","A/z":null', connection.sent[0])

    def test_slow_reader_gets_the_newest_when_it_reads_again(self) -> None:
        _, slow = self.watcher("A/x")
        _, quick = self.watcher("A/x")
        slow.waiting = 1_001
        for value in (2, 3, 4):
            self.edges.values["edge0"]["A/x"] = value
            self.subscriptions.push("edge0")
            self.subscriptions.catch_up()
        self.assertEqual(quick.values(), [{"A/x": 2}, {"A/x": 3}, {"A/x": 4}])
        self.assertEqual(slow.sent, [])
        self.assertEqual(self.subscriptions.superseded, 3)
        slow.waiting = 0
        self.subscriptions.catch_up()
        self.subscriptions.catch_up()
        self.assertEqual(slow.values(), [{"A/x": 4}])

    def test_slow_reader_is_not_remembered_when_gone(self) -> None:
        watcher, slow = self.watcher("A/x")
        slow.waiting = 1_001
        self.subscriptions.push("edge0")
        self.subscriptions.remove(watcher)
        slow.waiting = 0
        self.subscriptions.catch_up()
        self.assertEqual(slow.sent, [])

    def test_slow_reader_of_an_edge_that_went_away(self) -> None:
        """ui.md 10.3: pushes resume with the edge's first data, not before"""
        _, slow = self.watcher("A/x")
        slow.waiting = 1_001
        self.subscriptions.push("edge0")
        slow.waiting = 0
        self.edges.connected.clear()
        self.subscriptions.catch_up()
        self.edges.connected.add("edge0")
        self.subscriptions.catch_up()
        self.assertEqual(slow.sent, [])

    def test_connection_that_ends_while_it_is_pushed_to(self) -> None:
        pairs = [self.watcher("A/x") for _ in range(3)]
        watcher, connection = pairs[0]

        def drop(text: bytes) -> bool:
            self.subscriptions.remove(watcher)
            return False

        connection.send = drop  # type: ignore[method-assign]
        self.subscriptions.push("edge0")
        self.assertEqual([len(c.sent) for _, c in pairs[1:]], [1, 1])

    def test_nothing_is_left_behind(self) -> None:
        watchers = [self.watcher("A/x", "A/y")[0] for _ in range(100)]
        for watcher in watchers:
            self.subscriptions.remove(watcher)
        self.assertEqual(len(self.subscriptions), 0)

    def test_unwatched_edge_costs_nothing(self) -> None:
        self.edges.asked.clear()
        self.subscriptions.push("edge0")
        self.assertEqual(self.edges.asked, [])

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 3),
                st.one_of(
                    st.frozensets(st.sampled_from(["edge0", "edge1", "edge2"])),
                    st.tuples(st.sampled_from(["edge0", "edge1"]), st.lists(st.sampled_from(["A/x", "A/y"]))),
                    st.none(),
                ),
            ),
            max_size=40,
        )
    )
    def test_index_agrees_with_what_the_sessions_asked_for(self, steps: list[tuple[int, Any]]) -> None:
        subscriptions = Subscriptions(self.edges)
        connections = [Connection() for _ in range(4)]
        watchers = [Watcher(connection) for connection in connections]
        edges: list[set[str]] = [set() for _ in watchers]
        channels: list[dict[str, set[str]]] = [{} for _ in watchers]
        for who, step in steps:
            if step is None:
                subscriptions.remove(watchers[who])
                edges[who], channels[who] = set(), {}
            elif isinstance(step, frozenset):
                subscriptions.set_edges(watchers[who], step)
                edges[who] = set(step)
            else:
                subscriptions.set_channels(watchers[who], *step)
                channels[who][step[0]] = set(step[1])
        for edge_id in ("edge0", "edge1", "edge2"):
            for connection in connections:
                connection.sent.clear()
            subscriptions.push(edge_id)
            for who, connection in enumerate(connections):
                wanted = channels[who].get(edge_id, set()) if edge_id in edges[who] else set()
                self.assertEqual([set(values) for values in connection.values()], [wanted] if wanted else [])
        self.assertEqual(len(subscriptions), len(set().union(*edges)))


class EdgeRpcTest(SynchronousTestCase):
    def test_verbatim(self) -> None:
        """reality.md R1"""
        params = jsonrpc.Raw(b'{"components":{"x":1.0},"n":12345678901234567890}')
        text = edge_rpc("edge0", Notification("edgeConfig", params))
        self.assertEqual(
            text,
            b'{"jsonrpc":"2.0","method":"edgeRpc","params":{"edgeId":"edge0","payload":'
            b'{"jsonrpc":"2.0","method":"edgeConfig","params":' + bytes(params) + b"}}}",
        )
