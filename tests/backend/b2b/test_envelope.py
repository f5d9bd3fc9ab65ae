from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.b2b.envelope import BadEnvelope, parse
from openems.common.jsonrpc import NIL_ID, Request, loads

NEW = "b8ad3f7e-5b17-4c8e-9d55-0e2f2a6f8e01"


def read(body: Any) -> Request:
    return parse(body if isinstance(body, bytes) else json.dumps(body).encode(), lambda: NEW)


class EnvelopeTest(SynchronousTestCase):
    """b2b.md 2.4"""

    def test_complete(self) -> None:
        request = read({"jsonrpc": "1.0", "id": NIL_ID.upper(), "method": "x", "params": {"a": 1}, "timeout": 5})
        self.assertEqual((request.method, request.id, request.timeout), ("x", NIL_ID, 5))

    def test_id_is_added(self) -> None:
        self.assertEqual(read({"method": "x", "params": {}}).id, NEW)

    def test_payload_is_completed_once(self) -> None:
        inner = {"method": "y", "params": {"payload": {"method": "z", "params": {}}}}
        params = loads(read({"method": "edgeRpc", "params": {"edgeId": "e", "payload": inner}}).params)
        self.assertEqual(params, {"edgeId": "e", "payload": {"jsonrpc": "2.0", "id": NEW, **inner}})

    def test_payload_keeps_what_it_has(self) -> None:
        for payload in (
            {"id": "1-1-1-1-1", "jsonrpc": "2.0", "method": "y"},
            {"id": 5, "jsonrpc": None},
        ):
            self.assertEqual(loads(read({"method": "x", "params": {"payload": payload}}).params), {"payload": payload})

    def test_empty_payload(self) -> None:
        params = bytes(read(b'{"method":"x","params":{"payload": { }}}').params)
        self.assertEqual(json.loads(params), {"payload": {"jsonrpc": "2.0", "id": NEW}})

    def test_bytes_are_kept(self) -> None:
        params = b'{ "n":12345678901234567890.10 , "payload":{ "b":1.0e+2,"a":"\\u00e4" } }'
        kept = bytes(read(b'{"method":"x","params":%b}' % params).params)
        self.assertIn(b'"b":1.0e+2,"a":"\\u00e4"', kept)
        self.assertIn(b"12345678901234567890.10", kept)
        plain = b'{ "n":1.10,\t"m":[ ] }'
        self.assertEqual(bytes(read(b'{"method":"x","params":%b}' % plain).params), plain)

    def test_id_of_a_wrong_request(self) -> None:
        for body in ({"id": NEW, "method": "x"}, {"id": NEW, "method": 5, "params": {}}, {"id": NEW, "result": {}}):
            self.assertEqual(self.assertRaises(BadEnvelope, read, body).id, NEW)
        self.assertEqual(self.assertRaises(BadEnvelope, read, {"id": "x", "method": "x", "params": {}}).id, NIL_ID)

    @given(st.binary())
    def test_any_bytes(self, body: bytes) -> None:
        try:
            read(body)
        except BadEnvelope:
            pass

    @given(
        st.dictionaries(
            st.sampled_from(["id", "method", "params", "timeout", "payload", "result", "error", "jsonrpc"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["payload", "id", "x"]), inner),
                max_leaves=5,
            ),
        )
    )
    def test_any_members(self, body: dict[str, Any]) -> None:
        try:
            request = read(body)
        except BadEnvelope:
            return
        self.assertEqual(request.method, body["method"])
        params = loads(request.params)
        payload = body["params"].get("payload")
        if isinstance(payload, dict):
            payload = {"jsonrpc": "2.0", "id": NEW, **payload}
        self.assertEqual(params, {**body["params"], **({} if payload is None else {"payload": payload})})
