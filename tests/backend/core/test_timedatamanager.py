"""All providers behind one (core.md 4, vectors 12.1, 12.2)."""

from __future__ import annotations

import datetime
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.core.timedatamanager import CannotServe, TimedataManager, in_order
from openems.common.data import DataKind, DataNotification
from openems.common.errors import OpenemsError, generic
from openems.common.resolution import Resolution, Unit
from openems.testing.services import FakeTimedata, now_of

FIVE_MINUTES = Resolution(5, Unit.MINUTES)
DAY = Resolution(1, Unit.DAYS)
C1, C2, RANDOM = "comp1/Channel1", "comp1/Channel2", "some0/RandomChannel"
NO_DATA = "Unable to query historic data. Result is null"
NO_PERIOD = "Unable to query historic energy per period. Result is null"
NO_FIRST = "Unable to query first value before. Result is null"


def at(day: int, minute: int = 0) -> datetime.datetime:
    return datetime.datetime(2000, 1, day, 0, minute, tzinfo=datetime.UTC)


def ms(day: int, minute: int = 0) -> int:
    return int(at(day, minute).timestamp() * 1000)


class Order(SynchronousTestCase):
    def test_12_1(self) -> None:
        for ids, providers, expected in (
            (["Item2", "Item3", "Item4"], ["Item5", "Item1", "Item4", "Item2", "Item3"],
             ["Item2", "Item3", "Item4", "Item1", "Item5"]),
            ([], ["b", "a"], ["a", "b"]),
            (["c"], ["a", "b", "c"], ["c", "a", "b"]),
            (["gone", "b"], ["a", "b"], ["b", "a"]),
        ):  # fmt: skip
            self.assertEqual([p.id for p in in_order([FakeTimedata(i) for i in providers], ids)], expected)

    def test_two_of_one_id(self) -> None:
        self.assertRaises(ValueError, in_order, [FakeTimedata("t"), FakeTimedata("t")], [])


class Merging(SynchronousTestCase):
    """core.md 12.2: the first one that knows a channel answers it."""

    def setUp(self) -> None:
        self.first = FakeTimedata("timedata0", {C1: {ms(1): 50}})
        self.second = FakeTimedata("timedata1", {C1: {ms(1): 100}, C2: {ms(1): 200}})
        self.manager = TimedataManager([self.second, self.first])

    def data(self, *channels: str, minutes: int = 5) -> Any:
        history = now_of(self.manager.query_historic_data("edge0", at(1), at(1, minutes), channels, FIVE_MINUTES))
        self.assertEqual(history.timestamps, [ms(1, minute) for minute in range(0, minutes, 5)])
        return history.data

    def error(self, awaitable: Any) -> str:
        return self.assertRaises(OpenemsError, now_of, awaitable).message

    def test_12_2_data(self) -> None:
        self.assertEqual(self.data(C1), {C1: [50]})
        self.assertEqual(self.data(C1, minutes=10), {C1: [50, None]})
        self.assertEqual(self.data(C1, C2), {C1: [50], C2: [200]})
        self.assertEqual(self.data(C2), {C2: [200]})
        self.assertEqual(self.data(RANDOM, C1), {C1: [50], RANDOM: [None]})
        self.assertEqual(
            self.error(self.manager.query_historic_data("edge0", at(1), at(2), [RANDOM], FIVE_MINUTES)), NO_DATA
        )

    def test_only_what_is_missing_is_asked_for(self) -> None:
        self.data(C2, C1)
        self.assertEqual((self.first.asked, self.second.asked), ([[C1, C2]], [[C2]]))
        self.data(C1)
        self.assertEqual(len(self.second.asked), 1)

    def test_a_column_of_nulls_is_an_answer(self) -> None:
        self.first.data[C1] = {}
        self.assertEqual(self.data(C1), {C1: [None]})
        self.assertEqual(self.second.asked, [])

    def test_12_2_energy_per_period(self) -> None:
        def ask(last: int, *channels: str) -> Any:
            return self.manager.query_historic_energy_per_period("edge0", at(1), at(last), channels, DAY)

        self.assertEqual(now_of(ask(2, C1, C2)).data, {C1: [50], C2: [200]})
        self.assertEqual(now_of(ask(3, C1)).data, {C1: [50, None]})
        self.assertEqual(self.error(ask(2, RANDOM)), NO_PERIOD)

    def test_12_2_energy(self) -> None:
        def ask(*channels: str) -> Any:
            return self.manager.query_historic_energy("edge0", at(1), at(2), channels)

        self.assertEqual(now_of(ask(C1)), {C1: 50})
        self.assertEqual(now_of(ask(C2, C1)), {C1: 50, C2: 200})
        self.assertEqual(now_of(ask(C1, RANDOM)), {C1: 50, RANDOM: None})
        self.assertEqual(self.error(ask(RANDOM)), NO_DATA)
        self.second.error = generic("two")
        self.assertEqual(now_of(ask(C1, C2)), {C1: 50, C2: None})

    def test_12_2_first_value_before(self) -> None:
        self.assertEqual(now_of(self.manager.query_first_value_before("edge0", at(2), [C1, C2])), {C1: 50, C2: 200})
        self.assertEqual(self.error(self.manager.query_first_value_before("edge0", at(2), [RANDOM])), NO_FIRST)

    def test_12_2_errors(self) -> None:
        def ask() -> Any:
            return self.manager.query_historic_data("edge0", at(1), at(2), [C1], DAY)

        self.first.error = generic("one")
        self.assertEqual(now_of(ask()).data, {C1: [100]})
        self.second.error = generic("two")
        self.assertEqual(self.error(ask()), "one")
        self.first.error, self.second.error = CannotServe("no"), CannotServe("no")
        self.assertEqual(self.error(ask()), NO_DATA)
        self.first.error = RuntimeError("secret")
        self.assertEqual(self.error(ask()), NO_DATA)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_no_provider(self) -> None:
        manager = TimedataManager([])
        self.assertEqual(
            self.error(manager.query_historic_energy_per_period("edge0", at(1), at(2), [C1], DAY)), NO_PERIOD
        )


class Writing(SynchronousTestCase):
    def test_all_in_order_whoever_fails(self) -> None:
        order: list[str] = []

        class Provider(FakeTimedata):
            def write(self, edge_id: str, data: DataNotification) -> None:
                order.append(self.id)
                super().write(edge_id, data)

        providers = [Provider("b"), Provider("c"), Provider("a")]
        providers[0].write_error = RuntimeError("full")
        manager = TimedataManager(providers, ["c"])
        for _ in range(3):
            manager.write("edge0", DataNotification(DataKind.TIMESTAMPED, {1: {C1: 1}}))
        self.assertEqual(order, ["c", "a", "b"] * 3)
        self.assertEqual(manager.write_failures, {"b": 3})
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1, "not a line a write")

    def test_metrics_go_to_the_pseudo_edge(self) -> None:
        provider = FakeTimedata()
        TimedataManager([provider]).consume_metrics(5, {"a0/X": 1, "Metadata.File/Y": 2})
        self.assertEqual(
            [(e, d.rows) for e, d in provider.written], [("backend0", {5: {"a0/X": 1, "metadataFile0/Y": 2}})]
        )
        TimedataManager([provider], is_edge=lambda edge_id: edge_id == "backend0").consume_metrics(5, {"a0/X": 1})
        TimedataManager([provider], write_metrics=False).consume_metrics(5, {"a0/X": 1})
        TimedataManager([provider]).consume_metrics(5, {})
        self.assertEqual(len(provider.written), 1)
