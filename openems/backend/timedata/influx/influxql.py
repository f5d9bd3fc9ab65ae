"""InfluxQL: texts of statements and their JSON answers. All that comes from outside is quoted (timedata.md 14, 11)."""
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from openems.backend.timedata.influx.statements import Answer, Kind, Statement, StatementError, Table
from openems.common.data import Value

_FUNCTION = {
    Kind.MEANS: "MEAN",
    Kind.LASTS: "LAST",
    Kind.FIRST: "FIRST",
    Kind.LAST: "LAST",
    Kind.COUNTS: "COUNT",
}
#: What the engine says where a field is no number.
_TYPE_ERRORS = ("unsupported", "not executed")


def identifier(text: str) -> str:
    """
    >>> identifier('a" FROM b')
    '"a\\\\" FROM b"'
    """
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def source(table: Table) -> str:
    name = identifier(table.measurement)
    return f"{identifier(table.policy)}.{name}" if table.policy else name


def _condition(table: Table, edge: str, begin: int | None, end: int) -> str:
    lower = "" if begin is None else f" AND time >= {begin}ms"
    return f"{identifier(table.tag)} = {literal(edge)}{lower} AND time < {end}ms"


def texts(table: Table, edge: str, statement: Statement) -> list[str]:
    """The statement in this language: one text or, for what cannot or should not be asked together, one a field.
    ``edge`` is the tag's value."""
    kind, begin, end, step = statement.kind, statement.begin, statement.end, statement.step
    where = _condition(table, edge, begin, end)
    origin = source(table)
    if _single(statement):
        # With several functions in a statement the time of the sample would be lost.
        return [
            f'SELECT {_FUNCTION[kind]}({identifier(f)}) AS "0" FROM {origin} WHERE {where}' for f in statement.fields
        ]
    if kind is Kind.GAPS:
        return [
            f'SELECT "0" FROM (SELECT ELAPSED({identifier(f)}, 1ms) AS "0" FROM {origin} WHERE {where})'
            f' WHERE "0" > {step}'
            for f in statement.fields
        ]
    if kind is Kind.TRUES:
        return [
            f'SELECT COUNT({identifier(f)}) AS "0" FROM {origin} WHERE {where} AND {identifier(f)} = true'
            f" {_windows(statement)}"
            for f in statement.fields
        ]
    if kind is Kind.RISES:
        lower = "" if begin is None else f"time >= {begin}ms AND "
        # Several fields in one subquery take the engine ten times as long as one after the other.
        return [
            f'SELECT SUM("0") AS "0" FROM'
            f' (SELECT NON_NEGATIVE_DIFFERENCE({identifier(f)}) AS "0" FROM {origin} WHERE {where})'
            f" WHERE {lower}time < {end}ms {_windows(statement)}"
            for f in statement.fields
        ]
    function = _FUNCTION[kind]
    columns = ", ".join(f'{function}({identifier(field)}) AS "{n}"' for n, field in enumerate(statement.fields))
    windows = f" {_windows(statement)}" if step else ""
    return [f"SELECT {columns} FROM {origin} WHERE {where}{windows}"]


_ONE_EACH = (Kind.GAPS, Kind.TRUES, Kind.RISES)


def _single(statement: Statement) -> bool:
    return statement.kind in (Kind.FIRST, Kind.LAST) and not statement.together


def _windows(statement: Statement) -> str:
    return f"GROUP BY time({statement.step}ms, {statement.offset}ms) fill(none)"


class _Series(msgspec.Struct):
    columns: list[str] = []
    values: list[list[Value]] = []


class _Result(msgspec.Struct):
    series: list[_Series] = []
    error: str = ""


class _Reply(msgspec.Struct):
    results: list[_Result] = []
    error: str = ""


_decode = msgspec.json.Decoder(_Reply).decode


def results(body: bytes, count: int) -> list[_Series | None]:
    """The series of each of ``count`` texts, None for one without data.

    Raises :class:`StatementError`: an error comes with status 200 and must not be taken for no data (timedata.md 7.8).
    """
    try:
        reply = _decode(body)
    except msgspec.MsgspecError as error:
        raise StatementError(f"not understood: {error}") from None
    for result in reply.results:
        if result.error:
            raise StatementError(result.error, any(word in result.error for word in _TYPE_ERRORS))
    if reply.error or len(reply.results) != count:
        raise StatementError(reply.error or f"{len(reply.results)} answers for {count} statements")
    return [result.series[0] if result.series else None for result in reply.results]


def answers(statements: Sequence[Statement], series: Sequence[_Series | None]) -> list[Answer]:
    """``series`` of the :func:`texts` of all statements, one after the other."""
    found: list[Answer] = []
    at = 0
    for statement in statements:
        answer: Answer = {}
        if _single(statement) or statement.kind in _ONE_EACH:
            for field in statement.fields:
                one = series[at]
                at += 1
                if one is not None and one.values:
                    answer[field] = [(row[0], row[1]) for row in one.values]  # type: ignore[misc]
        else:
            one = series[at]
            at += 1
            if one is not None:
                times, *columns = zip(*one.values, strict=True)
                for field, column in zip(statement.fields, columns, strict=True):
                    pairs = [pair for pair in zip(times, column, strict=True) if pair[1] is not None]
                    if pairs:
                        answer[field] = pairs
        found.append(answer)
    return found


def field_types(body: bytes) -> list[tuple[str, str]]:
    """Of the answer to ``SHOW FIELD KEYS``."""
    [series] = results(body, 1)
    return [] if series is None else [(str(row[0]), str(row[1])) for row in series.values if len(row) == 2]
