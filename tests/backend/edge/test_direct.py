"""An edge connected here (edge.md 2.3 to 2.5)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.edge.direct import DirectEndpoint
from openems.backend.events import OnlineSet
from openems.common.jsonrpc import new_id
from openems.testing.connections import FakeConnection

from .world import World, data, notification


class Keys(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()

    def test_the_right_key_says_nothing(self) -> None:
        """The edge sees the upgrade and then silence (edge.md 2.3)."""
        edge = self.world.direct()
        self.assertTrue(edge.is_open)
        self.assertEqual(edge.sent, [])
        self.assertTrue(self.world.online())

    def test_t013_a_key_is_compared_exactly(self) -> None:
        for key in ("Key0", "KEY0", "key", "key00", ""):
            edge = self.world.direct(key)
            self.assertFalse(edge.is_open, key)
            self.assertIsNone(edge.close_code, "TCP ends without a Close frame")
            self.assertTrue(edge.dropped)
        self.assertEqual(self.world.of(OnlineSet), [])

    def test_without_the_header(self) -> None:
        edge = FakeConnection({}, self.world.clock)
        edge.open(DirectEndpoint(edge, self.world.manager))
        self.assertFalse(edge.is_open)

    def test_a_refused_one_cannot_speak(self) -> None:
        edge = self.world.direct("nope")
        edge.receive(data({"c/a": 1}))
        self.assertEqual(self.world.timedata.written, [])

    def test_a_metadata_that_refuses_an_odd_key(self) -> None:
        """Metadata.Dummy raises for some keys; that is a refusal as any other, no failure of ours."""
        from openems.common.errors import generic

        def refuse(apikey: str) -> str | None:
            raise generic("No more edges are made up")

        self.world.metadata.edge_id_for_apikey = refuse  # type: ignore[method-assign]
        edge = self.world.direct("edge99999999999999")
        self.assertFalse(edge.is_open)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_key_that_changes_ends_the_connection(self) -> None:
        self.successResultOf_start()
        edge, other = self.world.direct(), self.world.direct("key1")
        self.world.metadata.set_keys({"new": "edge0", "key1": "edge1"})
        self.assertEqual(edge.close_code, 1000)
        self.assertTrue(other.is_open)
        self.assertFalse(self.world.online("edge0"))
        self.world.metadata.set_keys({"new": "edge0"})
        self.assertEqual(other.close_code, 1000)

    def successResultOf_start(self) -> None:
        from openems.testing.services import now_of

        now_of(self.world.manager.start())


class Requests(SynchronousTestCase):
    """edge.md 3.6."""

    def setUp(self) -> None:
        self.world = World()
        self.edge = self.world.direct()

    def ask(self, method: str, params: object) -> dict[str, object]:
        self.edge.receive({"jsonrpc": "2.0", "id": new_id(), "method": method, "params": params})
        [reply] = self.edge.take()
        return reply  # type: ignore[no-any-return]

    def test_setup_password(self) -> None:
        self.assertEqual(self.ask("checkSetupPassword", {"setupPassword": "setup-edge0"})["result"], {})
        for wrong in ("setup-edge1", "x", ""):
            reply = self.ask("checkSetupPassword", {"setupPassword": wrong})
            self.assertEqual(reply["error"]["code"], 1003)  # type: ignore[index]

    def test_r12_without_the_member(self) -> None:
        self.assertEqual(self.ask("checkSetupPassword", {})["error"]["code"], 5010)  # type: ignore[index]

    def test_setup_passwords_are_not_guessed(self) -> None:
        """auth.md S13: who has it gets the edge."""
        codes = [self.ask("checkSetupPassword", {"setupPassword": f"x{n}"})["error"]["code"] for n in range(15)]  # type: ignore[index]
        self.assertEqual(codes, [1003] * 11 + [4005] * 4)

    def test_9_6_unknown(self) -> None:
        error = self.ask("foo", {})["error"]
        self.assertEqual(error, {"code": 4001, "message": "Unhandled JSON-RPC method [foo]", "data": ["foo"]})

    def test_without_an_app_center(self) -> None:
        inner = {"jsonrpc": "2.0", "id": new_id(), "method": "getInstalledApps", "params": {}}
        error = self.ask("appCenter", {"payload": inner})["error"]
        self.assertEqual((error["code"], error["message"]), (1, "No AppCenter Metadata provided."))  # type: ignore[index]

    def test_9_4_oauth_without_identifier(self) -> None:
        class Registry:
            pass

        self.world.manager.requests._oauth_registry = Registry()
        inner = {"jsonrpc": "2.0", "id": new_id(), "method": "getInitMetadata", "params": {}}
        error = self.ask("oauthRegistry", {"payload": inner})["error"]
        self.assertEqual(error["code"], 1)  # type: ignore[index]
        self.assertIn("Member [identifier] was not part of {}", error["message"])  # type: ignore[index]

    def test_data_as_a_request_is_no_data(self) -> None:
        self.edge.receive({**data({"c/a": 1}), "id": new_id()})
        [reply] = self.edge.take()
        self.assertEqual(reply["error"]["code"], 4001)
        self.assertEqual(self.world.timedata.written, [])

    def test_9_6_no_reply(self) -> None:
        self.edge.receive({"jsonrpc": "2.0", "method": "x", "id": new_id()})
        self.edge.receive({"jsonrpc": "2.0", "method": "x", "params": {}, "id": "not-a-uuid"})
        self.assertEqual(self.edge.sent, [])
        self.assertTrue(self.edge.is_open)


class Notifications(SynchronousTestCase):
    def test_a_log_message_and_an_unknown_one(self) -> None:
        world = World()
        edge = world.direct()
        edge.receive(notification("logMessage", {"level": "error", "msg": "x" * 10_000}))
        edge.receive(notification("noSuch", {}))
        edge.receive(notification("logMessage", {}))
        self.assertTrue(edge.is_open)
        self.assertEqual(edge.sent, [])
        self.assertEqual(world.manager.messages, 3)
