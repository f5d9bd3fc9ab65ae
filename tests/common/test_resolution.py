from __future__ import annotations

import datetime
import itertools
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.common.errors import OpenemsError
from openems.common.resolution import (
    DAY,
    HOUR,
    Resolution,
    Unit,
    automatic,
    midnight,
    milliseconds,
    periods,
    start_of_day,
    whole,
    zone,
)

UTC = datetime.UTC
BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [
    ZoneInfo(name)
    for name in (
        "Europe/Berlin",
        "Asia/Kolkata",
        "Australia/Lord_Howe",  # changes by half an hour
        "America/St_Johns",
        "America/Sao_Paulo",  # changed at midnight
        "Pacific/Apia",  # left out a day
        "UTC",
    )
]


def day(text: str, tz: datetime.tzinfo = BERLIN) -> datetime.datetime:
    return midnight(datetime.date.fromisoformat(text), tz)


def local(starts: list[int], tz: datetime.tzinfo = BERLIN) -> list[str]:
    return [datetime.datetime.fromtimestamp(start / 1000, tz).isoformat() for start in starts]


class ParseTests(SynchronousTestCase):
    def test_forms_wire_4_11(self) -> None:
        for member, expected in (
            ({"value": 5, "unit": "MINUTES"}, Resolution(5, Unit.MINUTES)),
            ({"value": 1, "unit": "Days"}, Resolution(1, Unit.DAYS)),
            ({"value": "2", "unit": "half_days"}, Resolution(2, Unit.HALF_DAYS)),
            (300, Resolution(300, Unit.SECONDS)),
            ("300", Resolution(300, Unit.SECONDS)),
        ):
            self.assertEqual(expected, Resolution.parse(member))

    def test_refusals(self) -> None:
        members: tuple[tuple[Any, int, str], ...] = (
            ({"value": 0, "unit": "DAYS"}, 1, "Resolution value [0] is not positive"),
            ({"value": -5, "unit": "Minutes"}, 1, "Resolution value [-5] is not positive"),
            (0, 1, "Resolution value [0] is not positive"),
            ({"value": 1, "unit": "Fortnights"}, 1, "No enum constant java.time.temporal.ChronoUnit.FORTNIGHTS"),
            ({"unit": "DAYS"}, 5000, ""),
            ({"value": True, "unit": "DAYS"}, 5001, ""),
            ({"value": 1}, 5010, ""),
            (None, 5001, ""),
            ([], 5001, ""),
        )
        for member, code, text in members:
            error = self.assertRaises(OpenemsError, Resolution.parse, member)
            self.assertEqual(code, error.code, member)
            if text:
                self.assertEqual(text, error.message)

    def test_text(self) -> None:
        self.assertEqual("5 Minutes", str(Resolution(5, Unit.MINUTES)))
        self.assertEqual("1 HalfDays", str(Resolution(1, Unit.HALF_DAYS)))

    def test_automatic_timedata_15_by_total_days(self) -> None:
        for begin, end, text in (
            ("2019-07-01", "2019-07-31", "4 Hours"),
            ("2019-07-01", "2019-08-01", "4 Hours"),
            ("2023-01-01", "2023-01-02", "5 Minutes"),
            ("2023-01-01", "2023-01-03", "10 Minutes"),
            ("2023-01-01", "2023-01-04", "15 Minutes"),
            ("2023-01-01", "2023-01-05", "20 Minutes"),
            ("2023-01-01", "2023-01-07", "30 Minutes"),
            ("2023-01-01", "2023-01-08", "1 Hours"),
            ("2023-01-01", "2023-01-14", "2 Hours"),
            ("2023-01-01", "2023-01-26", "4 Hours"),
            ("2023-01-01", "2023-02-19", "8 Hours"),
            ("2023-01-01", "2023-05-25", "12 Hours"),
            ("2023-01-01", "2023-05-26", "1 Days"),
            ("2023-01-01", "2024-01-01", "1 Days"),
        ):
            self.assertEqual(text, str(automatic(day(begin), day(end))), (begin, end))


class ZoneTests(SynchronousTestCase):
    def test_unknown_ids_are_gmt(self) -> None:
        for text in (
            "Foo/Bar",
            "+02:00",
            "UTC+2",
            "europe/berlin",
            "",
            "7200",
            "../../etc/passwd",
            "Europe",
            "x" * 9999,
        ):
            self.assertEqual(UTC, zone(text), text)
        self.assertEqual(UTC, zone("GMT+24"))
        self.assertEqual(UTC, zone("localtime"))
        self.assertEqual(UTC, zone("Europe/\ud800"))

    def test_ids(self) -> None:
        self.assertEqual(BERLIN, zone("Europe/Berlin"))
        self.assertEqual(ZoneInfo("America/Los_Angeles"), zone("PST"))
        self.assertEqual(ZoneInfo("CET"), zone("CET"))
        for text, seconds in (
            ("EST", -5 * 3600),
            ("GMT+2", 7200),
            ("GMT+02:00", 7200),
            ("GMT-0330", -12600),
            (-7200, 7200),
            (0, 0),
            (19800, -19800),
        ):
            self.assertEqual(datetime.timedelta(seconds=seconds), zone(text).utcoffset(None), text)

    def test_numbers_out_of_range(self) -> None:
        self.assertEqual(datetime.timedelta(hours=-18), zone(64800).utcoffset(None))
        error = self.assertRaises(OpenemsError, zone, 64801)
        self.assertEqual("Zone offset not in valid range: -18:00 to +18:00", error.message)
        for member in (None, True, [], {}):
            self.assertEqual(5005, self.assertRaises(OpenemsError, zone, member).code)


