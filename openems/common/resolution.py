"""Time zones, resolutions and the grid of periods of history requests (wire.md 4.11, timedata.md 4, core.md 4.3).

Pure arithmetic: instants are epoch milliseconds in UTC, local calendars are given as :class:`datetime.tzinfo`.
"""

from __future__ import annotations

import datetime
import enum
import re
from bisect import bisect_right
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from openems.common import errors
from openems.common.errors import OpenemsError, generic, json_text, short
from openems.common.jsonrpc import integer_of

UTC = datetime.UTC
SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
#: More periods than this are refused: a year of five-minute values and a little more.
MAX_PERIODS = 110_000


class Unit(enum.Enum):
    """The names of Java's ChronoUnit; the value is (length in ns, days, months) with exactly one of them set."""

    NANOS = (1, 0, 0)
    MICROS = (1_000, 0, 0)
    MILLIS = (1_000_000, 0, 0)
    SECONDS = (1_000_000 * SECOND, 0, 0)
    MINUTES = (1_000_000 * MINUTE, 0, 0)
    HOURS = (1_000_000 * HOUR, 0, 0)
    HALF_DAYS = (1_000_000 * 12 * HOUR, 0, 0)
    DAYS = (0, 1, 0)
    WEEKS = (0, 7, 0)
    MONTHS = (0, 0, 1)
    YEARS = (0, 0, 12)
    DECADES = (0, 0, 120)
    CENTURIES = (0, 0, 1_200)
    MILLENNIA = (0, 0, 12_000)
    #: Longer than any calendar: one period from the first to the last instant.
    ERAS = (0, 0, 12_000_000_000)
    FOREVER = (0, 0, 12_000_000_001)


class Resolution(msgspec.Struct, frozen=True):
    """``value`` is positive. ``str`` is Java's text form, ``5 Minutes``."""

    value: int
    unit: Unit

    def __str__(self) -> str:
        name = "HalfDays" if self.unit is Unit.HALF_DAYS else self.unit.name.capitalize()
        return f"{self.value} {name}"

    @classmethod
    def parse(cls, member: Any) -> Resolution:
        """A decoded ``resolution`` member: ``{"value":5,"unit":"Minutes"}``, or seconds as number or digit text.

        Code 1 for an unknown unit and for values below 1, which Java would count with for ever (core.md 11, 4).

        >>> Resolution.parse("300")
        Resolution(value=300, unit=<Unit.SECONDS: (1000000000, 0, 0)>)
        """
        if not isinstance(member, dict):
            seconds = integer_of(member, 64)
            if seconds is None:
                raise OpenemsError(errors.JSON_NO_INTEGER_MEMBER, "value", short(json_text(member), 100))
            return cls(_positive(seconds), Unit.SECONDS)
        if "value" not in member:
            raise OpenemsError(errors.JSON_HAS_NO_MEMBER, "value", short(json_text(member), 100))
        value = integer_of(member["value"], 64)
        if value is None:
            raise OpenemsError(errors.JSON_NO_INTEGER_MEMBER, "value", short(json_text(member), 100))
        name = member.get("unit")
        if not isinstance(name, str):
            raise OpenemsError(errors.JSON_NO_STRING_MEMBER, "unit", short(json_text(member), 100))
        unit = Unit.__members__.get(name.upper())
        if unit is None:
            raise generic(f"No enum constant java.time.temporal.ChronoUnit.{short(name.upper(), 100)}")
        return cls(_positive(value), unit)


def _positive(value: int) -> int:
    if value < 1:
        raise generic(f"Resolution value [{value}] is not positive")
    return value


_AUTOMATIC = (
    (1, Resolution(5, Unit.MINUTES)),
    (2, Resolution(10, Unit.MINUTES)),
    (3, Resolution(15, Unit.MINUTES)),
    (4, Resolution(20, Unit.MINUTES)),
    (6, Resolution(30, Unit.MINUTES)),
    (12, Resolution(1, Unit.HOURS)),
    (24, Resolution(2, Unit.HOURS)),
    (48, Resolution(4, Unit.HOURS)),
    (96, Resolution(8, Unit.HOURS)),
    (144, Resolution(12, Unit.HOURS)),
)


