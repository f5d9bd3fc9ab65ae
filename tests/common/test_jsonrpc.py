"""The JSON-RPC dialect: test vectors of wire.md 9.1 and rules of wire.md 1."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.common import errors, jsonrpc
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Failed, Malformed, Members, Notification, Request, Success

U = "c48e2e28-09be-41d5-8e58-260d162991cc"


def parse(text: str) -> jsonrpc.Message:
    return jsonrpc.parse(text.replace("U", U))


class Classification(SynchronousTestCase):
    """wire.md 9.1"""

    def test_request_is_written_without_unknown_members(self) -> None:
        message = parse('{"id":"U","method":"m","params":{},"foo":1,"timeout":"5"}')
        self.assertEqual(
            message.encode().decode(), f'{{"jsonrpc":"2.0","method":"m","params":{{}},"id":"{U}","timeout":5}}'
        )

    def test_timeout(self) -> None:
        for text, timeout in (("5.7", 5), ('"x"', None), ("0", 0), ("true", None), ('"12"', 12)):
            message = parse(f'{{"id":"U","method":"m","params":{{}},"timeout":{text}}}')
            self.assertEqual((text, message.timeout), (text, timeout))

    def test_ids_are_canonical(self) -> None:
        for given_id, canonical in (
            ("1-1-1-1-1", "00000001-0001-0001-0001-000000000001"),
            (U.upper(), U),
        ):
            self.assertEqual(parse(json.dumps({"id": given_id, "method": "m", "params": {}})).id, canonical)

    def test_malformed(self) -> None:
        for text, code, message in (
            (
                '{"id":1,"method":"m","params":{}}',
                5033,
                'JSON [id:{"id":1,"method":"m","params":{}}] is not a UUID member',
            ),
            ('{"id":null,"method":"m","params":{}}', 5033, None),
            ('{"id":"","method":"m","params":{}}', 5033, None),
            ('{"id":"123456789-1-1-1-1","method":"m","params":{}}', 5033, None),
            (
                '{"id":"U","method":"m"}',
                1,
                f'JsonrpcMessage is not a valid Request, Result or Notification: {{"id":"{U}","method":"m"}}',
            ),
            ('{"id":"U","method":"m","params":[]}', 5003, None),
            ('{"id":"U","method":5,"params":{}}', 5010, None),
            ('{"id":"U","result":5}', 5003, None),
            ('{"id":"abc","result":{}}', 1, "Invalid UUID string: abc"),
            ('{"id":null,"error":{"code":1,"message":"Boom"}}', 5010, None),
            ("", 5002, "JSON [null] is not a JSON-Object"),
            ("null", 5002, "JSON [null] is not a JSON-Object"),
            ("[]", 5002, "JSON [[]] is not a JSON-Object"),
            ('{"method":"m","params":{}} x', 5016, None),
            ("garbage", 5016, None),
        ):
            with self.assertRaises(Malformed) as caught:
                parse(text)
            self.assertEqual((text, caught.exception.reason.code), (text, code))
            if message is not None:
                self.assertEqual(str(caught.exception), message)

    def test_kinds(self) -> None:
        self.assertIs(type(parse('{"method":"m","params":{"x":true}}')), Notification)
        self.assertIs(type(parse('{"id":"U","result":{}}')), Success)
        self.assertIs(type(parse('{"id":"U","method":"m","params":{},"result":{}}')), Request)

    def test_errors_of_a_peer_are_rebuilt(self) -> None:
        for given_error, code, message, data in (
            ('{"code":1,"message":"Boom","data":["x",1]}', 1, "Boom", ["Boom"]),
            ('{"code":9999,"message":"Boom"}', 1, "Boom", ["Boom"]),
            ('{"code":"3000","message":"Boom","data":["e"]}', 3000, "Edge [e] is not connected", ["e"]),
            # wire.md 8, quirk 6: never leave the pending request waiting
            ('{"code":3000,"message":"Boom"}', 1, "Boom", ["Boom"]),
            ('{"code":2000,"message":"Boom","data":[5]}', 2000, "Unable to find OpenEMS Component with ID [5]", [5]),
            ('"nonsense"', 1, "Peer sent an invalid error: nonsense", ["Peer sent an invalid error: nonsense"]),
        ):
            failed = parse(f'{{"id":"U","error":{given_error}}}')
            assert isinstance(failed, Failed)
            self.assertEqual((failed.error.code, failed.error.message, failed.error.data), (code, message, data))

    def test_numbers_are_passed_on_as_text(self) -> None:
        message = parse('{"id":"U","method":"m","params":{"a":1.50,"b":1e5,"c":null,"d":12345678901234567890123}}')
        self.assertEqual(bytes(message.params), b'{"a":1.50,"b":1e5,"c":null,"d":12345678901234567890123}')

    def test_bare_nan_becomes_text(self) -> None:
        """reality.md R3"""
        message = parse('{"method":"m","params":{"a":NaN}}')
        self.assertEqual(bytes(message.params), b'{"a":"NaN"}')

    def test_number_without_end(self) -> None:
        with self.assertRaises(ValueError) as caught:
            jsonrpc.loads(b"[" + b"9" * 5000 + b"]")
        self.assertEqual(str(caught.exception), "a number has too many digits")

    def test_deep_nesting_is_refused(self) -> None:
        self.assertRaises(Malformed, jsonrpc.parse, b'{"method":"m","params":' + b"[" * 100_000)
        self.assertRaises(
            Malformed, jsonrpc.parse, b'{"method":"m","params":{"a":NaN,"b":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
        )

    @given(st.binary(max_size=200))
    def test_any_bytes_are_a_message_or_malformed(self, data: bytes) -> None:
        try:
            jsonrpc.parse(data)
        except Malformed:
            pass

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["id", "method", "params", "result", "error", "timeout", "payload", "code", "data", "message"]
                    ),
                    inner,
                )
            ),
            max_leaves=20,
        )
    )
    def test_any_json_is_a_message_or_malformed(self, value: object) -> None:
        try:
            message = jsonrpc.parse(json.dumps(value))
        except Malformed:
            return
        json.loads(message.encode())


class Nested(SynchronousTestCase):
    """wire.md 1.5, 1.10, 9.1"""

    def test_payload_keeps_its_bytes(self) -> None:
        outer = Members(b'{"edgeId":"e","payload":{"id":"%b","method":"m","params":{"a":1.50}}}' % U.encode())
        self.assertEqual(bytes(outer.request().params), b'{"a":1.50}')

    def test_payload_without_id(self) -> None:
        outer = Members(b'{"payload":{"method":"m","params":{}}}')
        with self.assertRaises(OpenemsError) as caught:
            outer.request()
        self.assertEqual(caught.exception.code, errors.JSON_NO_UUID_MEMBER)
        self.assertEqual(outer.request(id_optional=True).id, jsonrpc.NIL_ID)

    def test_qualified_method(self) -> None:
        def rpc(inner: Request) -> Request:
            return Request("edgeRpc", jsonrpc.raw({"edgeId": "e", "payload": json.loads(inner.encode())}), U)

        foo = Request("foo", jsonrpc.EMPTY, U)
        self.assertEqual(jsonrpc.qualified_method(foo), "foo")
        self.assertEqual(jsonrpc.qualified_method(rpc(foo)), "edgeRpc/foo")
        self.assertEqual(jsonrpc.qualified_method(rpc(rpc(foo))), "edgeRpc/edgeRpc/foo")

    def test_simplified(self) -> None:
        inner = {"jsonrpc": "2.0", "id": U, "method": "barMethod", "params": {"lorem": "ipsum"}}
        request = Request("fooMethod", jsonrpc.raw({"foo": "bar", "payload": inner}), U, 123)
        self.assertEqual(
            jsonrpc.simplified(request),
            '{"method":"fooMethod","params":{"foo":"bar","payload":{"method":"barMethod","params":{"lorem":"ipsum"}}},'
            '"timeout":123}',
        )

    def test_simplified_hides_secrets(self) -> None:
        request = Request("authenticateWithPassword", jsonrpc.raw({"username": "u", "password": "p"}), U)
        self.assertEqual(
            jsonrpc.simplified(request),
            '{"method":"authenticateWithPassword","params":{"username":"u","password":"HIDDEN"}}',
        )


class Reading(SynchronousTestCase):
    """wire.md 4.2, 9.4"""

    def test_integers(self) -> None:
        for text, number in (("5", 5), ("5.9", 5), ("-5.9", -5), ('"5"', 5), ("1e3", 1000), ('"+7"', 7)):
            self.assertEqual(Members(f'{{"n":{text}}}'.encode()).integer("n"), number)
        # 2147483648 wraps in Java; wire.md 8, quirk 24: refuse it
        for text in ('"5.9"', '" 5"', "true", "null", "[5]", "2147483648", '"99999999999999999999999"'):
            with self.assertRaises(OpenemsError) as caught:
                Members(f'{{"n":{text}}}'.encode()).integer("n")
            self.assertEqual((text, caught.exception.code), (text, 5001))

    def test_booleans(self) -> None:
        for text, flag in (("true", True), ('"TRUE"', True), ('"False"', False)):
            self.assertIs(Members(f'{{"b":{text}}}'.encode()).boolean("b"), flag)
        for text in ("1", '"1"', "null"):
            self.assertRaises(OpenemsError, Members(f'{{"b":{text}}}'.encode()).boolean, "b")

    def test_dates(self) -> None:
        for text in ("2026-04-01", "2026-4-1", "2026-04-01-99"):
            self.assertEqual(Members({"d": text}).date("d").isoformat(), "2026-04-01")
        for text, code in (("2026-04", 5008), ("foo", 5008), ("2026-02-30", 1)):
            with self.assertRaises(OpenemsError) as caught:
                Members({"d": text}).date("d")
            self.assertEqual((text, caught.exception.code), (text, code))

    def test_missing_members_are_named(self) -> None:
        for read, code, message in (
            ("string", 5010, "JSON [x:{}] is not a String member"),
            ("integer", 5001, "JSON [x:{}] is not an Integer"),
            ("boolean", 5012, "JSON [x:{}] is not a Boolean member"),
            ("object", 5003, "JSON [x] ist not a member of JSON-Object [{}]"),
            ("array", 5007, "JSON [x:{}] is not JSON-Array"),
            ("uuid", 5033, "JSON [x:{}] is not a UUID member"),
            ("primitive", 5005, "JSON [x] is not a JSON-Primitive member of JSON-Object [{}]"),
            ("any", 5000, "JSON [x] is not a member of [{}]"),
        ):
            with self.assertRaises(OpenemsError) as caught:
                getattr(Members(b"{}"), read)("x")
            self.assertEqual((caught.exception.code, caught.exception.message), (code, message))


class Writing(SynchronousTestCase):
    def test_strings(self) -> None:
        """wire.md 9.4, last rows"""
        self.assertEqual(
            jsonrpc.dumps("a\"b\\c/d\n\t\x01\u2028<>&='ä").decode(), '"a\\"b\\\\c/d\\n\\t\\u0001\\u2028<>&=\'ä"'
        )

    def test_nan_becomes_null(self) -> None:
        self.assertEqual(jsonrpc.dumps([float("nan"), float("inf")]), b"[null,null]")

    def test_errors(self) -> None:
        """wire.md 9.3"""
        for error, body in (
            (errors.generic("hello"), {"code": 1, "message": "hello", "data": ["hello"]}),
            (OpenemsError(1003), {"code": 1003, "message": "Authentication failed", "data": []}),
            (OpenemsError(1003, "extra"), {"code": 1003, "message": "Authentication failed", "data": ["extra"]}),
            (
                OpenemsError(1002, "res", "GUEST"),
                {
                    "code": 1002,
                    "message": "Access to this resource [res] is denied for User with Role [GUEST]",
                    "data": ["res", "GUEST"],
                },
            ),
            (
                OpenemsError(4000, "U"),
                {"code": 4000, "message": "A Request with this ID [U] had already been existing", "data": ["U"]},
            ),
        ):
            self.assertEqual(json.loads(Failed(U, error).encode())["error"], body)

    def test_short(self) -> None:
        self.assertEqual(errors.short("test to short string", 5), "te...")
        self.assertEqual(errors.short("x" * 97, 100), "x" * 97)
        self.assertEqual(errors.short("x" * 98, 100), "x" * 97 + "...")


class FoundByFuzzing(SynchronousTestCase):
    """Inputs of tests/fuzz that once got out of the border as another exception."""

    def test_half_a_surrogate_pair_in_an_id(self) -> None:
        with self.assertRaises(jsonrpc.Malformed):
            jsonrpc.parse(b'{"id":"b514f626-d5ae-4979-99c6-a2b4bf4e\\udb71","error":{"code":1,"message":"m"}}')
