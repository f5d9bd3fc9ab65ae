"""Many values in one answer (b2b.md 4): all of them, in slices, up to a limit."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.core import currentvalues
from openems.backend.core.currentvalues import asked, collect
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Members, raw


class Edges:
    """``most``: values asked for in one turn of the reactor."""

    def __init__(self) -> None:
        self.values = 0
        self.most = 0

    def get(self, edge_id: str, channels: Sequence[str]) -> dict[str, Any]:
        self.values += len(channels)
        self.most = max(self.most, self.values)
        return {channel: f"{edge_id} {channel}" for channel in channels}


class Turns(Clock):
    """``turn`` is called before whatever was scheduled: each is a turn of a reactor."""

    def __init__(self, turn: Callable[[], None]) -> None:
        super().__init__()
        self.turn = turn

    def callLater(self, delay: float, function: Any, *arguments: Any, **more: Any) -> Any:
        def call() -> None:
            self.turn()
            function(*arguments, **more)

        return super().callLater(delay, call)


class CollectTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Turns(self.turn)
        self.edges = Edges()

    def turn(self) -> None:
        self.edges.values = 0

    def begin(self, edges: int, channels: int) -> Deferred[Any]:
        ids = [f"edge{n}" for n in range(edges)]
        wanted = [f"c/{n}" for n in range(channels)]
        return Deferred.fromCoroutine(collect(self.edges.get, ids, wanted, self.clock))

    def end(self, collecting: Deferred[Any]) -> Any:
        self.clock.advance(0)
        result = self.successResultOf(collecting)
        return json.loads(bytes(result)) if isinstance(result, Raw) else result

    def test_few_come_at_once(self) -> None:
        self.assertEqual(self.successResultOf(self.begin(1, 1)), {"edge0": {"c/0": "edge0 c/0"}})
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.successResultOf(self.begin(3, 0)), {})
        self.assertEqual(self.successResultOf(self.begin(0, 3)), {})

    def test_the_most_in_slices(self) -> None:
        for edges, channels in ((10_000, 20), (450, 440), (10, 20_000), (1, 20_000)):
            self.edges = Edges()
            result = self.end(self.begin(edges, channels))
            self.assertEqual(sum(map(len, result.values())), edges * channels)
            self.assertLessEqual(self.edges.most, max(currentvalues.SLICE, channels))

    @given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 50))
    def test_whatever_the_slice_the_same(self, edges: int, channels: int, slice_: int) -> None:
        whole = self.end(self.begin(edges, channels))
        before, currentvalues.SLICE = currentvalues.SLICE, slice_
        try:
            self.assertEqual(self.end(self.begin(edges, channels)), whole)
        finally:
            currentvalues.SLICE = before

    def test_the_client_goes(self) -> None:
        collecting = self.begin(10_000, 20)
        collecting.cancel()
        self.failureResultOf(collecting, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LimitTest(SynchronousTestCase):
    def refused(self, edges: int, channels: int) -> str:
        params = {"ids": [f"edge{n}" for n in range(edges)], "channels": [f"c/{n}" for n in range(channels)]}
        error = self.assertRaises(OpenemsError, asked, Members(raw(params)))
        return str(error.message)

    def test_limits(self) -> None:
        self.assertEqual(self.refused(10_001, 1), "Too many edges: 10001, at most 10000")
        self.assertEqual(self.refused(1, 20_001), "Too many channels: 20001, at most 20000")
        self.assertEqual(self.refused(10_000, 21), "Too many values: 10000 edges with 21 channels, at most 200000")

    def test_doubles_count_once(self) -> None:
        params = {"ids": ["edge1", "edge0", "edge1"], "channels": ["c/b", "c/a", "c/b"]}
        self.assertEqual(asked(Members(raw(params))), (["edge0", "edge1"], ["c/a", "c/b"]))
