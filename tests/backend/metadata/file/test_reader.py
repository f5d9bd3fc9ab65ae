import json
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metadata.file.builder import build
from openems.backend.metadata.file.reader import MAX_DEPTH, MAX_SIZE, Document, Unreadable, _Parser, read

_ONE = '{edges:{edge0:{apikey:"k",comment:"c"}}}'


def edges_of(text: str) -> list[tuple[str, str, str]]:
    """id, apikey, setup password of each edge; LookupError if the file is refused."""
    model, problems = build(read(text.encode()))
    if model is None:
        raise LookupError([str(problem) for problem in problems])
    return [(edge.id, edge.apikey, edge.setup_password) for edge in model.edges.values()]


class TestVectors(SynchronousTestCase):
    """metadata.md 23.2."""

    def accepts(self, text: str, *edges: tuple[str, str, str]) -> None:
        self.assertEqual(edges_of(text), list(edges), text)

    def refuses(self, text: str, *in_message: str) -> None:
        with self.assertRaises((LookupError, Unreadable)) as caught:
            edges_of(text)
        for part in in_message:
            self.assertIn(part, str(caught.exception))

    def test_accepted(self) -> None:
        plain = ("edge0", "k", "")
        self.accepts(_ONE, plain)
        self.accepts("{'edges':{'edge0':{'apikey':'k','comment':'c'}}}", plain)
        self.accepts("{edges:{edge0:{apikey:key0,comment:hello}}}", ("edge0", "key0", ""))
        self.accepts('{edges:{edge0:{apikey:"123",comment:"c"}}}', ("edge0", "123", ""))
        self.accepts('{edges:{edge0:{apikey:007,comment:"c"}}}', ("edge0", "007", ""))
        self.accepts('{edges:{edge0:{apikey:NaN,comment:"c"}}}', ("edge0", "NaN", ""))
        self.accepts('{"edges":{"edge0":{"apikey":NaN,"comment":"c"}}}', ("edge0", "NaN", ""))
        self.accepts('{edges:{edge0:{apikey:"k",comment:"c",setuppassword:1234}}}', plain)
        self.accepts('{edges:{edge0:{apikey:"k",comment:"c",setuppassword:"1234"}}}', ("edge0", "k", "1234"))
        self.accepts('{edges:{edge0:{apikey:"k",comment:"c",setupPassword:"x"}}}', plain)
        self.accepts("{edges:{}}")
        self.accepts('{version:2,users:{},edges:{edge0:{apikey:"k",comment:"c",foo:[1]}}}', plain)
        self.accepts('{edges:{edge0:{apikey:"k1",comment:"c"},edge0:{apikey:"k2",comment:"c"}}}', ("edge0", "k2", ""))
        self.accepts(
            '{edges:{edge0:{apikey:"k",comment:""}},edges:{edge1:{apikey:"k",comment:""}}}', ("edge1", "k", "")
        )
        self.accepts('{edges:{my-edge.1:{apikey:"k",comment:""}}}', ("my-edge.1", "k", ""))
        self.accepts('{edges:{"":{apikey:"k",comment:""}}}', ("", "k", ""))
        self.accepts('{\n/* hi\n there */\nedges:{edge0:{apikey:"k",comment:"c"}}}', plain)
        self.accepts('{edges:{edge0:{apikey:"k";comment:"c"}}}', plain)
        self.accepts('{edges={edge0=>{apikey="k",comment="c"}}}', plain)
        self.accepts("\ufeff" + _ONE, plain)

    def test_accepted_with_a_warning(self) -> None:
        for text in (
            '{\n// hi\nedges:{edge0:{apikey:"k",comment:"c"}}}',
            '{\n# hi\nedges:{edge0:{apikey:"k",comment:"c"}}}',
            _ONE + "\n// end",
            '{edges:{edge0:{apikey:"k",comment:"c",},}}',
        ):
            self.accepts(text, ("edge0", "k", ""))
            self.assertTrue(read(text.encode()).warnings, text)
        self.assertEqual(read(_ONE.encode()).warnings, [])

    def test_refused(self) -> None:
        self.refuses("{edges:{edge0:{apikey:key0,comment:hello world}}}", "line 1, edges.edge0")
        self.refuses('{edges:{edge0:{apikey:123,comment:"c"}}}', "edges.edge0.apikey", "no text")
        self.refuses('{edges:{edge0:{apikey:TRUE,comment:"c"}}}', "edges.edge0.apikey")
        self.refuses('{edges:{edge0:{apikey:"k",comment:null}}}', "edges.edge0.comment")
        self.refuses('{edges:{edge0:{apikey:"k"}}}', "edges.edge0.comment: is missing")
        self.refuses('{edges:{edge0:{comment:"c"}}}', "edges.edge0.apikey: is missing")
        self.refuses('{edges:{edge0:"x"}}', "edges.edge0: is no object")
        for text in ("", "  \n", "null", "[]", "{}", "{edges:null}", "{edges:[]}", "{Edges:{}}"):
            self.refuses(text)
        self.refuses('{edges:{edge0:{apikey:"k"\ncomment:"c"}}}', "line 2")
        self.refuses('{edges:{edge0:{apikey:"k",,comment:"c"}}}')
        for tail in (" x", " {}"):
            self.refuses(_ONE + tail, "after the end")
        for end in range(len(_ONE)):
            self.refuses(_ONE[:end])
        self.refuses('{edges:{edge0:{apikey:"\\x",comment:"c"}}}', "escape")

    def test_comments_and_line_breaks_in_strings_are_text(self) -> None:
        for comment in ("Edge #0", "http://x/", "a\nb", "a\tb", "/* x */"):
            model, _ = build(read(f'{{edges:{{edge0:{{apikey:"k",comment:"{comment}"}}}}}}'.encode()))
            assert model is not None
            self.assertEqual(model.edges["edge0"].comment, comment)