def automatic(from_date: datetime.datetime, to_date: datetime.datetime) -> Resolution:
    """For requests that name none (core.md 3.3), by the total number of local days, so that a month is not taken for
    no day at all (core.md 11, 3)."""
    days = (to_date.date() - from_date.date()).days
    for limit, resolution in _AUTOMATIC:
        if days <= limit:
            return resolution
    return Resolution(1, Unit.DAYS)


_ZONE_ID = re.compile(r"[A-Z][A-Za-z0-9+_-]*(/[A-Za-z0-9+_-]+){0,2}\Z")
_CUSTOM_ZONE = re.compile(r"GMT([+-])(?:([0-9]{1,2})|([0-9]{1,2}):?([0-9]{2}))\Z")
#: Java's three-letter ids, where they differ from the names of the tz database.
_SHORT_IDS = {
    "ACT": "Australia/Darwin",
    "AET": "Australia/Sydney",
    "AGT": "America/Argentina/Buenos_Aires",
    "ART": "Africa/Cairo",
    "AST": "America/Anchorage",
    "BET": "America/Sao_Paulo",
    "BST": "Asia/Dhaka",
    "CAT": "Africa/Harare",
    "CNT": "America/St_Johns",
    "CST": "America/Chicago",
    "CTT": "Asia/Shanghai",
    "EAT": "Africa/Addis_Ababa",
    "ECT": "Europe/Paris",
    "IET": "America/Indiana/Indianapolis",
    "IST": "Asia/Kolkata",
    "JST": "Asia/Tokyo",
    "MIT": "Pacific/Apia",
    "NET": "Asia/Yerevan",
    "NST": "Pacific/Auckland",
    "PLT": "Asia/Karachi",
    "PNT": "America/Phoenix",
    "PRT": "America/Puerto_Rico",
    "PST": "America/Los_Angeles",
    "SST": "Pacific/Guadalcanal",
    "VST": "Asia/Ho_Chi_Minh",
}
_SHORT_OFFSETS = {"EST": -5, "MST": -7, "HST": -10}
#: Names of files in a zone directory that are no zone ids.
_NO_ZONES = {"Factory"}
_MAX_OFFSET = 18 * 3600


def zone(member: Any) -> datetime.tzinfo:
    """The decoded ``timezone`` member of a history request (wire.md 4.11).

    Text is a Java id; an unknown one means GMT. A number is seconds with inverted sign; beyond 18 hours: code 1.

    >>> zone(-7200)
    datetime.timezone(datetime.timedelta(seconds=7200))
    """
    if isinstance(member, str):
        return _zone_of_id(member)
    offset = integer_of(member, 64)
    if offset is None:
        raise OpenemsError(errors.JSON_NO_PRIMITIVE_MEMBER, "timezone", short(json_text(member), 100))
    if abs(offset) > _MAX_OFFSET:
        raise generic("Zone offset not in valid range: -18:00 to +18:00")
    return datetime.timezone(datetime.timedelta(seconds=-offset))


def _zone_of_id(text: str) -> datetime.tzinfo:
    if len(text) > 64:
        return UTC
    if text in _SHORT_OFFSETS:
        return datetime.timezone(datetime.timedelta(hours=_SHORT_OFFSETS[text]))
    custom = _CUSTOM_ZONE.match(text)
    if custom:
        hours, minutes = int(custom[2] or custom[3]), int(custom[4] or 0)
        if hours > 23 or minutes > 59:
            return UTC
        offset = datetime.timedelta(hours=hours, minutes=minutes)
        return datetime.timezone(-offset if custom[1] == "-" else offset)
    text = _SHORT_IDS.get(text, text)
    if text in _NO_ZONES or not _ZONE_ID.match(text):
        return UTC
    try:
        return ZoneInfo(text)
    except (OSError, ValueError, LookupError):
        return UTC


def milliseconds(date: datetime.datetime) -> int:
    """Epoch milliseconds of an aware date-time, rounded down."""
    return (date - _EPOCH) // _MILLISECOND


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)


def start_of_day(date: datetime.date, zone: datetime.tzinfo) -> int:
    """Epoch milliseconds of the first instant of that local day, also where 00:00 does not exist or exists twice."""
    local = datetime.datetime(date.year, date.month, date.day, tzinfo=zone)
    first = milliseconds(local.astimezone(UTC))
    if _local_date(first, zone, local.time()):
        return first
    # 00:00 falls in a gap: the two readings of it lie on either side of the change, which is the instant looked for.
    before, after = sorted((first, milliseconds(local.replace(fold=1).astimezone(UTC))))
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.datetime.fromtimestamp(middle / 1000, zone).date() < date:
            before = middle
        else:
            after = middle
    return after


