from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from msgspec import Raw
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from openems.backend.events import EdgesChanged
from openems.backend.interfaces import IEndpoint
from openems.backend.models import SetupProtocolCoreInfo, User, UserAlertingSettings
from openems.backend.ui.methods.subscriptions import MAX_CHANNELS
from openems.backend.ui.parameters import GENERATED_ALPHABET
from openems.common import errors, jsonrpc
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Notification
from openems.common.role import Language, Level, Role
from tests.backend.ui.world import ID, INNER, World, failed, ok, payload

NOBODY = failed(1001, "User is not authenticated. [[user]]", "[user]")
LIMITED = failed(4005, "Too Many Requests! Request discarded by Rate-Limiter.")


class DispatchTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()

    def test_interface(self) -> None:
        verifyObject(IEndpoint, self.world.connect().session)

    def test_t8_before_login(self) -> None:
        """ui.md 20 T8"""
        ui = self.world.connect()
        for method in ("getEdges", "fooBar", "edgeRpc"):
            self.assertEqual(ui.ask(method, {}), NOBODY)

    def test_t8_after_login(self) -> None:
        """ui.md 20 T8"""
        ui = self.world.login()
        self.assertEqual(ui.ask("fooBar"), failed(4001, "Unhandled JSON-RPC method [fooBar]", "fooBar"))

    def test_t9_rate_limit(self) -> None:
        """ui.md 20 T9"""
        ui = self.world.login()
        self.world.metadata.roles["edge0"] = Role.GUEST
        self.world.clock.advance(2)
        replies = [ui.ask("getEdges", {"page": 0}) for _ in range(30)]
        self.assertEqual(sum("result" in reply for reply in replies), 21)
        self.assertEqual([reply for reply in replies if "error" in reply], [LIMITED] * 9)
        self.assertEqual([ui.subscribe() for _ in range(100)], [[payload({})]] * 100)
        self.assertEqual(self.world.server.limited, 9)

    def test_t10_no_reply(self) -> None:
        """ui.md 20 T10"""
        ui = self.world.login()
        ui.connection.take()
        for text in (
            "hello",
            "[]",
            f'{{"jsonrpc":"2.0","method":"getEdges","id":"{ID}"}}',
            '{"method":"getEdges","params":{},"id":"1"}',
            f'{{"method":"getEdges","params":[],"id":"{ID}"}}',
        ):
            ui.connection.receive(text)
        self.assertEqual(ui.connection.take(), [])
        self.assertIn("result", ui.ask("getEdges", {"page": 0}))

    def test_t11_id(self) -> None:
        """ui.md 20 T11"""
        ui = self.world.connect()
        ui.send("logout", {}, ID.upper())
        self.assertEqual(ui.connection.take()[0]["id"], ID)

    def test_core_methods(self) -> None:
        """ui.md 12"""
        self.world.handler.answers["getEdgesStatus"] = {"edge0": {"online": True}}
        ui = self.world.login()
        self.assertEqual(ui.ask("getEdgesStatus", {"edgeIds": ["edge0"]}), ok({"edge0": {"online": True}}))
        self.assertEqual(self.world.handler.requests[0].method, "getEdgesStatus")

    def test_t13_errors_carry_the_outer_id(self) -> None:
        """ui.md 20 T13"""
        self.world.metadata.roles["edge0"] = Role.GUEST
        self.world.handler.answers["routes"] = OpenemsError(errors.BACKEND_EDGE_NOT_CONNECTED, "edge0")
        self.world.handler.answers["getSchedule"] = OpenemsError(errors.EDGE_NO_COMPONENT_WITH_ID, "foo0")
        ui = self.world.login()
        self.assertEqual(ui.edge_rpc("routes"), [failed(3000, "Edge [edge0] is not connected", "edge0")])
        self.assertEqual(
            ui.edge_rpc("getSchedule"), [failed(2000, "Unable to find OpenEMS Component with ID [foo0]", "foo0")]
        )

    def test_core_answer_is_passed_on_as_it_is(self) -> None:
        self.world.metadata.roles["edge0"] = Role.GUEST
        result = Raw(b'{"payload":{"jsonrpc":"2.0","id":"%b","result":{"n":1.0}}}' % INNER.encode())
        self.world.handler.answers["getEdgeConfig"] = result
        ui = self.world.login()
        ui.connection.take()
        ui.edge_rpc("getEdgeConfig")
        ui.send("edgeRpc", {"edgeId": "edge0", "payload": {"method": "getEdgeConfig", "params": {}, "id": INNER}})
        self.assertIn(bytes(result), ui.connection.sent[0])

    def test_slow_request_is_overtaken(self) -> None:
        slow: Deferred[Any] = Deferred()
        self.world.handler.answers["getEdgesStatus"] = slow
        ui = self.world.login()
        self.assertEqual(ui.ask_all("getEdgesStatus"), [])
        self.assertIn("result", ui.ask("getEdges", {"page": 0}))
        slow.callback({})
        self.assertEqual(ui.connection.take(), [ok({})])

    def test_t043_one_reply_whatever_fails(self) -> None:
        ui = self.world.login()
        self.world.metadata.fail = RuntimeError("select * from secret")
        reply = ui.ask("getEdges", {"page": 0})
        self.assertEqual((reply["id"], reply["error"]["code"]), (ID, 1))
        self.assertNotIn("secret", str(reply))
        reply = ui.ask("getUserInformation")
        self.assertEqual((reply["id"], reply["error"]["code"]), (ID, 1))
        self.assertEqual(len(self.flushLoggedErrors()), 2)

    def test_t033_sequence_after_login(self) -> None:
        self.world.metadata.roles["edge0"] = Role.OWNER
        empty = {"payload": {"jsonrpc": "2.0", "id": INNER, "result": {"components": {}, "factories": {}}}}
        self.world.handler.answers["getEdgeConfig"] = empty
        ui = self.world.login()
        edge = {
            "id": "edge0",
            "comment": None,
            "producttype": "",
            "version": "0.0.0",
            "role": "owner",
            "isOnline": False,
        }
        self.assertEqual(ui.ask("getEdges", {"page": 0, "limit": 20, "searchParams": {}}), ok({"edges": [edge]}))
        self.assertEqual(ui.ask("getEdge", {"edgeId": "edge0"}), ok({"edge": edge}))
        for _ in range(3):
            self.assertEqual(ui.ask("subscribeEdges", {"edges": ["edge0"]}), ok({}))
        self.assertEqual(ui.edge_rpc("getEdgeConfig"), [payload({"components": {}, "factories": {}})])
        text = "Unable to find edge with id [edge9]"
        self.assertEqual(ui.ask("getEdge", {"edgeId": "edge9"}), failed(1, text, text))
        self.world.metadata.edges_.clear()
        self.assertEqual(ui.ask("getEdges", {"page": 0}), ok({"edges": []}))


