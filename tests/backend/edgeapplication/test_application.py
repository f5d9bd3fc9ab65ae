"""The edge application between edges and manager (edge.md 2, vectors 9.5 and 9.6)."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.edgeapplication.application import MAX_ASKING
from openems.backend.edgeapplication.manager import GRACE, PATIENCE
from openems.common.jsonrpc import new_id

from .world import World, data, edge_rpc, notification, request


class Listener(SynchronousTestCase):
    def test_9_5(self) -> None:
        world = World({}, keep_edges=False)
        self.assertFalse(world.listening)
        world.keys({"k": "edge0"})
        self.assertTrue(world.listening)
        self.assertFalse(world.edge("K").is_open)
        self.assertFalse(world.edge(None).is_open)
        edge = world.edge("k")
        self.assertTrue(edge.is_open)
        self.assertEqual(edge.sent, [])
        world.lose()
        self.assertFalse(world.listening)
        world.connect()
        self.assertTrue(world.listening)  # the old list
        world.keys({})
        self.assertFalse(world.listening)

    def test_before_the_manager_was_there(self) -> None:
        world = World(connect=False)
        self.assertFalse(world.listening)
        self.assertFalse(world.edge().is_open)
        world.connect()
        self.assertFalse(world.listening)

    def test_edges_stay_while_the_manager_is_away(self) -> None:
        world = World()
        edge = world.edge()
        world.lose()
        self.assertTrue(world.listening)
        self.assertTrue(edge.is_open)
        self.assertTrue(world.edge("key1").is_open)

    def test_a_port_in_use_is_tried_again(self) -> None:
        world = World(connect=False)
        attempts: list[int] = []

        async def busy(port: int, *_: Any, **__: Any) -> int:
            from twisted.internet.error import CannotListenError

            attempts.append(port)
            raise CannotListenError("", port, OSError("in use"))

        world.application._server.listen = busy  # type: ignore[method-assign]
        world.connect()
        world.keys({"k": "edge0"})
        self.assertEqual(world.application.status().trouble, "port 8081 cannot be opened: in use")
        world.reactor.advance(5)
        self.assertEqual(attempts, [8081, 8081])

    def test_keys_that_are_gone_end_their_edges(self) -> None:
        world = World()
        edges = [world.edge("key0"), world.edge("key1")]
        world.keys({"key0": "edge0", "key1": "edge7"})
        self.assertEqual([edge.is_open for edge in edges], [True, False])
        self.assertEqual(edges[1].close_code, 1000)

    def test_nonsense_keys_change_nothing(self) -> None:
        world = World()
        for keys in ([], None, {"a": 1}, "x"):
            world.keys(keys)  # type: ignore[arg-type]
        self.assertTrue(world.edge().is_open)


class Up(SynchronousTestCase):
    def test_9_6_a_notification(self) -> None:
        world = World()
        edge = world.edge()
        edge.receive('{"jsonrpc":"2.0","method":"x","params":{"a":null},"extra":1}')
        self.assertEqual(
            world.manager.sent[-1].decode(),
            '{"jsonrpc":"2.0","method":"edgeRpc","params":{"edgeId":"edge0",'
            '"payload":{"jsonrpc":"2.0","method":"x","params":{"a":null}}}}',
        )

    def test_bytes_are_kept(self) -> None:
        world = World()
        edge = world.edge()
        text = '{"jsonrpc":"2.0","method":"x","params":{"b":1.0E2,"a":12345678901234567890,"ä":"\\u00e4 ö"}}'
        edge.receive(text)
        self.assertIn(text, world.manager.sent[-1].decode())

    def test_r3_nan(self) -> None:
        world = World()
        world.edge().receive('{"jsonrpc":"2.0","method":"x","params":{"a":NaN}}')
        self.assertEqual(world.up()[0]["params"]["payload"]["params"], {"a": "NaN"})

    def test_half_a_surrogate_pair(self) -> None:
        """It can be written as an escape, but not in UTF-8: it must not end the connection of all edges."""
        world = World()
        world.edge().receive('{"jsonrpc":"2.0","method":"x","params":{"a":"\\ud800","b":1}}')
        self.assertEqual(world.up()[0]["params"]["payload"]["params"], {"a": "?", "b": 1})

    def test_9_6_a_request(self) -> None:
        world = World()
        edge = world.edge()
        asked = request("foo", timeout=5)
        edge.receive(asked)
        [up] = world.up()
        self.assertNotEqual(up["id"], asked["id"])
        self.assertEqual(up["timeout"], 5)
        self.assertEqual(up["params"], {"edgeId": "edge0", "payload": asked})
        error = {"code": 4001, "message": "Unhandled JSON-RPC method [foo]", "data": ["foo"]}
        world.manager.receive({"jsonrpc": "2.0", "id": up["id"], "error": error})
        self.assertEqual(edge.take(), [{"jsonrpc": "2.0", "id": asked["id"], "error": error}])

    def ask(self, world: World, reply: dict[str, Any]) -> dict[str, Any]:
        edge = world.edge()
        asked = request("checkSetupPassword", {"setupPassword": "x"})
        edge.receive(asked)
        [up] = world.up()
        world.manager.receive({"jsonrpc": "2.0", "id": up["id"], **reply})
        [answer] = edge.take()
        self.assertEqual(answer["id"], asked["id"])
        return answer

    def test_the_result_is_unwrapped(self) -> None:
        payload = {"jsonrpc": "2.0", "id": new_id(), "result": {"a": 1}}
        self.assertEqual(self.ask(World(), {"result": {"payload": payload}})["result"], {"a": 1})

    def test_a_result_without_payload(self) -> None:
        error = self.ask(World(), {"result": {}})["error"]
        self.assertEqual((error["code"], error["data"]), (5003, ["payload", "{}"]))

    def test_a_request_without_a_manager(self) -> None:
        world = World()
        edge = world.edge()
        world.lose()
        edge.receive(request("foo"))
        self.assertEqual(edge.take()[0]["error"]["code"], 4004)

    def test_a_manager_that_leaves_while_asked(self) -> None:
        world = World()
        edge = world.edge()
        edge.receive(request("foo"))
        world.lose()
        self.assertEqual(edge.take()[0]["error"]["message"], "Websocket connection closed")

    def test_a_manager_that_never_answers(self) -> None:
        world = World()
        edge = world.edge()
        edge.receive(request("foo"))
        world.reactor.advance(PATIENCE)
        self.assertEqual(edge.take()[0]["error"]["code"], 1)
        self.assertEqual(world.application.manager._pending, {})

    def test_one_that_asks_without_end_leaves_room_for_others(self) -> None:
        world = World()
        bad, good = world.edge("key0"), world.edge("key1")
        for _ in range(MAX_ASKING + 10):
            bad.receive(request("foo"))
        self.assertEqual({reply["error"]["code"] for reply in bad.take()}, {4005})
        good.receive(request("foo"))
        self.assertEqual(len(world.up()), MAX_ASKING + 1)
        bad.lose()
        self.assertEqual(len(world.application.manager._pending), 1)

    def test_bad_frames_cost_only_themselves(self) -> None:
        world = World()
        bad, good = world.edge("key0"), world.edge("key1")
        nonsense = ["{", "[]", "5", "", '{"jsonrpc":"2.0","method":"x"}', '{"method":"x","params":[]}', '{"id":1}']
        nonsense += ['{"jsonrpc":"2.0","method":"x","params":{}}}}', '{"jsonrpc":"2.0","method":"x","params":{"a":1,}}']
        for text in nonsense:
            bad.receive(text)
            good.receive(data(1))
        self.assertEqual(len(world.up()), len(nonsense))
        self.assertTrue(bad.is_open)
        self.assertEqual(bad.sent, [])
        self.assertEqual(world.application.status().invalid_messages, len(nonsense))

    def test_invalid_utf8_ends_that_edge_only(self) -> None:
        world = World()
        bad, good = world.edge("key0"), world.edge("key1")
        bad.receive(b'{"jsonrpc":"2.0","method":"x","params":{"a":"\xff"}}')
        self.assertEqual(bad.close_code, 1007)
        self.assertTrue(good.is_open and world.manager.is_open)
        self.assertEqual(world.up(), [])

    def test_nothing_breaks_out_of_its_envelope(self) -> None:
        world = World()
        world.edge().receive('{"jsonrpc":"2.0","method":"x","params":{}},"edgeId":"edge1"}')
        world.edge().receive('{"jsonrpc":"2.0","method":"x","params":{}}}{')
        self.assertEqual(world.up(), [])

    def test_longer_than_the_manager_takes(self) -> None:
        world = World(max_message_size=65_536)
        world.edge().receive(notification("x", {"a": "y" * 65_500}))
        self.assertEqual(world.up(), [])
        self.assertEqual(world.application.status().invalid_messages, 1)


class Down(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.edge = self.world.edge()

    def test_a_request(self) -> None:
        payload = request("authenticatedRpc", {"user": {}})
        asked = request("edgeRpc", {"edgeId": "edge0", "payload": payload})
        self.world.manager.receive(asked)
        self.assertEqual(self.edge.take(), [payload])
        reply = {"jsonrpc": "2.0", "id": payload["id"], "result": {"payload": {"a": 1.0}}}
        self.edge.receive(reply)
        self.assertEqual(self.world.up(), [{"jsonrpc": "2.0", "id": asked["id"], "result": {"payload": reply}}])

    def test_an_error(self) -> None:
        payload = request("authenticatedRpc")
        asked = request("edgeRpc", {"edgeId": "edge0", "payload": payload})
        self.world.manager.receive(asked)
        error = {"code": 1002, "message": "x", "data": ["updateComponentConfig", "GUEST"]}
        self.edge.receive({"jsonrpc": "2.0", "id": payload["id"], "error": error})
        [reply] = self.world.up()
        self.assertEqual((reply["id"], reply["error"]["code"]), (asked["id"], 1002))
        self.assertEqual(reply["error"]["data"], error["data"])

    def error(self, message: dict[str, Any]) -> tuple[int, Any]:
        self.world.manager.receive(message)
        [reply] = self.world.up()
        self.assertEqual(reply["id"], message["id"])
        return reply["error"]["code"], reply["error"]["data"]

    def test_9_6_not_connected_here(self) -> None:
        asked = request("edgeRpc", {"edgeId": "edge1", "payload": request("x")})
        self.assertEqual(self.error(asked), (4004, []))

    def test_9_6_an_unknown_method(self) -> None:
        self.assertEqual(self.error(request("bar")), (4001, ["bar"]))

    def test_nonsense(self) -> None:
        for params in ({}, {"edgeId": 5}, {"edgeId": "edge0"}, {"edgeId": "edge0", "payload": {}}):
            code, _ = self.error(request("edgeRpc", params))
            self.assertIn(code, range(5000, 5034), params)
        self.assertEqual(self.edge.sent, [])

    def test_the_edge_leaves_while_asked(self) -> None:
        asked = request("edgeRpc", {"edgeId": "edge0", "payload": request("x")})
        self.world.manager.receive(asked)
        self.edge.lose()
        self.assertEqual(self.world.up()[-1]["error"]["message"], "Websocket connection closed")

    def test_an_edge_that_never_answers(self) -> None:
        for more, wait in (({}, PATIENCE), ({"timeout": 20}, 20 + GRACE)):
            self.world.manager.receive(request("edgeRpc", {"edgeId": "edge0", "payload": request("x", **more)}))
            self.world.reactor.advance(wait - 1)
            self.assertEqual(self.world.up(), [])
            self.world.reactor.advance(1)
            self.assertEqual(self.world.up()[-1]["error"]["code"], 1)
        inner = request("authenticatedRpc", {"user": {}, "payload": request("y", timeout=600)})
        self.world.manager.receive(request("edgeRpc", {"edgeId": "edge0", "payload": inner}))
        self.world.reactor.advance(599)
        self.assertEqual(self.world.up(), [])
        self.world.reactor.advance(GRACE + 1)
        self.assertEqual(len(self.world.up()), 1)

    def test_notifications(self) -> None:
        inner = notification("x", {"a": 12345678901234567890})
        self.world.manager.receive(edge_rpc("edge0", inner))
        self.world.manager.receive(edge_rpc("edge1", inner))
        self.world.manager.receive(notification("nope", {}))
        self.world.manager.receive(edge_rpc("edge0", 5))
        self.assertEqual(self.edge.take(), [inner])
        self.assertTrue(self.world.manager.is_open)

    def test_the_newest_connection_gets_the_requests(self) -> None:
        newer = self.world.edge()
        self.assertEqual(self.edge.close_code, 1000)
        self.edge.lose()
        self.world.manager.receive(request("edgeRpc", {"edgeId": "edge0", "payload": request("x")}))
        self.assertEqual(len(newer.take()), 1)


class Lists(SynchronousTestCase):
    def test_only_changes(self) -> None:
        world = World()
        world.tick()
        self.assertEqual(world.up(), [])
        edge = world.edge()
        world.tick()
        world.tick()
        [told] = world.up()
        self.assertEqual(told["method"], "connectedEdges")
        self.assertEqual(told["params"]["edgeIds"], ["edge0"])
        self.assertEqual(
            set(told["params"]["metrics"]), {"PoolSize", "MaxPoolSize", "Active", "Pending", "Completed", "Connections"}
        )
        edge.lose()
        world.tick()
        self.assertEqual(world.up()[0]["params"]["edgeIds"], [])

    def test_at_once_before_the_first_message(self) -> None:
        """A manager may drop what comes from an edge it was not told of; many edges at once are told of together."""
        world = World({f"key{n}": f"edge{n}" for n in range(100)})
        world.reactor.advance(10)
        world.edge("key0", told=True).receive(data(1))
        self.assertEqual([m["method"] for m in world.up()], ["connectedEdges", "edgeRpc"])
        for number in range(1, 100):
            world.edge(f"key{number}", told=True)
        self.assertEqual(world.up(), [])
        world.tick()
        self.assertEqual(len(world.up()[0]["params"]["edgeIds"]), 100)

    def test_at_once_after_a_reconnect(self) -> None:
        world = World()
        edge = world.edge()
        world.lose()
        edge.receive(data(1))
        world.connect()
        self.assertEqual([m["method"] for m in world.up()], ["connectedEdges", "edgeRpc"])

    def test_one_loop(self) -> None:
        world = World()
        world.application._lists.start(1.0, now=False)
        self.addCleanup(world.application._lists.stop)
        world.edge()
        world.reactor.advance(1)
        self.assertEqual(len(world.up()), 1)


class Away(SynchronousTestCase):
    def test_nothing_is_lost_within_the_bound(self) -> None:
        world = World()
        edges = [world.edge("key0"), world.edge("key1")]
        world.lose()
        for number in range(1000):
            edges[number % 2].receive(data(number))
        world.connect()
        got = [m["params"] for m in world.up() if m["method"] == "edgeRpc"]
        values = [next(iter(m["payload"]["params"].values()))["c/a"] for m in got]
        self.assertEqual(values, list(range(1000)))
        self.assertEqual(world.application.status().dropped_messages, 0)
        self.assertEqual(world.application.status().reconnects, 1)

    def test_then_the_oldest_go(self) -> None:
        world = World(buffer_bytes=10_000)
        edge = world.edge()
        world.lose()
        for number in range(100):
            edge.receive(data(number))
        dropped = world.application.status().dropped_messages
        self.assertGreater(dropped, 0)
        self.assertLessEqual(world.application.status().waiting_bytes, 10_000)
        world.connect()
        got = [m for m in world.up() if m["method"] == "edgeRpc"]
        self.assertEqual(len(got), 100 - dropped)
        self.assertEqual(got[-1]["params"]["payload"], data(99))

    def test_requests_and_answers_do_not_outlive_their_connection(self) -> None:
        world = World()
        edge = world.edge()
        payload = request("x")
        world.manager.receive(request("edgeRpc", {"edgeId": "edge0", "payload": payload}))
        world.application.manager_flows(world.application.manager, False)
        edge.receive(request("foo"))
        edge.receive(data(1))
        edge.receive({"jsonrpc": "2.0", "id": payload["id"], "result": {}})
        world.lose()
        world.connect()
        sent = [json.dumps(m) for m in world.up()]
        self.assertEqual(len(sent), 2)
        self.assertIn("connectedEdges", sent[0])
        self.assertIn("timestampedData", sent[1])


class Slow(SynchronousTestCase):
    def test_a_slow_manager_slows_the_edges(self) -> None:
        world = World()
        busy, silent = world.edge("key0"), world.edge("key1")
        world.application.manager_flows(world.application.manager, False)
        big = notification("timestampedData", {"1": {"c/a": "x" * 100_000}})
        sent = 0
        while busy.reading:
            busy.receive(big)
            sent += 1
            self.assertLess(sent, 1000)
        self.assertTrue(silent.reading)
        self.assertEqual(world.application.status().paused_edges, 1)
        self.assertEqual(world.up(), [])
        world.application.manager_flows(world.application.manager, True)
        self.assertTrue(busy.reading)
        self.assertEqual(len(world.up()), sent)
        self.assertEqual(world.application.status().dropped_messages, 0)

    def test_many_edges_with_little_each(self) -> None:
        """Nothing is lost while the manager is there, however many bring one message more."""
        world = World({f"key{n}": f"edge{n}" for n in range(300)}, buffer_bytes=1_000_000)
        edges = [world.edge(f"key{n}") for n in range(200)]
        world.application.manager_flows(world.application.manager, False)
        sent = 0
        for edge in edges:
            if edge.reading:
                edge.receive(notification("x", {"a": "x" * 10_000}))
                sent += 1
        self.assertLess(sent, 60)
        self.assertTrue(all(not edge.reading for edge in edges))
        late = world.edge("key299")
        self.assertFalse(late.reading)
        world.up()
        world.application.manager_flows(world.application.manager, True)
        self.assertTrue(all(edge.reading for edge in [*edges, late]))
        self.assertEqual((len(world.up()), world.application.status().dropped_messages), (sent, 0))

    def test_order_is_kept_while_it_drains(self) -> None:
        world = World()
        edge = world.edge()
        application = world.application
        manager = application.manager
        application.manager_flows(manager, False)
        for number in range(10):
            edge.receive(data(number))
        taken: list[bytes] = []

        def write(frame: bytes) -> bool:
            taken.append(frame)
            if len(taken) == 3:
                application.manager_flows(manager, False)
            return True

        application.outbox._write = write
        application.manager_flows(manager, True)
        edge.receive(data(10))
        edge.receive(request("foo"))
        application.manager_flows(manager, True)
        values = [next(iter(m["params"].values()))["c/a"] for m in map(_payload, taken[:-1])]
        self.assertEqual(values, list(range(11)))
        self.assertEqual(_payload(taken[-1])["method"], "foo")

    def test_an_answer_does_not_overtake_what_the_edge_said_before(self) -> None:
        world = World()
        edge = world.edge()
        payload = request("x")
        world.manager.receive(request("edgeRpc", {"edgeId": "edge0", "payload": payload}))
        world.application.manager_flows(world.application.manager, False)
        edge.receive(data(1))
        edge.receive({"jsonrpc": "2.0", "id": payload["id"], "result": {}})
        edge.receive(data(2))
        self.assertEqual(world.up(), [])
        world.application.manager_flows(world.application.manager, True)
        self.assertEqual(["result" in message for message in world.up()], [False, True, False])

    def test_an_old_connection_that_ends_late(self) -> None:
        world = World()
        edge = world.edge()
        old = world.manager
        new = world.connect()
        old.lose()
        new.take()
        edge.receive(data(1))
        self.assertEqual(len(new.take()), 1)
        self.assertTrue(world.application.status().connected)

    def test_a_manager_that_is_lost_while_slow(self) -> None:
        world = World()
        edge = world.edge()
        world.application.manager_flows(world.application.manager, False)
        while edge.reading:
            edge.receive(notification("x", {"a": "x" * 100_000}))
        world.lose()
        self.assertTrue(edge.reading)

    def test_a_replaced_edge_is_not_resumed(self) -> None:
        world = World()
        edge = world.edge()
        world.application.manager_flows(world.application.manager, False)
        while edge.reading:
            edge.receive(notification("x", {"a": "x" * 100_000}))
        world.edge()
        self.assertEqual(world.application.status().paused_edges, 0)


def _payload(text: bytes) -> Any:
    return json.loads(text)["params"]["payload"]
