"""Line protocol: one point a row, ``data,edge=7 _sum/EssSoc=50i,meter0/Frequency=49.98 1685570700000``.

(timedata.md 5.3, 5.4); and what becomes of a value whose field has another type in the database already (5.5).
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import orjson

from openems.backend.timedata.spoolfile import Item
from openems.common.data import BACKEND, Value
from openems.common.errors import OpenemsError, generic, short

MAX_NUMBER = 2**31 - 1
_LOW, _HIGH = -(2**63), 2**63
MAX_KEYS = 200_000
_EDGE_NUMBER = re.compile(r"[^0-9]([0-9]+)\Z")
_INTEGER = re.compile(r"-?[0-9]+\Z")
#: Java's Double.parseDouble without NaN and Infinity, which no line can hold; hexadecimal floats are left out too.
_DOUBLE = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[fFdD]?\Z")
_ESCAPES = {",": "\\,", " ": "\\ ", "=": "\\=", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_KEY_ESCAPES = str.maketrans(_ESCAPES)
_MEASUREMENT_ESCAPES = str.maketrans({key: value for key, value in _ESCAPES.items() if key != "="})


class FieldType(enum.Enum):
    FLOAT = "float"
    INTEGER = "integer"
    UNSIGNED = "unsigned"
    STRING = "string"
    BOOLEAN = "boolean"


FIELD_TYPES = {type_.value: type_ for type_ in FieldType}


def edge_number(edge_id: str) -> int:
    """The number at the end of the id, which is all that is stored of it (timedata.md 6.2). Code 1 if there is none.

    >>> edge_number("fems1234"), edge_number("edge007")
    (1234, 7)
    """
    found = _EDGE_NUMBER.search(edge_id)
    # No longer ones: their text is not looked at.
    number = int(found[1]) if found and len(found[1]) < 20 else -1
    if not 0 <= number <= MAX_NUMBER:
        raise generic(f"Unable to parse number from name [{short(edge_id, 100)}]")
    return number


def tag_value(edge_id: str) -> str:
    """Of the tag ``edge``. Code 1 for an id without number. The backend's own numbers have a tag of their own, so that
    they are never those of the edge with number 0."""
    return BACKEND if edge_id == BACKEND else str(edge_number(edge_id))


def escaped_key(text: str) -> str:
    """A tag key, tag value or field key. A backslash at its end would escape what follows."""
    return text.translate(_KEY_ESCAPES) + (" " if text.endswith("\\") else "")


def escaped_measurement(text: str) -> str:
    return text.translate(_MEASUREMENT_ESCAPES)


def number_of(text: str) -> int | float | None:
    """A text that Java would take for a number (timedata.md 5.4); None for others.

    >>> number_of("12"), number_of("+5"), number_of("5d"), number_of(" 5")
    (12, 5.0, 5.0, None)
    """
    if len(text) > 400:
        return None
    if _INTEGER.match(text):
        number = int(text)
        if _LOW <= number < _HIGH:
            return number
    if _DOUBLE.match(text):
        result = float(text.rstrip("fFdD"))
        return result if math.isfinite(result) else None
    return None


def field(value: Any) -> str | None:
    """The field's value as its JSON literal says; None where nothing is stored (timedata.md 5.4). Booleans are 1 and 0.

    >>> field(100), field(100.0), field(True), field("12.5"), field("abc")
    ('100i', '100.0', '1i', '12.5', None)
    """
    if isinstance(value, str):
        value = number_of(value)
    elif isinstance(value, bool):
        value = int(value)
    if isinstance(value, int):
        return f"{value}i" if _LOW <= value < _HIGH else repr(float(value))
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    return None


def converted(value: Value, required: FieldType) -> str | None:
    """The value for a field of that type; None where it cannot be one (timedata.md 5.5).

    >>> converted(123.5, FieldType.INTEGER), converted("true", FieldType.FLOAT), converted(5, FieldType.STRING)
    ('123i', '1.0', '"5"')
    """
    if value is None:
        return None
    if required is FieldType.STRING:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        text = text.replace('"', "").replace("\\", "\\\\")
        return f'"{text}"'
    number = _number(value)
    if number is None:
        return None
    if required is FieldType.FLOAT:
        return repr(float(number))
    if required is FieldType.BOOLEAN:
        return "true" if number else "false"
    whole = int(number)
    if required is FieldType.UNSIGNED:
        return f"{whole}u" if 0 <= whole < 2**64 else None
    return f"{whole}i" if _LOW <= whole < _HIGH else None


def _number(value: Any) -> int | float | None:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        text = value.replace('"', "")
        return {"true": 1, "false": 0}.get(text.lower(), number_of(text))
    return None


_NATURAL: dict[type, FieldType] = {int: FieldType.INTEGER, float: FieldType.FLOAT}
_SUFFIX: dict[type, str] = {int: "%si", float: "%s"}


class Encoder:
    """Points of one measurement. Fields whose type in the database is known are written so, others as their literal.

    ``lost`` counts values that were not encoded: ``text`` (no number), ``type`` (nothing a field can hold) and
    ``conflict`` (not of the field's type).
    """

    def __init__(self, measurement: str, tag: str) -> None:
        self._measurement = f"{escaped_measurement(measurement)},{escaped_key(tag)}="
        self._types: dict[str, FieldType] = {}
        self._heads: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        #: Channel -> type of the values it had, and how one of them is put into a line.
        self._kinds: dict[str, type] = {}
        self._formats: dict[str, str] = {}
        self.lost: dict[str, int] = {}

    def learn(self, types: Mapping[str, FieldType]) -> None:
        """The types of these fields in the database."""
        for channel, type_ in types.items():
            if len(self._types) < MAX_KEYS or channel in self._types:
                self._types[channel] = type_
                self._kinds.pop(channel, None)

    def encode(self, items: Iterable[Item]) -> str:
        """Lines joined by newlines; empty if there is nothing to store. Edges without a number are passed over."""
        items = list(items)
        lost = self.lost.copy()
        lines, numbers = self._lines(items)
        try:
            # Four times as fast as Python makes texts of floats.
            texts = orjson.dumps(numbers)[1:-1]
        except TypeError:  # a whole number of more than 64 bits
            texts = b"null"
        if b"null" in texts:  # or one that is none
            self.lost = lost
            (lines, numbers), texts = self._lines(items, one_by_one=True), b""
        return "\n".join(lines) % (tuple(texts.decode().split(",")) if numbers else ())

    def _lines(self, items: list[Item], *, one_by_one: bool = False) -> tuple[list[str], list[Any]]:
        """Templates of lines, and the numbers that belong into them."""
        kinds, formats = self._kinds.__getitem__, self._formats.__getitem__
        lines: list[str] = []
        numbers: list[Any] = []
        for edge, _, rows in items:
            head = self._heads.get(edge)
            if head is None:
                head = self._head(edge)
                if not head:
                    continue
            for time, row in rows.items():
                values = row.values()
                try:
                    # The usual row: every channel has the type that it had before. Then all of the batch is one
                    # formatting.
                    if row and not one_by_one and list(map(type, values)) == list(map(kinds, row)):
                        lines.append(f"{head}{','.join(map(formats, row))} {time}")
                        numbers += values
                        continue
                except KeyError:
                    pass
                fields = self._fields(row)
                if fields:
                    lines.append(f"{head}{','.join(fields).replace('%', '%%')} {time}")
        return lines, numbers

    def _head(self, edge: str) -> str:
        try:
            head = f"{self._measurement}{tag_value(edge)} ".replace("%", "%%")
        except OpenemsError:
            return ""
        if len(self._heads) >= MAX_KEYS:
            self._heads.clear()
        self._heads[edge] = head
        return head

    def _remember(self, channel: str, value: Value, required: FieldType | None) -> str:
        """The channel's key; and for the next time how values like this one go."""
        key = self._keys.get(channel)
        if key is None:
            if len(self._keys) >= MAX_KEYS:
                self._keys.clear()
                self._kinds.clear()
                self._formats.clear()
            key = self._keys[channel] = escaped_key(channel) + "="
        type_ = type(value)
        natural = _NATURAL.get(type_)
        if natural is not None and required in (None, natural):
            self._kinds[channel] = type_
            self._formats[channel] = key.replace("%", "%%") + _SUFFIX[type_]
        return key

    def _fields(self, row: Mapping[str, Value]) -> list[str]:
        fields: list[str] = []
        for channel, value in row.items():
            required = self._types.get(channel)
            text = field(value) if required is None else converted(value, required)
            if text is not None:
                fields.append(self._remember(channel, value, required) + text)
            elif value is not None:
                reason = "conflict" if required else "text" if isinstance(value, str) else "type"
                self.lost[reason] = self.lost.get(reason, 0) + 1
        return fields


class Conflict(msgspec.Struct, frozen=True):
    """A field that exists with another type."""

    field: str
    measurement: str
    given: str
    required: FieldType


_CONFLICT = re.compile(
    r'field type conflict: input field "(?P<field>[^"]{1,400})" on measurement "(?P<measurement>(?:[^"\\]|\\.){1,400})"'
    r" is type (?P<given>\w+), already exists as type (?P<required>\w+)(?P<dropped> dropped=[0-9]+)?\s*\Z"
)
_PARTIAL = re.compile(r"partial write: (?P<reason>.{1,300}?) dropped=(?P<dropped>[0-9]+)\s*\Z", re.DOTALL)


def conflict_of(message: str) -> Conflict | None:
    """What InfluxDB 1 (status 400) and 2 (422) say of a value that has another type than its field.

    >>> conflict_of('partial write: field type conflict: input field "a/B" on measurement "data" is type integer,'
    ...             ' already exists as type float dropped=2').required
    <FieldType.FLOAT: 'float'>
    """
    found = _CONFLICT.search(message[-2000:])
    if found is None or found["required"] not in FIELD_TYPES:
        return None
    return Conflict(found["field"], found["measurement"], found["given"], FIELD_TYPES[found["required"]])


def partial_of(message: str) -> tuple[str, int] | None:
    """Why the server left out how many points of a batch whose others it took.

    >>> partial_of("partial write: points beyond retention policy dropped=3")
    ('points beyond retention policy', 3)
    """
    found = _PARTIAL.search(message[-2000:])
    return (found["reason"], int(found["dropped"])) if found else None


def known_types(rows: Iterable[tuple[str, str]]) -> Mapping[str, FieldType]:
    """(field, type) pairs as ``SHOW FIELD KEYS`` gives them. A field with several types, by shard, counts as the one
    that holds the others: float, then integer."""
    result: dict[str, FieldType] = {}
    for name, text in rows:
        type_ = FIELD_TYPES.get(text)
        if type_ is not None and (name not in result or _rank(type_) < _rank(result[name])):
            result[name] = type_
    return result


def _rank(type_: FieldType) -> int:
    return (FieldType.FLOAT, FieldType.INTEGER, FieldType.UNSIGNED, FieldType.STRING, FieldType.BOOLEAN).index(type_)
