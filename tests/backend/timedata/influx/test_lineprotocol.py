from __future__ import annotations

import math
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.timedata.influx.lineprotocol import (
    Encoder,
    FieldType,
    conflict_of,
    converted,
    edge_number,
    field,
    known_types,
    partial_of,
    tag_value,
)
from openems.common.data import BACKEND, DataKind
from openems.common.errors import OpenemsError

MESSAGE = (
    'partial write: field type conflict: input field "foo/bar" on measurement "data" is type integer,'
    " already exists as type float dropped=2"
)
FINITE = st.one_of(st.integers(-(10**18) + 1, 10**18 - 1), st.floats(-1e18, 1e18))
#: name=value, apart at commas and signs that are not escaped
_FIELD = re.compile(r"((?:[^,= \\]|\\.)+)=([^, ]+)")


class EncoderTests(SynchronousTestCase):
    def encode(self, row: dict[str, Any], encoder: Encoder | None = None) -> str:
        encoder = encoder or Encoder("data", "edge")
        return encoder.encode([("edge7", DataKind.TIMESTAMPED, {1685570700000: row})])

    def test_timedata_5_3_point(self) -> None:
        row = {"_sum/EssSoc": 50, "_sum/GridActivePower": 301, "meter0/Frequency": 49.98}
        self.assertEqual(
            "data,edge=7 _sum/EssSoc=50i,_sum/GridActivePower=301i,meter0/Frequency=49.98 1685570700000",
            self.encode(row),
        )

    def test_timedata_15_edge_number(self) -> None:
        for edge, number in (("edge0", 0), ("fems1234", 1234), ("a1b22", 22), ("edge007", 7), ("_1", 1)):
            self.assertEqual(number, edge_number(edge))
        for edge in ("12", "edge1a", "", "edge99999999999", "edge" + "9" * 5000, "edge2147483648", "edge\u0663"):
            self.assertRaises(OpenemsError, edge_number, edge)
        self.assertEqual((BACKEND, "0"), (tag_value("backend0"), tag_value("edge0")))

    def test_timedata_15_typing(self) -> None:
        for value, text in (
            (100, "100i"), (100.0, "100.0"), (1e3, "1000.0"), ("12", "12i"), ("12.5", "12.5"), ("+5", "5.0"),
            (" 5", None), ("5d", "5.0"), ("abc", None), (True, "1i"), (None, None), ([], None),
            (9223372036854775808, "9.223372036854776e+18"), (math.nan, None), (math.inf, None), ("NaN", None),
            ("1e999", None), ("9" * 5000, None),
        ):  # fmt: skip
            self.assertEqual(text, field(value), value)
            if value == 9223372036854775808:
                continue  # nothing so large comes here: plausibility.py
            expected = f"data,edge=7 a0/B={text} 1685570700000" if text else ""
            self.assertEqual(expected, self.encode({"a0/B": value}))

    def test_timedata_15_conflict_conversion(self) -> None:
        cases: dict[FieldType, list[tuple[Any, str | None]]] = {
            FieldType.STRING: [
                (123, '"123"'), ("123", '"123"'), (123.5, '"123.5"'), ("string", '"string"'), (None, None),
                (True, '"true"'), ('a"b\\', '"ab\\\\"'),
            ],
            FieldType.INTEGER: [
                (123, "123i"), ("123", "123i"), (123.5, "123i"), ("123.5", "123i"), ("string", None), (True, "1i"),
                ("true", "1i"), (False, "0i"), ("false", "0i"), (1e300, None), (-1.9, "-1i"),
            ],
            FieldType.FLOAT: [
                (123, "123.0"), ("123.5", "123.5"), ("string", None), (True, "1.0"), ("false", "0.0"), (math.nan, None),
            ],
            FieldType.BOOLEAN: [(1, "true"), (0, "false"), ("true", "true"), ("x", None)],
            FieldType.UNSIGNED: [(1, "1u"), (-1, None)],
        }  # fmt: skip
        for required, pairs in cases.items():
            for value, text in pairs:
                self.assertEqual(text, converted(value, required), (value, required))

    def test_fields_of_known_types(self) -> None:
        encoder = Encoder("data", "edge")
        row = {"a0/I": 1.9, "a0/F": 1, "a0/B": 1, "a0/Plain": 2}
        self.assertEqual("data,edge=7 a0/I=1.9,a0/F=1i,a0/B=1i,a0/Plain=2i 1685570700000", self.encode(row, encoder))
        encoder.learn({"a0/I": FieldType.INTEGER, "a0/F": FieldType.FLOAT, "a0/B": FieldType.BOOLEAN})
        self.assertEqual("data,edge=7 a0/I=1i,a0/F=1.0,a0/B=true,a0/Plain=2i 1685570700000", self.encode(row, encoder))
        self.assertEqual("", self.encode({"a0/I": "text"}, encoder))
        self.assertEqual({"conflict": 1}, encoder.lost)
        encoder.learn({"a0/I": FieldType.FLOAT})
        self.assertEqual("data,edge=7 a0/I=1.9 1685570700000", self.encode({"a0/I": 1.9}, encoder))

    def test_names_are_escaped(self) -> None:
        encoder = Encoder("my data,x", "the edge")
        self.assertEqual(
            r"my\ data\,x,the\ edge=7 a0/B\=1\,c\ d=1i 1685570700000", self.encode({"a0/B=1,c d": 1}, encoder)
        )

    def test_the_usual_way_and_the_other_one(self) -> None:
        """A second row of the same channels goes a faster way, unless a value is unlike the one before."""
        rows: list[dict[str, Any]] = [
            {"a0/I": 1, "a0/F": 1.5},
            {"a0/I": -2, "a0/F": 1e-7},
            {"a0/I": 2**70, "a0/F": 1e17},
            {"a0/I": 3, "a0/F": math.nan},
            {"a0/I": True, "a0/F": None},
            {"a0/I": 4, "a0/F": 0.1},
        ]
        encoder = Encoder("data", "edge")
        found = [dict(_FIELD.findall(self.encode(row, encoder).split(" ")[1])) for row in rows]
        self.assertEqual(["1i", "-2i", repr(2.0**70), "3i", "1i", "4i"], [row["a0/I"] for row in found])
        self.assertEqual([1.5, 1e-7, 1e17, 0.1], [float(row["a0/F"]) for row in found if "a0/F" in row])

    def test_a_number_that_is_none_among_others(self) -> None:
        """It costs itself; what was lost beside it is counted once."""
        encoder = Encoder("data", "edge")
        self.encode({"a0/F": 1.5}, encoder)
        rows: list[dict[str, Any]] = [{"a0/F": 2.5}, {"a0/T": "text"}, {"a0/F": math.inf}, {"a0/F": 2.0**70}]
        lines = encoder.encode([("edge7", DataKind.TIMESTAMPED, {n: row}) for n, row in enumerate(rows)])
        self.assertEqual(lines.split("\n"), ["data,edge=7 a0/F=2.5 0", f"data,edge=7 a0/F={2.0**70!r} 3"])
        self.assertEqual(encoder.lost, {"text": 1, "type": 1})

    def test_percent_signs(self) -> None:
        encoder = Encoder("100%s", "%d")
        encoder.learn({"a0/T%s": FieldType.STRING})
        for _ in range(2):
            row = {"a0/N%%": 1, "a0/T%s": "50 %s"}
            self.assertEqual('100%s,%d=7 a0/N%%=1i,a0/T%s="50 %s" 1685570700000', self.encode(row, encoder))
            self.assertEqual("100%s,%d=7 a0/N%%=2i 1685570700000", self.encode({"a0/N%%": 2}, encoder))

    def test_rows_without_fields_and_edges_without_number(self) -> None:
        items = [
            ("edge7", DataKind.RESEND, {1: {}, 2: {"a0/B": None}, 3: {"a0/B": "x"}, 4: {"a0/B": 1}}),
            ("noNumber", DataKind.RESEND, {5: {"a0/B": 1}}),
        ]
        self.assertEqual("data,edge=7 a0/B=1i 4", Encoder("data", "edge").encode(items))  # type: ignore[arg-type]

    @given(st.dictionaries(st.text(st.sampled_from("ab/, =\\\"'"), min_size=1, max_size=8), FINITE, min_size=1))
    def test_a_line_is_one_point_with_these_fields(self, row: dict[str, Any]) -> None:
        line = self.encode(row)
        self.assertNotIn("\n", line)
        self.assertTrue(line.startswith("data,edge=7 "))
        self.assertTrue(line.endswith(" 1685570700000"))