class AuthorizationTest(SynchronousTestCase):
    """ui.md 20 T7 with 19, 13 to 15"""

    def setUp(self) -> None:
        self.world = World()
        self.roles = self.world.metadata.roles
        self.ui = self.world.login()

    def denied(self, resource: str, role: str) -> dict[str, Any]:
        text = f"Access to this resource [{resource}] is denied for User with Role [{role}]"
        return failed(1002, text, resource, role)

    def undefined(self, resource: str) -> dict[str, Any]:
        text = f"Access to this resource [{resource}] is denied. Role for User [anna@example.org] is not defined"
        return failed(1005, text, resource, "anna@example.org")

    def test_t7_subscribe_edges(self) -> None:
        self.assertEqual(self.ui.ask("subscribeEdges", {"edges": ["edge0"]}), self.undefined("subscribeEdges"))

    def test_first_failure_leaves_the_old_set(self) -> None:
        self.roles["edge0"] = Role.GUEST
        self.world.edges.connected.add("edge0")
        self.ui.ask("subscribeEdges", {"edges": ["edge0"]})
        self.ui.subscribe("A/x")
        self.assertEqual(self.ui.ask("subscribeEdges", {"edges": ["edge1"]}), self.undefined("subscribeEdges"))
        self.world.server.send_subscribed_channels("edge0")
        self.assertEqual(len(self.ui.pushes()), 1)

    def test_t7_system_log(self) -> None:
        params = {"subscribe": True}
        self.assertEqual(self.ui.edge_rpc("subscribeSystemLog", params), [self.undefined("edgeRpc")])
        self.roles["edge0"] = Role.GUEST
        self.assertEqual(self.ui.edge_rpc("subscribeSystemLog", params), [self.denied("subscribeSystemLog", "GUEST")])
        self.assertEqual(self.world.edges.system_logs, set())

    def test_t7_protocols(self) -> None:
        self.roles["edge0"] = Role.GUEST
        for method in ("getProtocolsCoreInfo", "getLatestSetupProtocolCoreInfo"):
            self.assertEqual(self.ui.ask(method, {"edgeId": "edge0"}), self.denied(method, "GUEST"))

    def test_subscribe_channels(self) -> None:
        self.assertEqual(self.ui.subscribe("A/x"), [self.undefined("edgeRpc")])

    def test_strangers(self) -> None:
        record = {"userLogin": "anna@example.org", "offlineEdgeDelay": 1, "faultEdgeDelay": 0, "warningEdgeDelay": 0}
        for method in ("getEmsType", "getUserAlertingConfigs", "setUserAlertingConfigs", "getSetupProtocolData"):
            params = {"edgeId": "edge0", "userSettings": [record]}
            self.assertEqual(self.ui.ask(method, params), self.undefined(method))

    def test_submit_setup_protocol(self) -> None:
        self.roles["edge0"] = Role.OWNER
        params = {"protocol": {"edge": {"id": "edge0"}, "customer": {}}}
        self.assertEqual(self.ui.ask("submitSetupProtocol", params), self.denied("submitSetupProtocol", "OWNER"))
        self.assertEqual(self.world.metadata.calls, [])

    def test_role_withdrawal_ends_pushes(self) -> None:
        """ui.md 19, 3"""
        self.world.start()
        self.roles["edge0"] = Role.OWNER
        self.world.edges.connected.add("edge0")
        self.ui.ask("subscribeEdges", {"edges": ["edge0"]})
        self.ui.subscribe("A/x")
        self.ui.edge_rpc("subscribeSystemLog", {"subscribe": True})
        self.roles["edge0"] = Role.GUEST
        self.world.events.publish(EdgesChanged())
        self.world.clock.advance(1)
        self.assertEqual(self.world.edges.system_logs, set())
        self.world.server.send_subscribed_channels("edge0")
        self.assertEqual(len(self.ui.pushes()), 1)
        del self.roles["edge0"]
        self.world.events.publish(EdgesChanged())
        self.world.clock.advance(1)
        self.world.server.send_subscribed_channels("edge0")
        self.world.server.send_broadcast("edge0", Notification("edgeConfig", Raw(b"{}")))
        self.assertEqual(self.ui.connection.take(), [])


class SubscriptionTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.metadata.roles.update(edge0=Role.OWNER, edge1=Role.OWNER)
        self.world.edges.connected.add("edge0")
        self.world.edges.values["edge0"] = {"A/x": 1}
        self.ui = self.world.login()

    def frame(self) -> list[dict[str, Any]]:
        self.world.server.send_subscribed_channels("edge0")
        return self.ui.pushes()

    def test_t12_flow(self) -> None:
        """ui.md 20 T12; with 19, 25 the present values come as soon as both subscriptions exist (T041)"""
        ui = self.ui
        self.assertEqual(ui.subscribe("A/x"), [payload({})])
        messages = ui.ask_all("subscribeEdges", {"edges": ["edge0"]})
        self.assertEqual(messages[0]["params"]["payload"]["params"], {"A/x": 1})
        self.assertEqual(messages[1:], [ok({})])
        self.assertEqual(self.frame(), [{"A/x": 1}])
        self.assertEqual(self.frame(), [{"A/x": 1}])
        self.assertEqual(ui.ask("subscribeEdges", {"edges": ["edge1"]}), ok({}))
        self.assertEqual(self.frame(), [])
        ui.ask_all("subscribeEdges", {"edges": ["edge0"]})
        self.assertEqual(self.frame(), [{"A/x": 1}])
        self.assertEqual(ui.subscribe(), [payload({})])
        self.assertEqual(self.frame(), [])
        self.world.edges.connected.clear()
        self.assertEqual(ui.subscribe("A/x"), [payload({})])

    def test_present_values_before_the_reply(self) -> None:
        """ui.md 19, 24"""
        self.ui.ask("subscribeEdges", {"edges": ["edge0"]})
        push, reply = self.ui.subscribe("B/q", "A/x")
        self.assertEqual(list(push["params"]["payload"]["params"].items()), [("A/x", 1), ("B/q", None)])
        self.assertEqual(reply, payload({}))

    def test_t039_one_push_and_the_last_set_wins(self) -> None:
        self.ui.ask("subscribeEdges", {"edges": ["edge0"]})
        for count in (0, 1, 0):
            self.ui.edge_rpc("subscribeChannels", {"count": count, "channels": ["A/x", "A/y"]})
        self.ui.edge_rpc("subscribeChannels", {"count": 0, "channels": ["A/y"]})
        self.assertEqual(self.frame(), [{"A/y": None}])

    def test_several_edges_side_by_side(self) -> None:
        self.ui.ask("subscribeEdges", {"edges": ["edge0", "edge1"]})
        self.ui.subscribe("A/x")
        self.ui.subscribe("B/y", edge_id="edge1")
        self.assertEqual(self.frame(), [{"A/x": 1}])
        self.world.server.send_subscribed_channels("edge1")
        self.assertEqual(self.ui.pushes(), [{"B/y": None}])

    def test_bad_parameters(self) -> None:
        for params, code in (
            ({"channels": []}, 5001),
            ({"count": 0}, 5007),
            ({"count": 0, "channels": [1]}, 5009),
            ({"count": 0, "channels": ["a/" + "b" * 300]}, 1000),
            ({"count": 0, "channels": [f"A/{i}" for i in range(MAX_CHANNELS + 1)]}, 1),
        ):
            (reply,) = self.ui.edge_rpc("subscribeChannels", params)
            self.assertEqual(reply["error"]["code"], code)
        self.assertEqual(self.ui.ask("subscribeEdges", {})["error"]["code"], 5007)
        self.assertEqual(self.ui.ask("subscribeEdges", {"edges": [{}]})["error"]["code"], 1)
        self.assertEqual(self.ui.edge_rpc("subscribeSystemLog")[0]["error"]["code"], 5012)

    def test_system_log(self) -> None:
        """ui.md 10.4, 20 T18, reality.md R2"""
        (reply,) = self.ui.edge_rpc("subscribeSystemLog", {"subscribe": True})
        self.assertEqual(reply, payload({"payload": {"jsonrpc": "2.0", "id": INNER, "result": {}}}))
        line = {"time": "2026-04-01T10:15:30+02:00", "level": "WARN", "source": "a", "message": "m"}
        notification = Notification("systemLog", jsonrpc.raw({"line": line}))
        self.assertTrue(self.world.server.send(self.ui.session.id, "edge0", notification))
        (message,) = self.ui.connection.take()
        line["time"] = "2026-04-01T10:15:30.000+02:00"
        self.assertEqual(
            message["params"],
            {"edgeId": "edge0", "payload": {"jsonrpc": "2.0", "method": "systemLog", "params": {"line": line}}},
        )
        self.assertFalse(self.world.server.send("unknown", "edge0", notification))
        self.ui.connection.slow = 10**9
        self.assertTrue(self.world.server.send(self.ui.session.id, "edge0", notification))
        self.assertEqual(self.ui.connection.take(), [])
        self.assertEqual(self.world.server.dropped_lines, 1)

    def test_system_log_ends_with_the_role(self) -> None:
        """ui.md 19, 3"""
        self.ui.edge_rpc("subscribeSystemLog", {"subscribe": True})
        notification = Notification("systemLog", Raw(b'{"line":{"time":"","level":"INFO","source":"","message":""}}'))
        self.world.metadata.roles["edge0"] = Role.GUEST
        self.assertFalse(self.world.server.send(self.ui.session.id, "edge0", notification))
        self.world.metadata.roles["edge0"] = Role.OWNER
        self.assertTrue(self.world.server.send(self.ui.session.id, "edge0", notification))
        self.ui.ask("logout")
        self.assertFalse(self.world.server.send(self.ui.session.id, "edge0", notification))
        self.assertEqual(self.ui.connection.take(), [])

    def test_t037_closing_forgets_the_system_log(self) -> None:
        for _ in range(1_000):
            ui = self.world.login()
            ui.edge_rpc("subscribeSystemLog", {"subscribe": True})
            ui.connection.lose()
        self.assertEqual(self.world.edges.system_logs, set())
        self.assertEqual(len(self.world.server.sessions), 1)

    def test_offline_system_log_is_remembered(self) -> None:
        (reply,) = self.ui.edge_rpc("subscribeSystemLog", {"subscribe": True}, "edge1")
        self.assertEqual(reply["error"]["code"], 3000)
        self.assertEqual(self.world.edges.system_logs, {("edge1", self.ui.session.id)})
        self.ui.connection.lose()
        self.assertEqual(self.world.edges.system_logs, set())

    def test_edge_config_is_broadcast_verbatim(self) -> None:
        """ui.md 14, reality.md R1"""
        self.ui.ask("subscribeEdges", {"edges": ["edge0"]})
        other = self.world.login()
        other.connection.take()
        self.ui.connection.take()
        config = b'{"components":{},"n":12345678901234567890}'
        self.world.server.send_broadcast("edge0", Notification("edgeConfig", Raw(config)))
        self.assertIn(config, self.ui.connection.sent[0])
        self.assertEqual(other.connection.sent, [])

    def test_simulation(self) -> None:
        """ui.md 11.6"""
        params = {"payload": {"method": "foo", "params": {}, "id": ID}}
        text = "simulation unavailable"
        self.assertEqual(self.ui.edge_rpc("simulation", params), [failed(1, text, text)])


