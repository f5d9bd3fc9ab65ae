"""The values of one edge (edge.md 3.10, vectors 9.1)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.edge.cache import GAP, MAX_CHANNELS, MAX_TEXT, EdgeCache, Store

A, B, C = "foo/bar1", "foo/bar2", "foo/bar3"


class Texts(SynchronousTestCase):
    """An edge cannot fill the memory with texts: ten thousand channels of a megabyte each."""

    def setUp(self) -> None:
        self.store = Store()

    def kept(self) -> int:
        return sum(len(value) for value in self.store.values.values() if isinstance(value, str))

    def test_many_channels(self) -> None:
        for number in range(1000):
            self.store.update({number: {f"a{number}/B": "x" * 20_000, f"a{number}/C": number}})
        self.assertLessEqual(self.kept(), MAX_TEXT)
        self.assertGreater(self.kept(), MAX_TEXT - 20_000)
        self.assertEqual(self.store.values["a999/C"], 999, "numbers stay")
        self.assertEqual(self.store.dropped, {"text": 1000 - MAX_TEXT // 20_000})

    def test_one_channel(self) -> None:
        self.store.update({0: {A: "old"}})
        self.store.update({1: {A: "x" * (MAX_TEXT + 1), B: 1}})
        self.assertEqual(self.store.values, {B: 1}, "rather nothing than what is over")

    def test_what_is_replaced_does_not_count(self) -> None:
        for number in range(100):
            self.store.update({number: {A: f"{number}" + "x" * (MAX_TEXT // 3), B: number}})
        self.assertEqual(self.store.dropped, {})
        self.assertTrue(str(self.store.values[A]).startswith("99x"))


class Vectors(SynchronousTestCase):
    """edge.md 9.1, by number."""

    def setUp(self) -> None:
        self.cache = EdgeCache()
        self.current = self.cache.current

    def test_1_to_4(self) -> None:
        self.current.update({0: {A: "value1"}})
        self.assertEqual(self.cache.get(A), "value1")
        self.current.update({-1: {A: "ignore"}})
        self.assertEqual(self.cache.get(A), "value1")
        self.current.update({120_000: {B: "value2"}})
        self.assertEqual(self.cache.get_channel_values([B, A]), {A: "value1", B: "value2"})
        self.current.update({120_000 + GAP + 1: {C: "value3"}})
        self.assertEqual(self.cache.get_channel_values([A, B, C]), {A: None, B: None, C: "value3"})

    def test_5_exactly_fifteen_minutes_empties_nothing(self) -> None:
        self.current.update({0: {A: 1}})
        self.current.update({900_000: {B: 2}})
        self.assertEqual(self.cache.get_channel_values([A, B]), {A: 1, B: 2})

    def test_6_aggregated_only(self) -> None:
        self.cache.aggregated.update({0: {A: 5}})
        self.assertEqual(self.cache.get(A), 5)
        self.assertEqual(self.cache.only_aggregated([A, B]), {A})

    def test_7_null_hides_the_aggregated_value(self) -> None:
        self.cache.aggregated.update({0: {A: 5}})
        self.current.update({0: {A: None}})
        self.assertIsNone(self.cache.get(A))
        self.assertEqual(self.cache.get_channel_values([A]), {A: None})
        self.assertEqual(self.cache.only_aggregated([A]), set())

    def test_8_the_last_row_of_a_message_wins(self) -> None:
        self.current.update({10: {A: 1}, 20: {A: 2}})
        self.assertEqual(self.cache.get(A), 2)

    def test_9_equal_time_is_applied(self) -> None:
        self.current.update({20: {A: 1}})
        self.current.update({20: {A: 3}})
        self.assertEqual(self.cache.get(A), 3)

    def test_10_unknown(self) -> None:
        self.assertIsNone(self.cache.get("no/Such"))


class Sorted(SynchronousTestCase):
    def test_9_9_ascending_and_null_where_unknown(self) -> None:
        cache = EdgeCache()
        cache.current.update({1: {"c/a": 1}})
        cache.aggregated.update({1: {"c/b": 2}})
        values = cache.get_channel_values(["c/b", "c/a", "c/z"])
        self.assertEqual(list(values.items()), [("c/a", 1), ("c/b", 2), ("c/z", None)])


class Nonsense(SynchronousTestCase):
    """It costs only itself, and is counted."""

    def setUp(self) -> None:
        self.store = Store()

    def test_names_that_are_no_address(self) -> None:
        self.store.update({1: {"noslash": 1, A: 1, "x/" + "y" * 300: 1, "": 2}})
        self.assertEqual(self.store.values, {A: 1})
        self.assertEqual(self.store.dropped, {"address": 3})

    def test_values_that_are_no_scalar(self) -> None:
        self.store.update({1: {A: 1, B: {"x": 1}, C: [1]}})
        self.assertEqual(self.store.values, {A: 1})
        self.assertEqual(self.store.dropped, {"value": 2})

    def test_no_scalar_leaves_the_value_before(self) -> None:
        self.store.update({1: {A: 1}})
        self.store.update({2: {A: {}}})
        self.assertEqual(self.store.values, {A: 1})

    def test_twenty_thousand_channels(self) -> None:
        self.store.update({1: {f"c/{i}": i for i in range(20_000)}})
        self.assertEqual(len(self.store.values), MAX_CHANNELS)
        self.assertEqual(self.store.dropped, {"channels": 10_000})
        self.assertEqual(self.store.values["c/0"], 0)
        # What was there first stays, and is still renewed.
        self.store.update({2: {"c/0": -1, "d/0": 1}})
        self.assertEqual(self.store.values["c/0"], -1)
        self.assertNotIn("d/0", self.store.values)

    def test_bad_addresses_are_found_after_a_gap_too(self) -> None:
        """As many bad names as there were values before the store was emptied."""
        self.store.update({0: {A: 1}})
        self.store.update({GAP + 1: {"noslash": 1}})
        self.assertEqual(self.store.values, {})


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
ANY = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)
ROWS = st.dictionaries(st.sampled_from([A, B, C, "noslash", "x"]) | st.text(max_size=4), ANY, max_size=6)


class ClockSetBack(SynchronousTestCase):
    def test_values_move_again(self) -> None:
        store = Store()
        store.update({50 * 60_000: {A: 1, B: 1}})
        store.update({49 * 60_000: {A: 2}})
        self.assertEqual(store.values, {A: 1, B: 1})
        store.update({10 * 60_000: {A: 3}})
        self.assertEqual(store.values, {A: 3})


class Properties(SynchronousTestCase):
    @given(st.lists(st.tuples(st.integers(0, 4 * GAP), ROWS), max_size=8))
    def test_only_scalars_at_addresses(self, messages: list[tuple[int, dict[str, object]]]) -> None:
        store = Store()
        newest = 0
        for time, row in messages:
            store.update({time: row})  # type: ignore[dict-item]
            # A little older is late and ignored; much older is a clock that was set back.
            if time >= newest or newest - time > GAP:
                newest = time
            self.assertEqual(store.timestamp, newest)
            for address, value in store.values.items():
                self.assertIn("/", address)
                self.assertNotIsInstance(value, dict | list)
