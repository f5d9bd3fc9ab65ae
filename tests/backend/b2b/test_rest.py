from __future__ import annotations

import base64
import json
from typing import Any

from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from openems.common.jsonrpc import NIL_ID, canonical_id
from tests.backend.b2b.http import RestWorld

ID = "11111111-1111-4111-8111-111111111111"
STATUS = {"method": "getEdgesStatus", "params": {"edgeIds": ["edge4"]}}


class VectorTest(SynchronousTestCase):
    """b2b.md 8, REST; with the real code, message, data and id (b2b.md 7, 2)."""

    def setUp(self) -> None:
        self.world = RestWorld()

    def failed(self, body: Any, code: int, message: str, data: list[Any], id: str | None = None) -> None:
        reply = self.world.ask(body)
        self.assertEqual(reply.status, 400)
        self.assertEqual(reply.headers["content-type"], "application/json")
        self.assertEqual(reply.error, (code, message, data))
        self.assertEqual(list(reply.json), ["jsonrpc", "id", "error"])
        if id is not None:
            self.assertEqual(reply.json["id"], id)
        else:
            self.assertIsNotNone(canonical_id(reply.json["id"]))

    def test_no_authorization(self) -> None:
        reply = self.world.ask(STATUS, auth=None)
        self.assertEqual(reply.status, 401)
        self.assertEqual(reply.headers["www-authenticate"], 'Basic realm="OpenEMS Backend", charset="UTF-8"')
        self.assertEqual(reply.json["id"], NIL_ID)
        self.assertEqual(reply.error, (1003, "Authentication failed", []))

    def test_odd_authorization(self) -> None:
        text = base64.b64encode(b" alice : s3cret ").decode()
        self.assertEqual(self.world.ask(STATUS, auth=f"bASIC {text} extra").status, 200)
        self.assertEqual(self.world.ask(STATUS, auth=f"Basic  {text}").status, 401)

    def test_status(self) -> None:
        reply = self.world.call("getEdgesStatus", {"edgeIds": ["edge4", "edge4"]})
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.json["result"], {"edge4": {"online": True}})
        self.assertNotEqual(reply.json["id"], NIL_ID)
        self.assertEqual(
            self.world.call("getEdgesStatus", {"edgeIds": ["edge7"]}).json["result"], {"edge7": {"online": False}}
        )

    def test_short_id(self) -> None:
        reply = self.world.call("getEdgesStatus", {"edgeIds": []}, id="1-2-3-4-5")
        self.assertEqual(reply.json, {"jsonrpc": "2.0", "id": "00000001-0002-0003-0004-000000000005", "result": {}})

    def test_envelopes(self) -> None:
        text = '{"method": "getEdgesStatus"}'
        self.failed(text, 5003, f"JSON [params] ist not a member of JSON-Object [{text}]", ["params", text], NIL_ID)
        text = '{"method": "x", "params": []}'
        self.failed(text, 5003, f"JSON [params] ist not a member of JSON-Object [{text}]", ["params", text], NIL_ID)
        self.failed(
            {"method": "getEdgesStatus", "params": {}}, 5007, "JSON [edgeIds:{}] is not JSON-Array", ["edgeIds", "{}"]
        )
        text = '{"id":5,"method":"x","params":{}}'
        self.failed(text, 5033, f"JSON [id:{text}] is not a UUID member", ["id", text], NIL_ID)
        self.failed("", 5002, "JSON [null] is not a JSON-Object", ["null"], NIL_ID)
        self.failed("[1]", 5002, "JSON [[1]] is not a JSON-Object", ["[1]"], NIL_ID)
        text = "Only JSON-RPC Request is supported here."
        self.failed({"id": ID, "result": {}}, 1, text, [text], ID)
        self.failed({"id": ID, "error": {}}, 1, text, [text], ID)

    def test_roles(self) -> None:
        self.failed(
            {"id": ID, "method": "getEdgesStatus", "params": {"edgeIds": ["edge9"]}},
            1005,
            "Access to this resource [getEdgesStatus] is denied. Role for User [alice] is not defined",
            ["getEdgesStatus", "alice"],
            ID,
        )
        self.failed(
            {"method": "setGridConnSchedule", "params": {"id": "edge7", "schedule": []}},
            1002,
            "Access to this resource [setGridConnSchedule] is denied for User with Role [GUEST]",
            ["setGridConnSchedule", "GUEST"],
        )

    def test_methods(self) -> None:
        self.failed(
            {"method": "getEdgesChannelsValues", "params": {"ids": ["edge4"], "channels": ["nochannel"]}},
            1000,
            "This [nochannel] is not a valid channel address",
            ["nochannel"],
        )
        self.failed(
            {"method": "subscribeEdgesChannels", "params": {}},
            4001,
            "Unhandled JSON-RPC method [subscribeEdgesChannels]",
            ["subscribeEdgesChannels"],
        )
        self.failed(
            {"id": ID, "method": "edgeRpc", "params": {"edgeId": "edge7", "payload": {"method": "foo", "params": {}}}},
            3000,
            "Edge [edge7] is not connected",
            ["edge7"],
            ID,
        )

    def test_values(self) -> None:
        reply = self.world.call(
            "getEdgesChannelsValues", {"ids": ["edge7", "edge4"], "channels": ["_sum/EssSoc", "a/b"]}
        )
        self.assertEqual(
            reply.body.partition(b'"result":')[2],
            b'{"edge4":{"_sum/EssSoc":61,"a/b":null},"edge7":{"_sum/EssSoc":null,"a/b":null}}}',
        )

    def test_inner_id_is_made_up(self) -> None:
        self.world.metadata.configs["edge4"] = Raw(b'{"components":{"_sum":{"n":1.10}},"factories":{}}')
        reply = self.world.call("edgeRpc", {"edgeId": "edge4", "payload": {"method": "getEdgeConfig", "params": {}}})
        payload = reply.json["result"]["payload"]
        self.assertEqual(canonical_id(payload["id"]), payload["id"])
        self.assertEqual(sorted(payload["result"]), ["components", "factories"])
        self.assertIn(b'{"n":1.10}', reply.body)

    def test_grid_conn_schedule(self) -> None:
        """b2b.md 4.3: the nested envelope"""
        entries = [
            {"startTimestamp": 1775023200, "duration": 900, "activePowerSetPoint": 0},
            {"startTimestamp": 1775024100, "duration": 900, "activePowerSetPoint": -1500},
        ]
        reply = self.world.call("setGridConnSchedule", {"id": "edge4", "schedule": entries})
        self.assertEqual(sorted(reply.json["result"]), ["id", "jsonrpc", "result"])
        sent = json.loads(bytes(self.world.edges.requests[0][3].params))
        self.assertEqual(sent["componentId"], "ctrlBalancingSchedule0")
        self.assertEqual(sent["payload"]["params"]["schedule"], entries[::-1])