class UserTest(SynchronousTestCase):
    """ui.md 7"""

    def setUp(self) -> None:
        self.world = World()
        self.ui = self.world.login()

    def test_language_changes_the_session(self) -> None:
        """ui.md 20 T16, 19, 42, 43"""
        for text, language in {"en": "EN", " De ": "DE", "cs": "CZ", "cz": "CZ", "ja": "DE"}.items():
            self.assertEqual(self.ui.ask("updateUserLanguage", {"language": text}), ok({}))
            self.assertIs(self.ui.session.user.language, Language(language))  # type: ignore[union-attr]

    def test_settings_change_the_session(self) -> None:
        self.assertEqual(self.ui.ask("updateUserSettings", {"settings": {"theme": "light"}}), ok({}))
        self.assertEqual(self.ui.session.user.settings, {"theme": "light"})  # type: ignore[union-attr]
        self.assertEqual(self.ui.ask("updateUserSettings", {"settings": {"x": "y" * 70_000}})["error"]["code"], 1)
        self.assertEqual(self.ui.ask("updateUserSettings", {})["error"]["code"], 5003)

    def test_information(self) -> None:
        self.assertEqual(self.ui.ask("getUserInformation"), ok({"user": {"firstname": "Anna"}}))
        self.assertEqual(self.ui.ask("setUserInformation", {"user": {"phone": "1"}}), ok({}))
        self.assertEqual(self.world.metadata.calls, [("set_user_information", {"phone": "1"})])

    def test_ems_type_unknown(self) -> None:
        self.world.metadata.roles["edge0"] = Role.GUEST
        self.assertEqual(self.ui.ask("getEmsType", {"edgeId": "edge0"}), ok({}))

    def test_log_message(self) -> None:
        """ui.md 13, 20 T9: 10 at once after idling, 6 logged"""
        lines: list[str] = []

        def observer(event: dict[str, Any]) -> None:
            if "-Message:" in (event.get("log_format") or ""):
                lines.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.world.clock.advance(2)
        for _ in range(10):
            self.ui.notify("logMessage", {"level": "error", "msg": "x {is} undefined"})
        self.assertEqual(lines, ["User [anna@example.org:Anna Smith] ERROR-Message: x {is} undefined"] * 6)
        self.world.connect().notify("logMessage", {"level": "info", "msg": "hello"})
        self.assertEqual(lines[-1], "User [NOT AUTHENTICATED] INFO-Message: hello")
        self.assertEqual(self.world.server.dropped_notifications, 4)

    def test_nonsense_notifications(self) -> None:
        for _ in range(100):
            self.ui.notify("fooBar", {})
            self.ui.notify("logMessage", {"level": "loud"})
        self.assertTrue(self.ui.connection.is_open)
        self.assertGreater(self.world.server.dropped_notifications, 100)


