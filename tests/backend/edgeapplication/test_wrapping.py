"""What is spliced is exactly one message, whatever an edge sends (edge.md 9.6)."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.edgeapplication import wrapping
from openems.common import jsonrpc
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Notification, Request, new_id, raw

from .world import World, edge_rpc, notification, request

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
PARAMS = st.dictionaries(st.text(), VALUES, max_size=5)


def texts() -> st.SearchStrategy[bytes]:
    """Messages, and messages with bytes changed, cut, doubled."""
    good = st.builds(
        lambda method, params, more: json.dumps(
            {"jsonrpc": "2.0", "method": method, "params": params, **more}
        ).encode(),
        st.text(),
        PARAMS,
        st.sampled_from([{}, {"extra": 1}, {"id": None}, {"id": new_id()}, {"params": []}, {"method": 5}]),
    )

    def damaged(text: bytes, position: int, length: int, filling: bytes) -> bytes:
        at = position % (len(text) + 1)
        return text[:at] + filling + text[at + length :]

    filling = st.binary(max_size=4) | st.sampled_from(
        [b'"', b"}", b'}},"edgeId":"edge1"', b"\xff", b"NaN", b"[" * 2000]
    )
    return good | st.builds(damaged, good, st.integers(0, 1000), st.integers(0, 10), filling)


class Splicing(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(texts(), st.text(min_size=1))
    @example(b'{"jsonrpc":"2.0","method":"x","params":{}}}}{{', "edge0")
    @example(b'{"jsonrpc":"2.0","method":"x","params":{"a":"\xff"}}', "edge0")
    @example(b'{"jsonrpc":"2.0","method":"x","params":{"a":"\xed\xa0\x80"}}', "edge0")
    @example(b'{"jsonrpc":"2.0","method":"x","params":{"a":' + b"[" * 5000, "edge0")
    @example(b'{"jsonrpc":"2.0","method":"x","params":{"a":NaN,"b":"\\ud800"}}', "edge0")
    @example(b'{"jsonrpc":"2.0","method":"x","params":{"a":NaN,"b":"\\ud800"},"id":"1-1-1-1-1"}', "edge0")
    def test_one_message_or_none(self, text: bytes, edge_id: str) -> None:
        world = World({"key0": edge_id})
        world.edge().receive(text)
        for sent in world.manager.sent:
            message = json.loads(sent.decode())  # valid UTF-8, valid JSON
            self.assertEqual(message["method"], "edgeRpc")
            self.assertEqual(set(message["params"]), {"edgeId", "payload"})
            self.assertEqual(message["params"]["edgeId"], edge_id)
            self.assertLessEqual(set(message["params"]["payload"]), {"jsonrpc", "method", "params", "id", "timeout"})
        self.assertLessEqual(len(world.manager.sent), 1)

    @settings(max_examples=200, deadline=None)
    @given(st.text(), PARAMS)
    def test_every_notification_goes_up(self, method: str, params: dict[str, Any]) -> None:
        world = World()
        world.edge().receive(json.dumps(notification(method, params)))
        self.assertEqual(world.up(), [edge_rpc("edge0", notification(method, params))])

    @settings(max_examples=200, deadline=None)
    @given(st.text(), PARAMS, PARAMS)
    def test_every_request_goes_down_and_its_answer_up(
        self, method: str, params: dict[str, Any], result: dict[str, Any]
    ) -> None:
        world = World()
        edge = world.edge()
        payload = {"jsonrpc": "2.0", "method": method, "params": params, "id": new_id()}
        asked = request("edgeRpc", {"edgeId": "edge0", "payload": payload})
        world.manager.receive(json.dumps(asked))
        self.assertEqual(edge.take(), [payload])
        edge.receive(json.dumps({"id": payload["id"], "result": result}))
        answer = {"jsonrpc": "2.0", "id": payload["id"], "result": result}
        self.assertEqual(world.up(), [{"jsonrpc": "2.0", "id": asked["id"], "result": {"payload": answer}}])


class Parts(SynchronousTestCase):
    def test_plain(self) -> None:
        for text in (
            '{"jsonrpc":"2.0","method":"x","params":{}}',
            ' {"params" : {"a":1e400} , "jsonrpc":"2.0","method":"x" } ',
        ):
            self.assertTrue(wrapping.is_plain_notification(text.encode()), text)
        for text in (
            '{"method":"x","params":{}}',
            '{"jsonrpc":"1.0","method":"x","params":{}}',
            '{"jsonrpc":"2.0","method":5,"params":{}}',
            '{"jsonrpc":"2.0","method":"x","params":[]}',
            '{"jsonrpc":"2.0","method":"x","params":null}',
            '{"jsonrpc":"2.0","method":"x","params":{},"id":"1"}',
            '{"jsonrpc":"2.0","method":"x","params":{"a":NaN}}',
            '{"jsonrpc":"2.0","method":"x"}',
            "",
        ):
            self.assertFalse(wrapping.is_plain_notification(text.encode()), text)

    def test_a_request_keeps_its_timeout_outside_and_inside(self) -> None:
        text = wrapping.request("edge0", Request("foo", Raw(b'{"a":1.0}'), "i", 5), "o")
        self.assertEqual(
            text,
            b'{"jsonrpc":"2.0","method":"edgeRpc","params":{"edgeId":"edge0","payload":'
            b'{"jsonrpc":"2.0","method":"foo","params":{"a":1.0},"id":"i","timeout":5}},"id":"o","timeout":5}',
        )

    def test_result_of_answer(self) -> None:
        self.assertEqual(bytes(wrapping.result_of_answer(Raw(b'{"payload":{"result":{"a":1.0}}}'))), b'{"a":1.0}')
        for text in (b"{}", b'{"payload":5}', b'{"payload":{}}', b'{"payload":{"result":null}}'):
            with self.assertRaises(OpenemsError) as failed:
                wrapping.result_of_answer(Raw(text))
            self.assertEqual(failed.exception.code, 5003)

    def test_longest_timeout(self) -> None:
        def authenticated(timeout: Any) -> Request:
            return Request("authenticatedRpc", raw({"user": {}, "payload": {"timeout": timeout}}), "i")

        for outer, payload, seconds in (
            (None, Request("x", raw({}), "i"), None),
            (3, Request("x", raw({}), "i", 7), 7),
            (9, Request("x", raw({}), "i", 7), 9),
            (None, authenticated(600), 600),
            (None, authenticated("nonsense"), None),
            (-1, Request("x", raw({}), "i", 0), None),
        ):
            self.assertEqual(wrapping.longest_timeout(outer, payload), seconds)

    def test_keys(self) -> None:
        keys = {"5f0c1d2e-edge0": "edge0", "77aa-edge7": "edge7"}
        told = Notification("updateMetadataCache", raw({"apikeysToEdgeIds": keys}))
        self.assertEqual(wrapping.apikeys(told), keys)
        for params in ({}, {"apikeysToEdgeIds": []}, {"apikeysToEdgeIds": {"a": 5}}):
            self.assertRaises(OpenemsError, wrapping.apikeys, Notification("updateMetadataCache", raw(params)))

    def test_head_and_tail(self) -> None:
        payload = Notification("x", Raw(b"{}")).encode()
        text = wrapping.head('e"1') + payload + wrapping.TAIL
        self.assertEqual(jsonrpc.loads(text)["params"]["edgeId"], 'e"1')
        self.assertLess(len(text) - len(payload) - len('"e\\"1"'), wrapping.OVERHEAD)