class ConflictTests(SynchronousTestCase):
    def test_timedata_15_conflict_message(self) -> None:
        for prefix in ("", "HTTP status code: 400; Message: ", "failure writing points to database: "):
            conflict = conflict_of(prefix + MESSAGE)
            assert conflict is not None
            self.assertEqual(
                ("foo/bar", "data", FieldType.FLOAT), (conflict.field, conflict.measurement, conflict.required)
            )
        self.assertIsNone(conflict_of(MESSAGE + " and more"))
        other = conflict_of(MESSAGE.replace('"data"', '"my data"').replace("float", "boolean"))
        assert other is not None
        self.assertEqual(("my data", FieldType.BOOLEAN), (other.measurement, other.required))
        self.assertIsNone(conflict_of(MESSAGE.replace("type float", "type strange")))

    @given(st.text(max_size=3000))
    def test_any_message(self, text: str) -> None:
        conflict_of(text)
        conflict_of('field type conflict: input field "' + text)
        partial_of(text)
        partial_of("partial write: " + text)

    def test_partial_writes(self) -> None:
        text = "partial write: points beyond retention policy dropped=3"
        self.assertEqual(
            ("points beyond retention policy", 3), partial_of(f"failure writing points to database: {text}")
        )
        self.assertIsNone(partial_of("unable to parse"))

    def test_the_widest_type_counts(self) -> None:
        types = known_types(
            [("a", "integer"), ("a", "float"), ("b", "float"), ("b", "integer"), ("c", "boolean"), ("d", "?")]
        )
        self.assertEqual({"a": FieldType.FLOAT, "b": FieldType.FLOAT, "c": FieldType.BOOLEAN}, types)