class AlertingTest(SynchronousTestCase):
    """ui.md 8, T081"""

    def setUp(self) -> None:
        self.world = World()
        self.world.metadata.alerting = [
            UserAlertingSettings(edge_id="edge0", user_login="jan@example.org", offline_delay=1440),
            UserAlertingSettings(edge_id="edge0", user_login="anna@example.org", offline_delay=60, fault_delay=15),
        ]
        self.ui = self.world.login()
        self.own = {
            "userLogin": "anna@example.org",
            "offlineEdgeDelay": 60,
            "faultEdgeDelay": 15,
            "warningEdgeDelay": 0,
        }
        self.other = {
            "userLogin": "jan@example.org",
            "offlineEdgeDelay": 1440,
            "faultEdgeDelay": 0,
            "warningEdgeDelay": 0,
        }

    def get(self, role: Role) -> dict[str, Any]:
        self.world.metadata.roles["edge0"] = role
        return self.ui.ask("getUserAlertingConfigs", {"edgeId": "edge0"})

    def set(self, role: Role, *records: dict[str, Any]) -> dict[str, Any]:
        self.world.metadata.roles["edge0"] = role
        return self.ui.ask("setUserAlertingConfigs", {"edgeId": "edge0", "userSettings": list(records)})

    def test_get(self) -> None:
        for role in (Role.GUEST, Role.OWNER, Role.INSTALLER):
            self.assertEqual(self.get(role), ok({"currentUserSettings": self.own, "otherUsersSettings": []}))
        self.assertEqual(
            self.get(Role.ADMIN), ok({"currentUserSettings": self.own, "otherUsersSettings": [self.other]})
        )

    def test_get_nothing_stored(self) -> None:
        self.world.metadata.alerting = []
        zero = {**self.own, "offlineEdgeDelay": 0, "faultEdgeDelay": 0}
        self.assertEqual(self.get(Role.OWNER), ok({"currentUserSettings": zero, "otherUsersSettings": []}))

    def test_set(self) -> None:
        text = "Not allowed to update/set alerting information for other users as user [anna@example.org]"
        for role in (Role.GUEST, Role.OWNER, Role.INSTALLER):
            self.assertEqual(self.set(role, self.other), failed(1, text, text))
            self.assertEqual(self.set(role, self.own, self.other), failed(1, text, text))
            self.assertEqual(self.set(role, self.own), ok({}))
        self.assertEqual(self.set(Role.ADMIN, self.own, self.other), ok({}))
        self.assertEqual(len(self.world.metadata.calls), 4)


