"""Flux: scripts for statements and their CSV answers. Everything that comes from outside is quoted."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Callable, Sequence

from openems.backend.timedata.influx.statements import Answer, Kind, Statement, StatementError, Table
from openems.common.data import Value
from openems.common.resolution import UTC

_WINDOWED = {Kind.MEANS: "mean", Kind.LASTS: "last", Kind.COUNTS: "count", Kind.RISES: "sum"}
#: What the engine says where a field is no number.
TYPE_ERRORS = ("unsupported", "does not support")
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "$": "\\$", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def text(value: str) -> str:
    """A string literal without interpolation.

    >>> text('a" or ${r.x}')
    '"a\\\\" or \\\\${r.x}"'
    """
    return f'"{value.translate(_ESCAPES)}"'


def instant(time: int) -> str:
    seconds, rest = divmod(time, 1000)
    date = datetime.datetime.fromtimestamp(seconds, UTC)
    return f"{date:%Y-%m-%dT%H:%M:%S}.{rest:03d}Z" if date.year >= 1000 else "1970-01-01T00:00:00Z"


def script(table: Table, edge: str, statements: Sequence[Statement]) -> str:
    """One script for all; the answer to statement n is the result ``n``. ``edge`` is the tag's value."""
    return "\n".join(_stream(table, edge, n, statement) for n, statement in enumerate(statements))


def _any(conditions: Sequence[str]) -> str:
    """In pairs of halves: of a few hundred in one chain the engine says that they are nested too deep."""
    if len(conditions) <= 8:
        return " or ".join(conditions)
    middle = len(conditions) // 2
    return f"({_any(conditions[:middle])}) or ({_any(conditions[middle:])})"


def _stream(table: Table, edge: str, number: int, statement: Statement) -> str:
    kind, begin, end, step = statement.kind, statement.begin, statement.end, statement.step
    fields = _any([f'r["_field"] == {text(field)}' for field in statement.fields])
    parts = [
        f"from(bucket: {text(table.bucket)})",
        f"range(start: {instant(begin or 0)}, stop: {instant(end)})",
        f'filter(fn: (r) => r["_measurement"] == {text(table.measurement)})',
        f"filter(fn: (r) => r[{text(table.tag)}] == {text(edge)})",
        f"filter(fn: (r) => {fields})",
    ]
    value = "_value"
    if kind is Kind.FIRST:
        parts.append("first()")
    elif kind is Kind.LAST:
        parts.append("last()")
    elif kind is Kind.GAPS:
        # In milliseconds the engine says one too few now and then: it divides in floating point.
        parts += ["elapsed(unit: 1us)", f"filter(fn: (r) => r.elapsed > {1000 * step + 500})"]
        value = "elapsed"
    else:
        if kind is Kind.RISES:
            # A restart gives null, which no sum counts.
            parts.append("difference(nonNegative: true)")
        elif kind is Kind.TRUES:
            parts.append("filter(fn: (r) => r._value)")
        function = _WINDOWED.get(kind, "count")
        parts.append(
            f"aggregateWindow(every: {step}ms, offset: {statement.offset}ms, fn: {function},"
            ' createEmpty: false, timeSrc: "_start")'
        )
    parts.append(f'keep(columns: ["_time", "{value}", "_field"])')
    parts.append(f'yield(name: "{number}")')
    return "\n  |> ".join(parts)


def answers(body: bytes, count: int) -> list[Answer]:
    """Raises :class:`StatementError` for an error inside an answer."""
    text = body.decode(errors="replace")
    found: list[Answer] = [{} for _ in range(count)]
    if '"' not in text and _by_columns(text, found):
        return found
    found = [{} for _ in range(count)]
    times: dict[str, int] = {}
    types: list[str] = []
    header: list[str] = []
    value_at = time_at = field_at = -1
    convert: Callable[[str], Value] = str
    current = ("", "")
    pairs: list[tuple[int, Value]] = []
    disorder = False
    for row in csv.reader(io.StringIO(text, newline="")):
        if not header:
            if not row:
                continue
            if row[0] == "#datatype":
                types = row
            elif not row[0].startswith("#"):
                header, current = row, ("", "")
                if "error" not in header:
                    value_at = header.index("_value" if "_value" in header else "elapsed")
                    time_at, field_at = header.index("_time"), header.index("_field")
                    convert = _CONVERSIONS.get("elapsed" if "elapsed" in header else types[value_at], str)
            continue
        if not row or row[0].startswith("#"):
            header = []
            types = row or types
            continue
        if "error" in header:
            message = row[header.index("error")]
            raise StatementError(message, any(words in message for words in TYPE_ERRORS))
        raw = row[value_at]
        if raw == "":
            continue
        time = times.get(row[time_at])
        if time is None:
            time = times[row[time_at]] = _milliseconds(row[time_at])
        key = (row[1], row[field_at])
        if key != current:
            current = key
            pairs = found[int(key[0])].setdefault(key[1], [])
        if pairs and pairs[-1][0] > time:
            disorder = True
        pairs.append((time, convert(raw)))
    if disorder:
        for answer in found:
            for pairs in answer.values():
                pairs.sort(key=_time)
    return found


def _by_columns(text: str, found: list[Answer]) -> bool:
    """The usual answer, without quotes and errors, in a third of the time; False where it is another."""
    times: dict[str, int] = {}
    for block in text.split("\r\n\r\n"):
        if not block.strip():
            continue
        types_line, header_line, *rest = block.strip("\r\n").split("\r\n", 2)
        types, header = types_line.split(","), header_line.split(",")
        if types[0] != "#datatype" or "_field" not in header:
            return False
        if not rest:
            continue
        width = len(header)
        cells = rest[0].replace("\r\n", ",").split(",")
        count = rest[0].count("\r\n") + 1
        columns = {name: cells[index::width] for index, name in enumerate(header)}
        # The first column is empty in every row of values.
        if len(cells) != width * count or any(columns[""]):
            return False
        name = "_value" if "_value" in columns else "elapsed"
        convert = _CONVERSIONS.get("elapsed" if name == "elapsed" else types[header.index(name)], str)
        values, tables = columns[name], columns["table"]
        if "" in values:
            return False
        for instant in set(columns["_time"]) - times.keys():
            times[instant] = _milliseconds(instant)
        begin = 0
        while begin < len(tables):
            end = begin + tables.count(tables[begin])
            field, result = columns["_field"][begin], columns["result"][begin]
            if (
                tables[end - 1] != tables[begin]
                or columns["_field"][end - 1] != field
                or result != columns["result"][0]
            ):
                return False
            answer = found[int(result)]
            if field in answer:
                return False
            instants = list(map(times.__getitem__, columns["_time"][begin:end]))
            if instants != sorted(instants):
                return False
            answer[field] = list(zip(instants, map(convert, values[begin:end]), strict=True))
            begin = end
    return True


def _is_true(text: str) -> bool:
    return text == "true"


def _rounded(text: str) -> int:
    return round(int(text) / 1000)


_CONVERSIONS: dict[str, Callable[[str], Value]] = {
    "long": int,
    "unsignedLong": int,
    "double": float,
    "boolean": _is_true,
    "elapsed": _rounded,
}


def _time(pair: tuple[int, Value]) -> int:
    return pair[0]


def _milliseconds(text: str) -> int:
    date = datetime.datetime.fromisoformat(text)
    return int(date.timestamp()) * 1000 + date.microsecond // 1000
