"""Parameters of history requests (wire.md 6.7, 9.4)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Members
from openems.common.methods.history import DATA, ENERGY, ENERGY_PER_PERIOD, EXPORT, MAX_CHANNELS, HistoryQuery

PARAMS = {"timezone": "Europe/Berlin", "fromDate": "2026-03-28", "toDate": "2026-03-29", "channels": ["_sum/EssSoc"]}


def parse(method: str = ENERGY, **changed: Any) -> HistoryQuery:
    return HistoryQuery.parse(method, Members({k: v for k, v in {**PARAMS, **changed}.items() if v is not ...}))


class Parsing(SynchronousTestCase):
    def code(self, *arguments: Any, **changed: Any) -> int:
        return self.assertRaises(OpenemsError, parse, *arguments, **changed).code  # type: ignore[no-any-return]

    def test_9_4_days_of_the_zone(self) -> None:
        query = parse()
        self.assertEqual(query.from_date.isoformat(), "2026-03-28T00:00:00+01:00")
        self.assertEqual(query.to_date.isoformat(), "2026-03-30T00:00:00+02:00")

    def test_9_4_zones(self) -> None:
        for zone, offset in (("Foo/Bar", "+00:00"), (-7200, "+02:00"), (7200, "-02:00"), ("EST", "-05:00")):
            self.assertTrue(parse(timezone=zone).from_date.isoformat().endswith(offset), zone)

    def test_9_4_channels(self) -> None:
        channels = ["_sum/EssSoc", "_sum/Abc", "_sum/EssSoc"]
        self.assertEqual(parse(channels=channels).channels, ("_sum/Abc", "_sum/EssSoc"))

    def test_9_4_resolutions(self) -> None:
        self.assertEqual(parse(DATA, resolution=300).resolution, parse(DATA, resolution="300").resolution)
        error = self.assertRaises(OpenemsError, parse, DATA, resolution={"value": 15, "unit": "foo"})
        self.assertEqual((error.code, error.message), (1, "No enum constant java.time.temporal.ChronoUnit.FOO"))

    def test_who_needs_what(self) -> None:
        self.assertIsNone(parse(ENERGY).resolution)
        self.assertIsNotNone(parse(DATA).resolution)
        self.assertEqual(parse(EXPORT, channels=...).channels, ())
        self.assertEqual(self.code(ENERGY_PER_PERIOD), 5000)

    def test_what_is_wrong_is_named(self) -> None:
        for changed, code in (
            ({"timezone": ...}, 5005), ({"fromDate": "2026-03"}, 5008), ({"toDate": 5}, 5010),
            ({"fromDate": "2026-02-30"}, 1), ({"channels": "x"}, 5007), ({"channels": ["ess0"]}, 1000),
            ({"toDate": "9999-12-31"}, 1),
        ):  # fmt: skip
            self.assertEqual(self.code(ENERGY, **changed), code, changed)

    def test_bounds(self) -> None:
        channels = [f"c/{n}" for n in range(MAX_CHANNELS + 1)]
        self.assertEqual(self.code(channels=channels), 1)
        self.assertEqual(self.code(DATA, fromDate="1900-01-01", toDate="2100-01-01", resolution=1), 1)

    @given(
        st.fixed_dictionaries(
            {},
            optional={
                name: st.none()
                | st.integers()
                | st.floats()
                | st.text(max_size=12)
                | st.lists(st.text(max_size=4), max_size=2)
                | st.sampled_from(["2026-04-01", "1-1-1", "9999-12-31", "-999999999", "+99:99"])
                for name in ("timezone", "fromDate", "toDate", "resolution", "channels")
            },
        ),
        st.sampled_from([DATA, ENERGY, ENERGY_PER_PERIOD, EXPORT]),
    )
    def test_nothing_else_is_raised(self, changed: dict[str, Any], method: str) -> None:
        try:
            parse(method, **changed)
        except OpenemsError:
            pass