def _local_date(instant: int, zone: datetime.tzinfo, time: datetime.time) -> bool:
    return datetime.datetime.fromtimestamp(instant / 1000, zone).time() == time


def midnight(date: datetime.date, zone: datetime.tzinfo) -> datetime.datetime:
    """The first instant of that local day as aware date-time: what ``fromDate`` and ``toDate`` mean (wire.md 4.11)."""
    return datetime.datetime.fromtimestamp(start_of_day(date, zone) / 1000, zone)


class Grid(msgspec.Struct, frozen=True):
    """The periods of an answer: period i is ``[edges[i], edges[i + 1])``; the last one is cut at ``end``.

    ``step`` is the common length in ms of all periods but the last where they have one, else None.
    """

    starts: list[int]
    end: int
    step: int | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def start(self) -> int:
        return self.starts[0] if self.starts else self.end

    @property
    def edges(self) -> list[int]:
        return [*self.starts, self.end]

    def index(self, time: int) -> int:
        """Which period ``time`` falls in; only for ``start <= time < end``."""
        if self.step is not None:
            return (time - self.starts[0]) // self.step
        return bisect_right(self.starts, time) - 1

    def aligned(self, length: int) -> bool:
        """Whether every edge is a multiple of ``length`` ms since the epoch."""
        if self.step is not None:
            return not (self.start % length or self.step % length or self.end % length)
        return not any(edge % length for edge in self.edges)


def whole(from_date: datetime.datetime, to_date: datetime.datetime) -> Grid:
    """All of it as one period; none where it is empty."""
    start, end = milliseconds(from_date), milliseconds(to_date)
    return Grid([start] if start < end else [], end)


def periods(
    from_date: datetime.datetime, to_date: datetime.datetime, resolution: Resolution, limit: int = MAX_PERIODS
) -> Grid:
    """The grid of a request, the same for all providers; the local calendar is that of ``from_date``.

    Hours and shorter units are elapsed time, so a day with a clock change has 23 or 25 of them. After the first,
    periods of days and weeks start at local midnight, of months on the first of a month, of years on a first of
    January (core.md 4.3); the first one may be partial. No period is empty. Raises code 1 for more than ``limit``.

    >>> day = datetime.datetime(2026, 3, 29, tzinfo=ZoneInfo("Europe/Berlin"))
    >>> len(periods(day, day + datetime.timedelta(days=1), Resolution(1, Unit.HOURS)))
    23
    """
    start, end = milliseconds(from_date), milliseconds(to_date)
    if start >= end:
        return Grid([], start)
    nanos, days, months = resolution.unit.value
    if nanos:
        step = resolution.value * nanos // 1_000_000
        if step < 1 or (end - start - 1) // step >= limit:
            raise _too_many(resolution, limit)
        return Grid(list(range(start, end, step)), end, step)
    zone = from_date.tzinfo or UTC
    step_date = _by_days(days * resolution.value) if days else _by_months(months * resolution.value, months >= 12)
    starts = [start]
    date = from_date.date()
    while True:
        try:
            date = step_date(date)
            following = start_of_day(date, zone)
        except (ValueError, OverflowError):
            break  # beyond the calendar, and so beyond the end
        if following >= end:
            break
        if following > starts[-1]:
            if len(starts) >= limit:
                raise _too_many(resolution, limit)
            starts.append(following)
    return Grid(starts, end)


def _too_many(resolution: Resolution, limit: int) -> OpenemsError:
    return generic(f"Resolution [{resolution}] gives more than {limit} values for this period")


def _by_days(days: int) -> Callable[[datetime.date], datetime.date]:
    return lambda date: date + datetime.timedelta(days=days)


def _by_months(months: int, years: bool) -> Callable[[datetime.date], datetime.date]:
    def step(date: datetime.date) -> datetime.date:
        year, month = divmod(date.year * 12 + date.month - 1 + months, 12)
        return datetime.date(year, 1 if years else month + 1, 1)

    return step