class SetupTest(SynchronousTestCase):
    """ui.md 9"""

    def setUp(self) -> None:
        self.world = World()
        self.ui = self.world.login()

    def test_add_edge_to_user(self) -> None:
        self.world.metadata.edges_["edge0"].set_sum_state(Level.OK)
        self.assertEqual(
            self.ui.ask("addEdgeToUser", {"setupPassword": "3rzE-K9pA-qV8i-Ape7"}),
            ok(
                {
                    "edge": {
                        "id": "edge0",
                        "comment": None,
                        "version": "0.0.0",
                        "producttype": "",
                        "online": False,
                        "sumState": "OK",
                    },
                    "serialNumber": "FH-123",
                }
            ),
        )
        self.assertEqual(self.world.metadata.calls, [("add_edge_to_user", "anna@example.org", "edge0")])
        self.assertEqual(self.ui.ask("addEdgeToUser", {"setupPassword": "x"}), failed(1003, "Authentication failed"))
        self.assertEqual(
            self.ui.ask("addEdgeToUser", {}),
            failed(5010, "JSON [setupPassword:{}] is not a String member", "setupPassword", "{}"),
        )

    def test_setup_passwords_are_not_guessed(self) -> None:
        codes = []
        for _ in range(15):
            self.world.clock.advance(0.1)
            codes.append(self.ui.ask("addEdgeToUser", {"setupPassword": "x"})["error"]["code"])
        self.assertEqual(codes, [1003] * 11 + [4005] * 4)

    def test_setup_passwords_are_not_guessed_by_many_users(self) -> None:
        """auth.md S13: anybody may register, so an address with user after user is one who guesses."""
        codes = []
        for number in range(10):
            self.world.metadata.users[f"sub-u{number}"] = User(id=f"u{number}", user_id=f"sub-u{number}", name="U")
            ui = self.world.connect(remote=f"198.51.100.7:{number}")
            ui.ask("authenticateWithPassword", {"username": f"u{number}", "password": "s3cret"})
            codes += [ui.ask("addEdgeToUser", {"setupPassword": f"x{n}"})["error"]["code"] for n in range(5)]
        self.assertEqual(codes, [1003] * 31 + [4005] * 19)
        self.assertEqual(self.ui.ask("addEdgeToUser", {"setupPassword": "x"})["error"]["code"], 1003)

    def test_submit(self) -> None:
        self.world.metadata.roles["edge0"] = Role.INSTALLER
        customer = {
            "firstname": "A",
            "lastname": "B",
            "phone": "1",
            "email": "a@b.c",
            "address": {"street": "s", "zip": "1", "city": "c", "country": "de"},
        }
        protocol = {"edge": {"id": "edge0"}, "customer": customer, "lots": []}
        self.assertEqual(self.ui.ask("submitSetupProtocol", {"protocol": protocol}), ok({"setupProtocolId": 4711}))
        (record,) = self.world.registration.records
        self.assertEqual((record["role"], record["includePasswordInRegistrationEmail"]), ("OWNER", True))
        self.assertEqual(len(record["password"]), 8)
        self.assertLessEqual(set(record["password"]), set(GENERATED_ALPHABET))
        submitted = self.world.metadata.calls[0][1]
        self.assertEqual(submitted["customer"], {**customer, "role": "OWNER", "password": record["password"]})
        self.assertEqual(
            self.ui.ask("submitSetupProtocol", {"protocol": {"edge": {"id": "edge0"}}})["error"]["code"], 5003
        )

    def test_t20_alphabet(self) -> None:
        """ui.md 20 T20"""
        self.assertEqual(len(set(GENERATED_ALPHABET)), 61)
        self.assertNotIn("z", GENERATED_ALPHABET)

    def test_core_infos(self) -> None:
        self.world.metadata.roles["edge0"] = Role.OWNER
        self.assertEqual(self.ui.ask("getProtocolsCoreInfo", {"edgeId": "edge0"}), ok({"setupProtocols": []}))
        self.assertEqual(self.ui.ask("getLatestSetupProtocolCoreInfo", {"edgeId": "edge0"}), ok({}))
        self.world.metadata.protocols["edge0"] = [
            SetupProtocolCoreInfo(2, None, "EMS_EXCHANGE"),
            SetupProtocolCoreInfo(1, 1_772_357_400_000, "SETUP_PROTOCOL"),
        ]
        latest = {"setupProtocolId": 2, "setupProtocolType": "EMS_EXCHANGE"}
        self.assertEqual(self.ui.ask("getLatestSetupProtocolCoreInfo", {"edgeId": "edge0"}), ok(latest))
        reply = self.ui.ask("getProtocolsCoreInfo", {"edgeId": "edge0"})
        self.assertEqual([info["setupProtocolId"] for info in reply["result"]["setupProtocols"]], [2, 1])

    def test_pdf_of_own_edges_only(self) -> None:
        """ui.md 19, 13"""
        self.world.metadata.protocols["edge0"] = [SetupProtocolCoreInfo(815, None, None)]
        params = {"setupProtocolId": "815"}
        pdf = ok({"payload": base64.b64encode(b"%PDF-1.4\n").decode()})
        self.assertEqual(self.ui.ask("getSetupProtocol", params)["error"]["code"], 1002)
        self.world.metadata.roles["edge0"] = Role.GUEST
        self.ui.ask("subscribeEdges", {"edges": ["edge0"]})
        self.assertEqual(self.ui.ask("getSetupProtocol", params)["error"]["code"], 1002)
        self.world.metadata.roles["edge0"] = Role.OWNER
        self.assertEqual(self.ui.ask("getSetupProtocol", params), pdf)
        other = self.world.login()
        other.ask("getProtocolsCoreInfo", {"edgeId": "edge0"})
        self.assertEqual(other.ask("getSetupProtocol", params), pdf)
        other.ask("logout")
        other.ask("authenticateWithToken", {"token": "token-1"})
        self.assertEqual(other.ask("getSetupProtocol", params)["error"]["code"], 1002)

    def protocols_listed_while(self, change: Callable[[], None]) -> bool:
        listed: Deferred[Any] = Deferred()

        async def later(edge_id: str) -> Any:
            return await listed

        self.world.metadata.roles["edge0"] = Role.OWNER
        self.patch(self.world.metadata, "get_setup_protocols_core_info", later)
        self.ui.send("getProtocolsCoreInfo", {"edgeId": "edge0"})
        change()
        listed.callback([SetupProtocolCoreInfo(815, None, None)])
        return 815 in self.ui.session.protocols

    def test_protocols_are_the_users_who_asked(self) -> None:
        session = self.ui.session

        def another() -> None:
            session.user = replace(session.user, user_id="another")

        def settings() -> None:
            self.ui.ask("updateUserSettings", {"settings": {"theme": "dark"}})

        self.assertFalse(self.protocols_listed_while(another))
        self.assertTrue(self.protocols_listed_while(settings))
