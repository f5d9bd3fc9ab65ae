"""Live values over a restart of the backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.edge.cache import GAP, MAX_TEXT, EdgeCache
from openems.backend.edge.keptvalues import PATIENCE, KeptValues
from openems.common.data import Value
from openems.testing.services import now_of

from .world import START, World, connected, data, edge_rpc

VALUES: dict[str, Value] = {"c/a": 1, "c/b": -2.5, "c/c": "text", "c/d": None, "c/e": True}


class KeptCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        self.clock = Clock()
        self.time = START

    def kept(self, **more: Any) -> KeptValues:
        kept = KeptValues(self.path, reactor=self.clock, now=lambda: self.time, **more)
        self.addCleanup(kept.close)
        return kept

    def cache(self, values: dict[str, Value]) -> EdgeCache:
        cache = EdgeCache()
        cache.current.update({START: values})
        return cache

    def restored(self, kept: KeptValues, edge_id: str = "edge0") -> dict[str, Value]:
        cache = EdgeCache()
        kept.restore(edge_id, cache)
        return {**cache.aggregated.values, **cache.current.values}


class File(KeptCase):
    def test_there_and_back(self) -> None:
        cache = self.cache(VALUES)
        cache.aggregated.update({START - 300_000: {"c/f": 3}})
        self.kept().save({"edge0": cache, "edge1": self.cache({"c/a": 5}), "edge3": self.cache({"c/a": 6})})
        self.assertEqual(Path(self.path).stat().st_mode & 0o777, 0o600)
        kept = self.kept()
        kept.load()
        again = EdgeCache()
        kept.restore("edge0", again)
        self.assertEqual(again.current.values, VALUES)
        self.assertEqual(again.aggregated.values, {"c/f": 3})
        self.assertEqual((again.current.timestamp, again.aggregated.timestamp), (START, START - 300_000))
        self.assertEqual(self.restored(kept, "edge1"), {"c/a": 5})
        self.assertEqual(self.restored(kept, "edge2"), {})
        self.assertIs(next(iter(again.current.values)), next(iter(self.restored(kept, "edge3"))))
        # Once only: an edge that leaves and comes back begins anew, and so does a start after the next.
        self.assertEqual(self.restored(kept), {})
        self.assertFalse(os.path.exists(self.path))

    def test_nothing_to_keep(self) -> None:
        self.kept().save({})
        self.assertFalse(os.path.exists(self.path))
        self.kept().load()

    def test_what_is_old_is_not_taken_over(self) -> None:
        for age, found in ((GAP - 1, {"c/a": 1}), (GAP, {}), (-1, {})):
            self.time = START
            self.kept().save({"edge0": self.cache({"c/a": 1})})
            self.time = START + age
            kept = self.kept()
            kept.load()
            self.assertEqual(self.restored(kept), found, age)

    def test_who_does_not_come_is_forgotten(self) -> None:
        self.kept().save({"edge0": self.cache({"c/a": 1})})
        kept = self.kept()
        kept.load()
        self.clock.advance(PATIENCE)
        self.assertEqual(self.restored(kept), {})

    def test_two_restarts_in_a_row(self) -> None:
        self.kept().save({"edge0": self.cache({"c/a": 1}), "edge1": self.cache({"c/a": 2})})
        kept = self.kept()
        kept.load()
        self.assertEqual(self.restored(kept), {"c/a": 1})
        kept.save({"edge0": self.cache({"c/a": 3})})
        kept = self.kept()
        kept.load()
        self.assertEqual([self.restored(kept, f"edge{n}") for n in range(2)], [{"c/a": 3}, {"c/a": 2}])

    def test_broken_files(self) -> None:
        for content in (b"", b"\xff" * 100, b"\x92\x01\x02", b"\x93\x01\x80\x80"):
            Path(self.path).write_bytes(content)
            kept = self.kept()
            kept.load()
            self.assertEqual(self.restored(kept), {})
            self.assertFalse(os.path.exists(self.path))
        self.kept().save({"edge0": self.cache({"c/a": 1})})
        whole = Path(self.path).read_bytes()
        for length in range(len(whole)):
            Path(self.path).write_bytes(whole[:length])
            kept = self.kept()
            kept.load()
            self.assertEqual(self.restored(kept), {})

    def test_no_folder(self) -> None:
        self.path = os.path.join(self.path, "not", "there")
        self.kept().save({"edge0": self.cache({"c/a": 1})})
        self.kept().load()

    def test_what_no_file_can_hold_costs_that_edge_only(self) -> None:
        self.kept().save(
            {
                "edge0": self.cache({"c/a": 2**70}),
                "edge1": self.cache({"c/a": "\ud800"}),
                "edge2": self.cache({"c/a": 1}),
            }
        )
        kept = self.kept()
        kept.load()
        self.assertEqual([self.restored(kept, f"edge{n}") for n in range(3)], [{}, {}, {"c/a": 1}])

    def test_bound(self) -> None:
        kept = self.kept(max_bytes=100)
        kept.save({f"edge{n}": self.cache({"c/a": "x" * 40}) for n in range(5)})
        kept.load()
        self.assertEqual([bool(self.restored(kept, f"edge{n}")) for n in range(5)], [True, False, False, False, False])

    def test_the_bound_on_texts_goes_on(self) -> None:
        self.kept().save({"edge0": self.cache({"c/a": "x" * (MAX_TEXT - 10)})})
        kept = self.kept()
        kept.load()
        cache = EdgeCache()
        kept.restore("edge0", cache)
        cache.current.update({START + 1: {"c/b": "y" * 20}})
        self.assertEqual(cache.current.dropped, {"text": 1})


class Manager(KeptCase):
    def world(self) -> World:
        world = World(kept=self.kept())
        now_of(world.manager.start())
        return world

    def test_behind_an_edge_application(self) -> None:
        world = self.world()
        application = world.application()
        application.receive(edge_rpc("edge0", data({"c/a": 1, "c/b": 2})))
        application.receive(edge_rpc("edge1", data({"c/a": 3})))
        now_of(world.manager.stop())

        world = self.world()
        application = world.application()
        application.receive(connected("edge0"))
        self.assertEqual(world.manager.get_channel_values("edge0", ["c/a", "c/b"]), {"c/a": 1, "c/b": 2})
        application.receive(edge_rpc("edge0", data({"c/a": 7}, START + 1000)))
        self.assertEqual(world.manager.get_channel_values("edge0", ["c/a", "c/b"]), {"c/a": 7, "c/b": 2})
        # An edge that connects here sends all of its values itself.
        edge = world.direct("key1")
        edge.receive(data({"c/b": 4}, START + 1000))
        self.assertEqual(world.manager.get_channel_values("edge1", ["c/a", "c/b"]), {"c/a": None, "c/b": 4})
        now_of(world.manager.stop())

    def test_a_gap_empties_it(self) -> None:
        world = self.world()
        world.application().receive(edge_rpc("edge0", data({"c/a": 1, "c/b": 2})))
        now_of(world.manager.stop())
        world = self.world()
        world.application().receive(edge_rpc("edge0", data({"c/a": 7}, START + GAP + 1)))
        self.assertEqual(world.manager.get_channel_values("edge0", ["c/a", "c/b"]), {"c/a": 7, "c/b": None})
        now_of(world.manager.stop())

    def test_direct_edges_are_not_kept(self) -> None:
        world = self.world()
        world.direct().receive(data({"c/a": 1}))
        now_of(world.manager.stop())
        self.assertFalse(os.path.exists(self.path))
