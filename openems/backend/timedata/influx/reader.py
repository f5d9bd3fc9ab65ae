"""Answers to history requests out of statements, the same whatever the language.

- Means, and what is shown in a period without samples, as in the embedded history (sqlite/reader.py): an unchanged
  value is repeated by an edge after about 300 s, so neighbouring samples up to :data:`CARRY` apart leave no hole.
- Energy as in openems/common/energy.py. The engine sums the rises inside stretches of equal periods; what lies between
  the last sample of one stretch and the first of the next is added here, the last value before everything included.
- A field that is no number in the database (an old boolean, a text) is found out when a statement fails for it, and
  asked for in another way (timedata.md 14, 10).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from openems.backend.timedata.influx.lineprotocol import FieldType
from openems.backend.timedata.influx.statements import Answer, Kind, Run, Statement, StatementError, runs
from openems.common import energy
from openems.common.data import Value
from openems.common.energy import Number
from openems.common.errors import generic
from openems.common.resolution import Grid

#: One snapshot period of an edge, 301 s, and jitter.
CARRY = 310_000
#: periods times channels of one answer
MAX_CELLS = 3_000_000
#: More holes than this are looked for in one go instead of one by one.
FEW_HOLES = 40
_NUMBERS = {FieldType.FLOAT, FieldType.INTEGER, FieldType.UNSIGNED}

Ask = Callable[[Sequence[Statement]], Awaitable[Sequence[Answer]]]
Types = Callable[[Sequence[str]], Awaitable[Mapping[str, FieldType]]]


class Hole(msgspec.Struct, frozen=True):
    """Periods ``first`` to before ``after`` without samples."""

    channel: str
    first: int
    after: int


def check_size(grid: Grid, names: Sequence[str]) -> None:
    if len(grid) * len(names) > MAX_CELLS:
        raise generic(f"More than {MAX_CELLS} values asked for: use a coarser resolution or fewer channels")


async def means(ask: Ask, types: Types, grid: Grid, names: Sequence[str]) -> dict[str, list[Value]]:
    """One value a period; channels without any are left out."""
    check_size(grid, names)
    if not len(grid) or not names:
        return {}
    stretches = list(runs(grid))
    columns: dict[str, list[Value]] = {}

    def windows(kind: Kind, fields: Sequence[str]) -> list[Statement]:
        return [Statement(kind, tuple(fields), run.begin, run.end, run.step, run.begin) for run in stretches]

    try:
        found = await ask(windows(Kind.MEANS, names))
    except StatementError as error:
        if not error.types:
            raise
        known = await types(names)
        groups = [
            [name for name in names if known.get(name, FieldType.FLOAT) in kinds]
            for kinds in (_NUMBERS, {FieldType.BOOLEAN}, {FieldType.STRING})
        ]
        numbers, booleans, texts = groups
        found = await ask(windows(Kind.MEANS, numbers)) if numbers else []
        if texts:
            _fill(columns, grid, stretches, await ask(windows(Kind.LASTS, texts)))
        if booleans:
            _fill(columns, grid, stretches, await _shares(ask, windows, booleans))
        names = numbers
    _fill(columns, grid, stretches, found)
    if grid.step is not None and grid.step <= CARRY:
        short = grid.end - grid.start <= CARRY
        if short:
            # All of it may lie between two neighbouring samples.
            columns.update({name: [None] * len(grid) for name in names if name not in columns})
        await _carry(ask, grid, {name: columns[name] for name in names if name in columns})
        if short:
            columns = {name: column for name, column in columns.items() if any(value is not None for value in column)}
    return columns


async def _shares(
    ask: Ask, windows: Callable[[Kind, Sequence[str]], list[Statement]], fields: Sequence[str]
) -> list[Answer]:
    """The mean of 1 for true and 0 for false."""
    counts = await ask(windows(Kind.COUNTS, fields))
    trues = await ask(windows(Kind.TRUES, fields))
    result: list[Answer] = []
    for count, true in zip(counts, trues, strict=True):
        answer: Answer = {}
        for field, pairs in count.items():
            positive = dict(true.get(field, ()))
            answer[field] = [(time, positive.get(time, 0) / total) for time, total in pairs if total]  # type: ignore
        result.append(answer)
    return result


def _fill(columns: dict[str, list[Value]], grid: Grid, stretches: Sequence[Run], found: Sequence[Answer]) -> None:
    count = len(grid)
    for run, answer in zip(stretches, found, strict=False):
        first, begin, step = run.first, run.begin, run.step
        for field, pairs in answer.items():
            column = columns.get(field)
            if column is None:
                if len(pairs) == count and run.count == count:
                    columns[field] = [value for _, value in pairs]
                    continue
                column = columns[field] = [None] * count
            for time, value in pairs:
                column[first + (time - begin) // step] = value


# -- holes ---------------------------------------------------------------------------------------


def holes(grid: Grid, columns: Mapping[str, Sequence[Value]]) -> list[Hole]:
    """Those that an unchanged value may fill."""
    edges = grid.edges
    found = []
    for channel, column in columns.items():
        if None not in column:
            continue
        index, count = 0, len(column)
        while index < count:
            if column[index] is not None:
                index += 1
                continue
            first = index
            while index < count and column[index] is None:
                index += 1
            if edges[index] - edges[first] <= CARRY:
                found.append(Hole(channel, first, index))
    return found


async def _carry(ask: Ask, grid: Grid, columns: Mapping[str, list[Value]]) -> None:
    found = holes(grid, columns)
    if not found:
        return
    edges = grid.edges
    if len(found) > FEW_HOLES:
        await _carry_many(ask, grid, columns, found)
        return
    statements = []
    for hole in found:
        begin, end = edges[hole.first], edges[hole.after]
        statements.append(Statement(Kind.LAST, (hole.channel,), begin - CARRY, begin))
        statements.append(Statement(Kind.FIRST, (hole.channel,), end, end + CARRY))
    answers = await ask(statements)
    for number, hole in enumerate(found):
        before = answers[2 * number].get(hole.channel)
        after = answers[2 * number + 1].get(hole.channel)
        if before and after and after[0][0] - before[-1][0] <= CARRY:
            columns[hole.channel][hole.first : hole.after] = [before[-1][1]] * (hole.after - hole.first)


async def _carry_many(ask: Ask, grid: Grid, columns: Mapping[str, list[Value]], found: Sequence[Hole]) -> None:
    """All gaps between neighbouring samples that are longer than a period, and the last value of each period."""
    step = grid.step or CARRY
    start = grid.start
    before = -(-CARRY // step) * step
    channels = tuple(dict.fromkeys(hole.channel for hole in found))
    gaps, lasts = await ask(
        [
            Statement(Kind.GAPS, channels, start - CARRY, grid.end + CARRY, step),
            Statement(Kind.LASTS, channels, start - before, grid.end, step, start),
        ]
    )
    count = len(grid)
    for channel in channels:
        column = columns[channel]
        # A window that was cut at the begin of what the provider is for may be labelled with that.
        last = {(time - start) // step: value for time, value in lasts.get(channel, ())}
        for time, length in gaps.get(channel, ()):
            if not isinstance(length, int) or length > CARRY:
                continue
            begin = (time - length - start) // step
            end = min((time - start) // step, count) if time < grid.end else count
            value = last.get(begin)
            if value is not None:
                for index in range(max(begin + 1, 0), end):
                    if column[index] is None:
                        column[index] = value


# -- energy --------------------------------------------------------------------------------------


async def rises(ask: Ask, types: Types, grid: Grid, names: Sequence[str]) -> dict[str, list[Number | None]]:
    """Energy of each period; channels without any are left out."""
    check_size(grid, names)
    if not len(grid) or not names:
        return {}
    try:
        return await _rises(ask, grid, names)
    except StatementError as error:
        if not error.types:
            raise
    known = await types(names)
    numbers = [name for name in names if known.get(name, FieldType.FLOAT) in _NUMBERS]
    return await _rises(ask, grid, numbers) if numbers else {}


async def _rises(ask: Ask, grid: Grid, names: Sequence[str]) -> dict[str, list[Number | None]]:
    fields = tuple(names)
    stretches = list(runs(grid))
    statements = [Statement(Kind.LAST, fields, None, grid.start, together=True)]
    for run in stretches:
        statements.append(Statement(Kind.RISES, fields, run.begin, run.end, run.step, run.begin))
        # Which period the first one is in must be known where there are several.
        statements.append(Statement(Kind.FIRST, fields, run.begin, run.end, together=run.count == 1))
        if run is not stretches[-1]:
            statements.append(Statement(Kind.LAST, fields, run.begin, run.end, together=True))
    answers = iter(await ask(statements))
    last = {field: pairs[-1][1] for field, pairs in next(answers).items()}
    columns: dict[str, list[Number | None]] = {}
    for run in stretches:
        sums, firsts = next(answers), next(answers)
        lasts = next(answers) if run is not stretches[-1] else {}
        for field in fields:
            first = firsts.get(field)
            if not first:
                continue
            column = columns.get(field)
            if column is None:
                column = columns[field] = [None] * len(grid)
            for time, value in sums.get(field, ()):
                column[run.first + (time - run.begin) // run.step] = value  # type: ignore[assignment]
            time, value = first[0]
            index = run.first if run.count == 1 else run.first + (time - run.begin) // run.step
            base = last.get(field)
            if isinstance(base, int | float) and isinstance(value, int | float):
                column[index] = energy.add(energy.difference(base, value), column[index])
            if field in lasts:
                last[field] = lasts[field][-1][1]
    return {field: column for field, column in columns.items() if any(value is not None for value in column)}


async def newest_before(ask: Ask, time: int, names: Sequence[str]) -> dict[str, Value]:
    """The newest value strictly before ``time``; channels without one are left out. Booleans are 1 and 0."""
    if not names:
        return {}
    [answer] = await ask([Statement(Kind.LAST, tuple(names), None, time, together=True)])
    newest = {name: answer[name][-1][1] for name in names if name in answer}
    return {name: int(value) if isinstance(value, bool) else value for name, value in newest.items()}
