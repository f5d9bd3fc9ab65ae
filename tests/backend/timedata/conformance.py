"""What every history provider must answer, whatever its database.

A provider joins with a few lines::

    class SqliteConformance(TimedataConformance, TestCase):
        async def make(self, now): ...      # a started ITimedata; clean up with addCleanup
        async def settle(self): ...         # everything written can be asked for

Expected values are the "true results" of timedata.md 13 and of timedata-timescaledb.md 29.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from typing import Any
from zoneinfo import ZoneInfo

from zope.interface.verify import verifyObject

from openems.backend.interfaces import ITimedata
from openems.common.data import DataKind, DataNotification, Row, Value
from openems.common.errors import OpenemsError
from openems.common.resolution import Resolution, Unit, midnight, milliseconds

UTC = datetime.UTC
BERLIN = ZoneInfo("Europe/Berlin")
KOLKATA = ZoneInfo("Asia/Kolkata")
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
#: All data of these tests is before this.
NOW = milliseconds(datetime.datetime(2029, 6, 1, tzinfo=UTC))


def at(text: str, zone: datetime.tzinfo = BERLIN) -> int:
    """Epoch ms of a local time as ISO text."""
    return milliseconds(datetime.datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC))


def day(text: str, zone: datetime.tzinfo = BERLIN) -> datetime.datetime:
    return midnight(datetime.date.fromisoformat(text), zone)


def minutes_of(start: str, end: str, step: int, value: Callable[[int], Value]) -> dict[int, Value]:
    """UTC samples each ``step`` minutes of [start, end)."""
    first, last = at(start, UTC), at(end, UTC)
    return {time: value((time - first) // MINUTE) for time in range(first, last, step * MINUTE)}


class TimedataConformance:
    EDGE = "edge7"
    #: False for a set-up that keeps nothing finer than five minutes of this data.
    FINE = True
    #: False for a database that keeps numbers only; numbers written as text count as such there (timedata.md 5.4).
    TEXTS = True
    #: False for one that keeps whole numbers where the first value of a channel was one (timedata.md 5.5).
    FRACTIONS = True
    provider: Any

    async def make(self, now: Callable[[], int]) -> Any:
        raise NotImplementedError

    async def settle(self) -> None: ...

    async def given(self, kind: DataKind = DataKind.TIMESTAMPED, **channels: dict[int, Value]) -> None:
        """Samples by channel; ``A_B`` stands for channel ``A/B``."""
        await self.begin()
        rows: dict[int, Row] = {}
        for name, samples in channels.items():
            for time, value in samples.items():
                rows.setdefault(time, {})[name.replace("_", "/", 1)] = value
        self.provider.write(self.EDGE, DataNotification(kind, dict(sorted(rows.items()))))
        await self.settle()

    async def begin(self) -> None:
        if getattr(self, "provider", None) is None:
            self.provider = await self.make(lambda: NOW)

    async def data(self, begin: Any, end: Any, value: int, unit: Unit, *channels: str) -> list[list[Value]]:
        answer = await self.provider.query_historic_data(self.EDGE, begin, end, channels, Resolution(value, unit))
        for column in answer.data.values():
            self.assertEqual(len(answer.timestamps), len(column))
        return [answer.data[channel] for channel in channels]

    async def per_period(self, begin: Any, end: Any, value: int, unit: Unit, *channels: str) -> list[list[Value]]:
        answer = await self.provider.query_historic_energy_per_period(
            self.EDGE, begin, end, channels, Resolution(value, unit)
        )
        for column in answer.data.values():
            self.assertEqual(len(answer.timestamps), len(column))
        return [answer.data[channel] for channel in channels]

    async def energy(self, begin: Any, end: Any, channel: str = "m0/E") -> Value:
        return (await self.provider.query_historic_energy(self.EDGE, begin, end, [channel]))[channel]

    def assert_close(self, expected: Iterable[float | None], actual: Iterable[Value]) -> None:
        expected, actual = list(expected), list(actual)
        self.assertEqual([x is None for x in expected], [x is None for x in actual], actual)
        for one, other in zip(expected, actual, strict=True):
            if one is not None:
                self.assertAlmostEqual(one, other, places=6)

    async def test_it_is_a_provider(self) -> None:
        await self.begin()
        verifyObject(ITimedata, self.provider)

    # -- means (timedata.md 13) ------------------------------------------------------------------

    async def test_example_1_five_minutes(self) -> None:
        base = at("2023-06-01")
        await self.given(
            m0_Grid={base + m * MINUTE: v for m, v in ((0, 100), (4, 200), (5, 301), (6, 302), (16, -40))},
            m0_Soc={base + 6 * MINUTE: 50},
        )
        begin = day("2023-06-01")
        answer = await self.provider.query_historic_data(
            self.EDGE,
            begin,
            begin + datetime.timedelta(minutes=30),
            ["m0/Grid", "m0/Nope", "m0/Soc"],
            Resolution(5, Unit.MINUTES),
        )
        self.assertEqual([base + m * MINUTE for m in (0, 5, 10, 15, 20, 25)], answer.timestamps)
        self.assertEqual(
            {"m0/Grid": [150, 301.5, None, -40, None, None], "m0/Soc": [None, 50, None, None, None, None]}, answer.data
        )

    async def test_example_3_six_hours_and_18_seven_hours(self) -> None:
        base = at("2023-06-01")
        await self.given(
            m0_Grid={base: 100, base + 3 * HOUR: 300, base + 7 * HOUR + 1_800_000: -500, base + DAY - MINUTE: 40},
            m0_X={at("2023-06-02") + h * HOUR: v for h, v in ((1, 10), (3, 20), (5, 30), (10, 50), (12, 70), (20, 90))},
        )
        [column] = await self.data(day("2023-06-01"), day("2023-06-02"), 6, Unit.HOURS, "m0/Grid")
        self.assertEqual([200, -500, None, 40], column)
        [column] = await self.data(day("2023-06-02"), day("2023-06-03"), 7, Unit.HOURS, "m0/X")
        self.assertEqual([20, 60, 90, None], column)

    async def test_example_9_days_over_both_clock_changes(self) -> None:
        def local_day(minute: int) -> Value:
            return (
                (datetime.datetime(2023, 1, 1, tzinfo=UTC) + datetime.timedelta(minutes=minute)).astimezone(BERLIN).day
            )

        await self.given(m0_Day=minutes_of("2023-01-01", "2024-01-01", 30, local_day))
        [column] = await self.data(day("2023-10-28"), day("2023-11-01"), 1, Unit.DAYS, "m0/Day")
        self.assertEqual([28, 29, 30, 31], column)
        [column] = await self.data(day("2023-03-25"), day("2023-03-29"), 1, Unit.DAYS, "m0/Day")
        self.assertEqual([25, 26, 27, 28], column)
        [column] = await self.data(day("2023-01-01"), day("2024-01-01"), 1, Unit.MONTHS, "m0/Day")
        self.assertEqual(12, len(column))
        self.assert_close([14.5], column[1:2])

    async def test_data_set_d1(self) -> None:
        base = at("2026-01-15", UTC)
        grid = {base: 100, base + MINUTE: 200, base + 6 * MINUTE: 400, base + 23 * HOUR + 30 * MINUTE: 50}
        level = {base + m * MINUTE: v for m, v in ((0, 1), (1, 2), (2, 2), (5, -1), (6, -2), (7, -2))}
        text: dict[int, Value] = {base: "1.9", base + MINUTE: "1.10", base + 2 * MINUTE: "abc"}
        counter = minutes_of("2026-01-13", "2026-01-17", 1, lambda minute: 1000 + minute)
        counter[at("2026-01-17", UTC)] = 1000 + 4 * 1440
        await self.given(m0_Grid=grid, m0_E=counter, m0_Level=level, m0_Version=text)
        begin = day("2026-01-15", UTC)
        end = begin + datetime.timedelta(minutes=30)
        columns = await self.data(begin, end, 10, Unit.MINUTES, "m0/Grid", "m0/Level", "m0/Version")
        self.assert_close([700 / 3, None, None], columns[0])
        self.assert_close([0, None, None], columns[1])  # A1
        self.assertEqual(["abc" if self.TEXTS else 1.5, None, None], columns[2])
        [column] = await self.data(begin, begin + datetime.timedelta(minutes=10), 5, Unit.MINUTES, "m0/Level")
        self.assert_close([5 / 3, -5 / 3], column)  # A2
        [column] = await self.data(day("2026-01-14"), day("2026-01-16"), 1, Unit.DAYS, "m0/Grid")
        self.assert_close([None, 700 / 3], column)  # A3
        [column] = await self.data(day("2026-01-15"), day("2026-01-16"), 4, Unit.HOURS, "m0/E")
        self.assert_close([3939.5 + 240 * i for i in range(6)], column)  # A4
        self.assertEqual(1440, await self.energy(day("2026-01-15"), day("2026-01-16")))  # A5
        [column] = await self.per_period(day("2026-01-13"), day("2026-01-17"), 1, Unit.DAYS, "m0/E")
        self.assertEqual([1379, 1440, 1440, 1440], column)  # A6
        self.assertEqual(5699, await self.energy(day("2026-01-13"), day("2026-01-17")))
        [column] = await self.per_period(day("2025-12-01"), day("2026-03-01"), 1, Unit.MONTHS, "m0/E")
        self.assertEqual([None, 5760, None], column)  # A7

    # -- holes (T059) ----------------------------------------------------------------------------

    async def test_t059_a_late_snapshot_makes_no_hole(self) -> None:
        base = at("2026-06-01")
        first, second = base + 5 * MINUTE - 100, base + 10 * MINUTE + 200
        await self.given(m0_Zero={first: 0, second: 7}, m0_P={first: 42, second: 42})
        begin = day("2026-06-01")
        columns = await self.data(begin, begin + datetime.timedelta(minutes=20), 5, Unit.MINUTES, "m0/P", "m0/Zero")
        self.assertEqual([[42, 42, 42, None], [0, 0, 7, None]], columns)

    async def test_t059_an_outage_stays_empty(self) -> None:
        base = at("2026-06-01")
        await self.given(m0_P={base: 42, base + 35 * MINUTE: 43})
        begin = day("2026-06-01")
        [column] = await self.data(begin, begin + datetime.timedelta(minutes=40), 5, Unit.MINUTES, "m0/P")
        self.assertEqual([42, *[None] * 6, 43], column)

    async def test_unchanged_values_fill_fine_periods(self) -> None:
        base = at("2026-06-01")
        await self.given(m0_P={base: 42, base + 5 * MINUTE: 10, base + 20 * MINUTE: 11})
        begin = day("2026-06-01")
        if self.FINE:
            [column] = await self.data(begin, begin + datetime.timedelta(minutes=8), 1, Unit.MINUTES, "m0/P")
            self.assertEqual([42] * 5 + [10, None, None], column)

    async def test_a_question_between_two_samples(self) -> None:
        base = at("2026-06-01")
        await self.given(m0_P={base: 42, base + 5 * MINUTE: 10}, m0_Q={base: 1})
        begin = day("2026-06-01") + datetime.timedelta(minutes=1)
        names = ["m0/P", "m0/Q"]
        if self.FINE:
            answer = await self.provider.query_historic_data(
                self.EDGE, begin, begin + datetime.timedelta(minutes=2), names, Resolution(1, Unit.MINUTES)
            )
            self.assertEqual({"m0/P": [42, 42]}, answer.data)

    # -- energy ----------------------------------------------------------------------------------

    async def test_examples_4_and_6_days(self) -> None:
        await self.given(m0_E=minutes_of("2023-05-29T22:00", "2023-06-04", 60, lambda minute: minute // 6))
        self.assertEqual(240, await self.energy(day("2023-06-01"), day("2023-06-02")))
        [column] = await self.per_period(day("2023-05-31"), day("2023-06-03"), 1, Unit.DAYS, "m0/E")
        self.assertEqual([240, 240, 240], column)

    async def test_examples_5_and_7_reset_and_gaps(self) -> None:
        base = at("2023-06-01")
        gaps = ((30, 100), (210, 160), (270, 165), (360, 200))
        await self.given(
            m0_E={base + h * HOUR: v for h, v in enumerate((100, 150, 5, 20, 60))},
            m0_Gap={base + m * MINUTE: v for m, v in gaps},
        )
        begin = day("2023-06-01")
        hours = datetime.timedelta(hours=1)
        [column] = await self.per_period(begin, begin + 6 * hours, 1, Unit.HOURS, "m0/E")
        self.assertEqual([None, 50, None, 15, 40, None], column)
        self.assertEqual(105, await self.energy(begin, begin + 6 * hours))
        [column] = await self.per_period(begin, begin + 8 * hours, 1, Unit.HOURS, "m0/Gap")
        self.assertEqual([None, None, None, 60, 5, None, 35, None], column)

    async def test_t061_counter_restarts(self) -> None:
        base = at("2026-06-01T10:00")
        times = (base, base + HOUR, base + HOUR + MINUTE, base + 2 * HOUR)
        await self.given(
            m0_E=dict(zip(times, (1000, 1040, 0, 25), strict=True)), m0_Ok=dict(zip(times, (1, 2, 3, 4), strict=True))
        )
        span = day("2026-06-01"), day("2026-06-02")
        answer = await self.provider.query_historic_energy(self.EDGE, *span, ["m0/E", "m0/Ok"])
        self.assertEqual({"m0/E": 65, "m0/Ok": 3}, answer)
        columns = await self.per_period(*span, 1, Unit.HOURS, "m0/E", "m0/Ok")
        self.assertEqual([[None, 40, 25, None], [None, 2, 1, None]], [column[10:14] for column in columns])

    async def test_example_8_and_t065_months_and_years(self) -> None:
        await self.given(m0_E=minutes_of("2024-12-31T22:00", "2029-03-01", 60, lambda minute: minute))
        [column] = await self.per_period(day("2026-01-01"), day("2027-01-01"), 1, Unit.MONTHS, "m0/E")
        local = [1440 * days for days in (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)]
        local[2] -= 60
        local[9] += 60
        self.assertEqual(local, column)
        self.assertEqual(sum(local), await self.energy(day("2026-01-01"), day("2027-01-01")))
        [column] = await self.per_period(day("2026-01-31"), day("2026-03-02"), 1, Unit.MONTHS, "m0/E")
        self.assertEqual([1440, 40320, 1440], column)
        [column] = await self.per_period(day("2025-01-01"), day("2029-01-01"), 1, Unit.YEARS, "m0/E")
        self.assertEqual([525600, 525600, 525600, 527040], column)
        [column] = await self.per_period(day("2026-01-01"), day("2026-01-22"), 7, Unit.DAYS, "m0/E")
        self.assertEqual([10080] * 3, column)
        [column] = await self.per_period(day("2026-01-01"), day("2026-01-22"), 1, Unit.WEEKS, "m0/E")
        self.assertEqual([10080] * 3, column)

    async def test_t063_clock_changes(self) -> None:
        await self.given(
            m0_E={
                **minutes_of("2026-02-28", "2026-04-02", 5, lambda minute: minute),
                **minutes_of("2026-09-29", "2026-11-02", 5, lambda minute: minute + 1_000_000),
            }
        )
        [column] = await self.per_period(day("2026-03-29"), day("2026-03-30"), 1, Unit.HOURS, "m0/E")
        self.assertEqual([60] * 23, column)
        [column] = await self.per_period(day("2026-10-25"), day("2026-10-26"), 1, Unit.HOURS, "m0/E")
        self.assertEqual([60] * 25, column)  # A8
        [column] = await self.per_period(day("2026-10-25"), day("2026-10-26"), 15, Unit.MINUTES, "m0/E")
        self.assertEqual([15] * 100, column)  # A9
        for month, end, changed, length in (("03", "2026-04-01", 28, 1380), ("10", "2026-11-01", 24, 1500)):
            [column] = await self.per_period(day(f"2026-{month}-01"), day(end), 1, Unit.DAYS, "m0/E")
            expected = [1440] * 31
            expected[changed] = length
            self.assertEqual(expected, column)
            self.assertEqual(sum(expected), await self.energy(day(f"2026-{month}-01"), day(end)))
        [column] = await self.data(day("2026-10-25"), day("2026-10-26"), 1, Unit.HOURS, "m0/E")
        self.assertEqual(25, len(column))

    async def test_a11_a_gap_belongs_to_the_period_after_it(self) -> None:
        await self.given(
            m0_E={
                **minutes_of("2026-03-27", "2026-03-31", 5, lambda minute: minute),
                **minutes_of("2026-10-23", "2026-10-28", 5, lambda minute: minute + 302_400),
            }
        )
        [column] = await self.per_period(day("2026-03-01"), day("2026-12-01"), 1, Unit.MONTHS, "m0/E")
        self.assertEqual([5755, *[None] * 6, 302_400 + 7195 - 5755, None], column)

    async def test_half_hour_zone(self) -> None:
        await self.given(m0_E=minutes_of("2026-05-30", "2026-06-05", 5, lambda minute: minute))
        [column] = await self.per_period(day("2026-06-01", KOLKATA), day("2026-06-04", KOLKATA), 1, Unit.DAYS, "m0/E")
        self.assertEqual([1440] * 3, column)
        [column] = await self.per_period(day("2026-06-01", KOLKATA), day("2026-06-02", KOLKATA), 1, Unit.HOURS, "m0/E")
        self.assertEqual([60] * 24, column)

    async def test_a12_a13_deltas(self) -> None:
        base = at("2026-06-01")
        await self.given(
            m0_A={base: 100, base + 2 * HOUR: 130, base + 3 * HOUR: 140},
            m0_B={base + h * HOUR: v for h, v in enumerate((5, 6, 7, 9))},
            m0_C={base + h * HOUR: v for h, v in enumerate((100, 20, 30))},
        )
        begin = day("2026-06-01")
        columns = await self.per_period(
            begin, begin + datetime.timedelta(hours=4), 1, Unit.HOURS, "m0/A", "m0/B", "m0/C"
        )
        self.assertEqual([[None, None, 30, 10], [None, 1, 1, 2], [None, None, 10, None]], columns)

    # -- first value before ----------------------------------------------------------------------

    async def test_first_value_before_is_strict(self) -> None:
        base = at("2026-06-01")
        await self.given(m0_E={base - HOUR: 5, base: 6}, m0_T={base - 1: "x", base: "y"}, m0_Late={base: 1})
        names = ["m0/E", "m0/Late", "m0/Nope", "m0/T"]
        answer = await self.provider.query_first_value_before(self.EDGE, day("2026-06-01"), names)
        self.assertEqual({"m0/E": 5, **({"m0/T": "x"} if self.TEXTS else {})}, answer)

    # -- writing ---------------------------------------------------------------------------------

    async def test_a14_the_same_notification_twice(self) -> None:
        base = at("2026-06-01")
        samples: dict[int, Value] = {base + s * 1000: s for s in range(100)}
        await self.given(m0_P=samples)
        await self.given(m0_P=samples)
        await self.given(DataKind.RESEND, m0_P={time: value for time, value in samples.items() if time < base + 50_000})
        begin = day("2026-06-01")
        [column] = await self.data(begin, begin + datetime.timedelta(minutes=5), 5, Unit.MINUTES, "m0/P")
        self.assertEqual([49.5], column)

    async def test_aggregated_data_only_for_channels_not_sent_as_timestamped(self) -> None:
        base = at("2026-06-01")
        await self.given(m0_P={base + 10 * MINUTE: 1})
        await self.given(DataKind.AGGREGATED, m0_P={base: 99}, m0_Only={base: 7})
        begin = day("2026-06-01")
        columns = await self.data(begin, begin + datetime.timedelta(minutes=15), 5, Unit.MINUTES, "m0/Only", "m0/P")
        self.assertEqual([[7, None, None], [None, None, 1]], columns)

    async def test_resent_data_fills_gaps(self) -> None:
        base = at("2026-06-01")
        await self.given(m0_P={base: 1, base + 15 * MINUTE: 4})
        await self.given(DataKind.RESEND, m0_P={base + 5 * MINUTE: 2.5, base + 10 * MINUTE: 3})
        begin = day("2026-06-01")
        [column] = await self.data(begin, begin + datetime.timedelta(minutes=20), 5, Unit.MINUTES, "m0/P")
        self.assertEqual([1, 2.5 if self.FRACTIONS else 2, 3, 4], column)

    async def test_t053_bad_values_cost_only_themselves(self) -> None:
        base = at("2026-06-01")
        bad: dict[str, Any] = {
            "m0/Nan": float("nan"),
            "m0/Inf": float("inf"),
            "m0/Huge": 10**30,
            "m0/Beyond": 10**400,
            "m0/Half": 0.5,
            "m0/List": [1],
            "m0/Null": None,
            "m0/Broken": "\ud800",
            "noaddress": 1,
            "m0/" + "x" * 300: 1,
            "m0/\udfff": 1,
            "m0/Ok": 1,
            "m0/Bool": True,
        }
        await self.begin()
        for _ in range(2):
            # Channels that are known, in rows as they usually are.
            self.provider.write(
                self.EDGE, DataNotification(DataKind.TIMESTAMPED, {base - DAY: {"m0/Beyond": 1, "m0/Half": 0.5}})
            )
        rows: dict[int, Row] = {
            base + 3: {"m0/Beyond": 10**400, "m0/Half": 0.5},
            base: {},
            base + 1: {"m0/X": None},
            base + 2: bad,
            5: {"m0/Ok": 5},
            NOW + DAY: {"m0/Ok": 5},
        }
        self.provider.write(self.EDGE, DataNotification(DataKind.TIMESTAMPED, rows))
        self.provider.write(self.EDGE, DataNotification(DataKind.RESEND, {}))
        await self.settle()
        begin = day("2026-06-01")
        answer = await self.provider.query_historic_data(
            self.EDGE, begin, begin + datetime.timedelta(minutes=5), sorted(bad), Resolution(5, Unit.MINUTES)
        )
        self.assertEqual({"m0/Ok": [1], "m0/Bool": [1], "m0/Half": [0.5]}, answer.data)

    async def test_edges_are_apart(self) -> None:
        await self.given(m0_P={at("2026-06-01"): 1})
        answer = await self.provider.query_historic_data(
            "edge70", day("2026-06-01"), day("2026-06-02"), ["m0/P"], Resolution(1, Unit.HOURS)
        )
        self.assertEqual({}, answer.data)

    async def test_text_is_no_energy_and_strange_addresses_are_unknown(self) -> None:
        await self.given(m0_T={at("2026-06-01"): "a", at("2026-06-01") + 1: "b"})
        span = day("2026-06-01"), day("2026-06-02")
        strange = ["m0/T", '_sum/X") AS "a/b', "m0/'; DROP TABLE series; --", "m0/😀"]
        self.assertEqual({}, await self.provider.query_historic_energy(self.EDGE, *span, strange))

    # -- refusals --------------------------------------------------------------------------------

    async def test_a19_too_many_values(self) -> None:
        await self.begin()
        span = day("2026-01-01"), day("2027-01-01")
        for query in (self.provider.query_historic_data, self.provider.query_historic_energy_per_period):
            for resolution in (Resolution(1, Unit.MILLIS), Resolution(1, Unit.NANOS), Resolution(1, Unit.SECONDS)):
                try:
                    await query(self.EDGE, *span, ["m0/P"], resolution)
                except OpenemsError as error:
                    self.assertEqual(1, error.code)
                else:
                    self.fail(f"{resolution} was not refused")

    async def test_nothing_asked_for(self) -> None:
        await self.given(m0_P={at("2026-06-01"): 1})
        begin = day("2026-06-01")
        answer = await self.provider.query_historic_data(self.EDGE, begin, begin, ["m0/P"], Resolution(1, Unit.HOURS))
        self.assertEqual(([], {}), (answer.timestamps, answer.data))
        self.assertEqual({}, await self.provider.query_historic_energy(self.EDGE, begin, begin, ["m0/P"]))