class PeriodsTests(SynchronousTestCase):
    def test_clock_changes_have_23_and_25_hours(self) -> None:
        hours = Resolution(1, Unit.HOURS)
        self.assertEqual(25, len(periods(day("2023-10-29"), day("2023-10-30"), hours)))
        self.assertEqual(23, len(periods(day("2023-03-26"), day("2023-03-27"), hours)))

    def test_days_and_weeks_start_at_local_midnight(self) -> None:
        grid = periods(day("2026-03-28"), day("2026-03-31"), Resolution(1, Unit.DAYS))
        self.assertEqual(
            ["2026-03-28T00:00:00+01:00", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"], local(grid.starts)
        )
        grid = periods(day("2026-03-26"), day("2026-04-04"), Resolution(1, Unit.WEEKS))
        self.assertEqual(["2026-03-26T00:00:00+01:00", "2026-04-02T00:00:00+02:00"], local(grid.starts))
        noon = datetime.datetime(2026, 3, 28, 12, tzinfo=BERLIN)
        grid = periods(noon, day("2026-03-31"), Resolution(1, Unit.DAYS))
        self.assertEqual(milliseconds(noon), grid.starts[0])
        self.assertEqual("2026-03-29T00:00:00+01:00", local(grid.starts)[1])

    def test_months_t065(self) -> None:
        grid = periods(day("2026-01-31"), day("2026-03-02"), Resolution(1, Unit.MONTHS))
        self.assertEqual(
            ["2026-01-31T00:00:00+01:00", "2026-02-01T00:00:00+01:00", "2026-03-01T00:00:00+01:00"], local(grid.starts)
        )
        self.assertEqual(12, len(periods(day("2026-01-01"), day("2027-01-01"), Resolution(1, Unit.MONTHS))))
        grid = periods(day("2025-06-15"), day("2028-01-01"), Resolution(1, Unit.YEARS))
        self.assertEqual(["2025", "2026", "2027"], [text[:4] for text in local(grid.starts)])
        self.assertEqual("2026-01-01T00:00:00+01:00", local(grid.starts)[1])

    def test_longer_than_the_calendar(self) -> None:
        for unit in (Unit.ERAS, Unit.FOREVER, Unit.MILLENNIA, Unit.CENTURIES):
            self.assertEqual(1, len(periods(day("2026-01-01"), day("2026-02-01"), Resolution(10**15, unit))))
        self.assertEqual(1, len(periods(day("2026-01-01"), day("2026-02-01"), Resolution(10**17, Unit.DAYS))))

    def test_too_many(self) -> None:
        year = day("2026-01-01"), day("2027-01-01")
        self.assertEqual(105_120, len(periods(*year, Resolution(5, Unit.MINUTES))))
        for resolution in (Resolution(1, Unit.MILLIS), Resolution(1, Unit.NANOS), Resolution(1, Unit.SECONDS)):
            self.assertEqual(1, self.assertRaises(OpenemsError, periods, *year, resolution).code)
        error = self.assertRaises(OpenemsError, periods, *year, Resolution(1, Unit.DAYS), 100)
        self.assertEqual("Resolution [1 Days] gives more than 100 values for this period", error.message)

    def test_nothing(self) -> None:
        self.assertEqual([], periods(day("2026-01-02"), day("2026-01-01"), Resolution(1, Unit.DAYS)).starts)

    def test_all_of_it_as_one(self) -> None:
        start = datetime.datetime(2026, 3, 29, tzinfo=BERLIN)
        one = whole(start, start + datetime.timedelta(days=1))
        self.assertEqual((one.starts, one.end), ([milliseconds(start)], milliseconds(start) + 23 * HOUR))
        self.assertEqual((len(whole(start, start)), whole(start, start).start), (0, milliseconds(start)))

    def test_midnight_that_does_not_exist(self) -> None:
        tz = ZoneInfo("America/Sao_Paulo")
        self.assertEqual("2018-11-04T01:00:00-02:00", day("2018-11-04", tz).isoformat())
        apia = ZoneInfo("Pacific/Apia")
        grid = periods(day("2011-12-29", apia), day("2012-01-01", apia), Resolution(1, Unit.DAYS))
        self.assertEqual(["2011-12-29", "2011-12-31"], [text[:10] for text in local(grid.starts, apia)])

    @settings(max_examples=150, deadline=None)
    @given(
        st.sampled_from(ZONES),
        st.dates(datetime.date(2005, 1, 1), datetime.date(2037, 1, 1)),
        st.integers(1, 400),
        st.integers(1, 40),
        st.sampled_from([unit for unit in Unit if unit.value[0] == 0 or unit is Unit.HOURS]),
    )
    def test_periods_cover_the_span_without_overlap(
        self, tz: ZoneInfo, first: datetime.date, days: int, value: int, unit: Unit
    ) -> None:
        begin, end = midnight(first, tz), midnight(first + datetime.timedelta(days=days), tz)
        grid = periods(begin, end, Resolution(value, unit))
        edges = grid.edges
        self.assertEqual((milliseconds(begin), milliseconds(end)), (edges[0], edges[-1]))
        self.assertTrue(all(one < other for one, other in itertools.pairwise(edges)))
        for index, start in enumerate(grid.starts):
            self.assertEqual(index, grid.index(start))
            self.assertEqual(index, grid.index(edges[index + 1] - 1))
            if unit is not Unit.HOURS:
                date = datetime.datetime.fromtimestamp(start / 1000, tz).date()
                self.assertEqual(start, start_of_day(date, tz))
        if unit is Unit.DAYS and value == 1:
            self.assertTrue(all(0 < b - a <= DAY + 25 * HOUR for a, b in itertools.pairwise(edges)))