class TestReader(SynchronousTestCase):
    def test_error_names_line_and_member_but_no_secret(self) -> None:
        with self.assertRaises(Unreadable) as caught:
            read(b'{\n edges: {\n  edge0: {\n   apikey: "topsecret" "x"\n}}}')
        self.assertIn("line 4, edges.edge0: expected ',' or '}' after member 'apikey'", str(caught.exception))
        self.assertNotIn("topsecret", str(caught.exception))

    def test_depth_and_size(self) -> None:
        for nested in ("[" * 5000 + "]" * 5000, '{"a":' * 5000, "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)):
            with self.assertRaises(Unreadable):
                Document(nested)
        Document("[" * MAX_DEPTH + "]" * MAX_DEPTH)
        with self.assertRaises(Unreadable):
            read(b" " * (MAX_SIZE + 1))

    def test_line_of_a_member_of_strict_json(self) -> None:
        document = read(b'{\n"edges": {\n"a": {"x": 1},\n"b": {\n"x": 2}}}')
        self.assertEqual(document.line(("edges", "b", "x")), 5)
        self.assertEqual(document.line(("edges", "b", "nope")), 4)

    def test_half_characters_are_replaced(self) -> None:
        self.assertEqual(read(b'["\\ud800x", "\\ud83d\\ude00"]').value, ["\ufffdx", "\U0001f600"])
        self.assertEqual(read(b"['\\ud800x', '\\ud83d\\ude00']").value, ["\ufffdx", "\U0001f600"])

    @settings(max_examples=300, deadline=None)
    @given(st.one_of(st.text(max_size=60), st.text(alphabet="{}[]:,;=>/*#\"'\\ua0 \n-.etrufalsn1", max_size=60)))
    def test_never_crashes(self, text: str) -> None:
        try:
            build(Document(text))
        except Unreadable as e:
            self.assertGreaterEqual(e.line, 1)

    @settings(max_examples=200, deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
            max_leaves=15,
        ),
        st.sampled_from([None, 2]),
    )
    def test_strict_json_is_read_as_json_by_both_readers(self, value: Any, indent: int | None) -> None:
        text = json.dumps(value, indent=indent)
        self.assertEqual(Document(text).value, json.loads(text))
        self.assertEqual(_Parser(text).document(), json.loads(text))

    @settings(max_examples=100, deadline=None)
    @given(
        st.dictionaries(
            st.from_regex(r"[a-z][a-z0-9.-]{0,8}", fullmatch=True),
            st.tuples(st.text(), st.text()),
            max_size=5,
        ),
        st.sampled_from(list(", ;")),
        st.sampled_from([":", "=", "=>"]),
        st.sampled_from("\"'"),
    )
    def test_any_file_in_the_dialect_gives_its_edges(
        self, wanted: dict[str, tuple[str, str]], comma: str, colon: str, quote: str
    ) -> None:
        comma = ";" if comma == ";" else ","

        def quoted(text: str) -> str:
            return quote + text.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote

        members = comma.join(
            f"{quoted(name)} {colon} {{apikey{colon}{quoted(key)}{comma}comment{colon}{quoted(comment)}}}"
            for name, (key, comment) in wanted.items()
        )
        text = f"/* x */{{edges{colon}{{{members}}}}}"
        self.assertEqual(
            [(edge_id, key) for edge_id, key, _ in edges_of(text)], [(name, key) for name, (key, _) in wanted.items()]
        )

    def test_numbers(self) -> None:
        value = Document("[1, -0.5, 1e3, 01, +1, .5, Infinity, TRUE, Null, x1]").value
        self.assertEqual(value, [1, -0.5, 1000.0, "01", "+1", ".5", "Infinity", True, None, "x1"])
        self.assertTrue(math.isinf(Document("[1e999]").value[0]))
