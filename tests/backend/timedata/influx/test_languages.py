from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.timedata.influx import flux, influxql, reader
from openems.backend.timedata.influx.statements import Kind, Statement, StatementError, Table, runs
from openems.common.resolution import Grid

TABLE = Table("db", "", "data", "edge")
CSV = "#datatype,string,long,dateTime:RFC3339,{type},string\r\n,result,table,_time,_value,_field\r\n"


class TextTests(SynchronousTestCase):
    def test_influxql(self) -> None:
        means = Statement(Kind.MEANS, ("a0/B", "a0/C"), 1672268400000, 1672300800000, 300_000, 1672268400000)
        self.assertEqual(
            [
                'SELECT MEAN("a0/B") AS "0", MEAN("a0/C") AS "1" FROM "data" WHERE "edge" = \'888\''
                " AND time >= 1672268400000ms AND time < 1672300800000ms GROUP BY time(300000ms, 0ms) fill(none)"
            ],
            influxql.texts(TABLE, "888", means),
        )
        days = Statement(Kind.MEANS, ("a0/B",), 1672268400000, 1672300800000, 86_400_000, 1672268400000)
        self.assertIn("GROUP BY time(86400000ms, 82800000ms)", influxql.texts(TABLE, "888", days)[0])
        qualified = influxql.texts(Table("db", "rp_max", "my-max", "edge"), "1", Statement(Kind.LAST, ("a",), None, 5))
        self.assertEqual(
            ['SELECT LAST("a") AS "0" FROM "rp_max"."my-max" WHERE "edge" = \'1\' AND time < 5ms'], qualified
        )

    @given(st.text(max_size=30), st.text(max_size=30))
    def test_timedata_14_11_no_injection(self, field: str, edge: str) -> None:
        """Between the first and the last quote of a quoted text no quote stands without its backslash."""
        for quoted, quote in (
            (influxql.identifier(field), '"'),
            (influxql.literal(edge), "'"),
            (flux.text(field), '"'),
        ):
            inside = quoted[1:-1]
            self.assertEqual((quote, quote), (quoted[0], quoted[-1]))
            at = 0
            while at < len(inside):
                self.assertNotEqual(quote, inside[at])
                if quoted == flux.text(field):
                    self.assertFalse(inside.startswith("${", at))
                self.assertNotEqual("\n", inside[at])
                at += 2 if inside[at] == "\\" else 1
            self.assertEqual(len(inside), at)

    def test_the_attack_of_the_specification(self) -> None:
        channel = '_sum/X") AS "a/b" FROM data WHERE edge = \'3\' -- '
        statement = Statement(Kind.MEANS, (channel,), 0, 1, 1)
        text = influxql.texts(TABLE, "7", statement)[0]
        self.assertIn('MEAN("_sum/X\\") AS \\"a/b\\" FROM data', text)
        self.assertIn('r["_field"] == "_sum/X\\") AS \\"a/b\\"', flux.script(TABLE, "7", [statement]))


class AnswerTests(SynchronousTestCase):
    def test_an_error_is_no_empty_answer(self) -> None:
        for body in (
            b'{"results":[{"statement_id":0,"error":"unsupported mean iterator type: x"}]}',
            b'{"results":[{"statement_id":0}]}',
            b'{"error":"database not found"}',
            b"<html>",
            b'{"results":[{"series":[{"values":5}]}]}',
        ):
            self.assertRaises(StatementError, influxql.results, body, 2)
        body = (
            CSV.format(type="double").encode()
            + b"\r\n#datatype,string,string\r\n,error,reference\r\n,unsupported x,\r\n"
        )
        error = self.assertRaises(StatementError, flux.answers, body, 1)
        self.assertTrue(error.types)

    def test_flux_types(self) -> None:
        body = ""
        for type_, value in (
            ("long", "5"),
            ("double", "1.5"),
            ("string", 'a,"b"'),
            ("boolean", "true"),
            ("double", ""),
        ):
            quoted = '"' + value.replace('"', '""') + '"'
            body += CSV.format(type=type_) + f',0,0,2023-11-14T22:13:20.25Z,{quoted},"m/{type_}, x"\r\n\r\n'
        [answer] = flux.answers(body.encode(), 1)
        time = 1_700_000_000_250
        self.assertEqual(
            {
                "m/long, x": [(time, 5)],
                "m/double, x": [(time, 1.5)],
                "m/string, x": [(time, 'a,"b"')],
                "m/boolean, x": [(time, True)],
            },
            answer,
        )


class RunTests(SynchronousTestCase):
    @given(st.lists(st.integers(1, 3), min_size=1, max_size=30), st.integers(-5, 5))
    def test_runs_cover_a_grid(self, lengths: list[int], start: int) -> None:
        edges = [start]
        for length in lengths:
            edges.append(edges[-1] + length)
        grid = Grid(edges[:-1], edges[-1])
        found = list(runs(grid))
        self.assertEqual(len(grid), sum(run.count for run in found))
        labels: list[int] = []
        for run in found:
            self.assertEqual(len(labels), run.first)
            labels += range(run.begin, run.end, run.step)
        self.assertEqual((grid.starts, grid.end), (labels, found[-1].end))

    def test_a_statement_is_cut(self) -> None:
        statement = Statement(Kind.MEANS, ("a",), 10, 20, 5, 10)
        self.assertIs(statement, statement.within(None, None))
        self.assertEqual((12, 18, 10), _bounds(statement.within(12, 18)))
        self.assertIsNone(statement.within(20, None))
        self.assertIsNone(statement.within(None, 10))
        self.assertEqual((5, 20, 0), _bounds(Statement(Kind.LAST, ("a",), None, 20).within(5, None)))

    def test_holes(self) -> None:
        grid = Grid(list(range(0, 1_200_000, 300_000)), 1_200_000, 300_000)
        found = reader.holes(grid, {"a": [1, None, 2, None], "b": [None, None, 1, 1], "c": [1, 2, 3, 4]})
        self.assertEqual([("a", 1, 2), ("a", 3, 4)], [(hole.channel, hole.first, hole.after) for hole in found])


def _bounds(statement: Any) -> tuple[int, int, int]:
    return statement.begin, statement.end, statement.origin


class ColumnsTests(SynchronousTestCase):
    """The quick way through an answer says what the careful one says."""

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 2),
                st.sampled_from(["double", "long", "string", "boolean"]),
                st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["1", "2", "", "true"])), max_size=4),
            ),
            max_size=5,
        )
    )
    def test_both_ways(self, tables: list[tuple[int, str, list[tuple[int, str]]]]) -> None:
        body = ""
        for number, (result, type_, rows) in enumerate(tables):
            body += CSV.format(type=type_)
            for second, value in rows:
                if type_ in ("double", "long") and value == "true":
                    value = "7"
                body += f",{result},{number},2023-11-14T22:13:2{second}Z,{value},a0/F{number % 3}\r\n"
            body += "\r\n"
        quick = flux.answers(body.encode(), 3)
        careful = flux.answers((body + CSV.format(type="string") + ',0,99,2023-11-14T22:13:20Z,"",x\r\n').encode(), 3)
        self.assertEqual(careful, quick)
