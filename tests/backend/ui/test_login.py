from __future__ import annotations

import io
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher, textFileLogObserver
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.models import User
from openems.backend.ui.login import MAX_TOKEN, UNAVAILABLE
from openems.common import errors
from openems.common.errors import OpenemsError
from openems.common.role import Language, Role
from tests.backend.ui.test_parameters import USER
from tests.backend.ui.world import ID, INNER, Ui, World, failed, ok

REFUSED = failed(1003, "Authentication failed")
NOBODY = failed(1001, "User is not authenticated. [[user]]", "[user]")
ANNA = {"username": "anna@example.org", "password": "s3cret"}
USER_JSON = {
    "id": "anna@example.org",
    "name": "Anna Smith",
    "hasMultipleEdges": False,
    "settings": {},
    "globalRole": "guest",
}


def oauth(method: str, **params: Any) -> dict[str, Any]:
    return {"payload": {"jsonrpc": "2.0", "method": method, "params": params, "id": INNER}}


class _Lines(io.StringIO):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def write(self, text: str) -> int:
        self._lines.append(text)
        return len(text)


class PasswordLoginTest(SynchronousTestCase):
    """ui.md 5.1 to 5.3"""

    def setUp(self) -> None:
        self.world = World()
        self.ui = self.world.connect()

    def test_reply(self) -> None:
        self.world.metadata.users["sub-anna"] = User(
            id="anna@example.org",
            user_id="sub-anna",
            name="Anna Smith",
            language=Language.EN,
            has_multiple_edges=True,
            settings={"theme": "dark"},
            global_role=Role.OWNER,
        )
        self.assertEqual(
            self.ui.ask("authenticateWithPassword", ANNA),
            ok(
                {
                    "token": "token-1",
                    "user": {
                        "id": "anna@example.org",
                        "name": "Anna Smith",
                        "language": "EN",
                        "hasMultipleEdges": True,
                        "settings": {"theme": "dark"},
                        "globalRole": "owner",
                    },
                    "edges": [],
                }
            ),
        )

    def test_wrong_credentials(self) -> None:
        for params in (
            {"username": "anna@example.org", "password": "wrong"},
            {"username": "nobody", "password": "s3cret"},
            {"password": "s3cret"},
            {"username": "", "password": "s3cret"},
            {"username": "anna@example.org", "password": "x" * 100_000},
        ):
            self.assertEqual(self.ui.ask("authenticateWithPassword", params), REFUSED)
        self.assertEqual(self.ui.ask("getEdges", {"page": 0}), NOBODY)

    def test_missing_password_is_named_and_nothing_repeated(self) -> None:
        reply = self.ui.ask("authenticateWithPassword", {"username": "anna@example.org", "passwort": "s3cret"})
        self.assertEqual(reply, failed(5010, "JSON [password:{}] is not a String member", "password", "{}"))

    def test_outage_keeps_the_cookies(self) -> None:
        """ui.md 19, 6: code 1; what the failure says stays inside."""
        for failure in (OSError("connect to 10.0.0.1 with secret"), OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)):
            self.world.password.fail = failure
            self.assertEqual(self.ui.ask("authenticateWithPassword", ANNA), failed(1, UNAVAILABLE, UNAVAILABLE))
        self.world.password.fail = None
        self.world.metadata.fail = RuntimeError("database is away")
        self.assertEqual(self.ui.ask("authenticateWithPassword", ANNA), failed(1, UNAVAILABLE, UNAVAILABLE))
        self.assertEqual(self.ui.ask("getEdges", {"page": 0}), NOBODY)

    def test_provider_that_never_answers(self) -> None:
        self.world.password.wait = Deferred()
        self.assertEqual(self.ui.ask_all("authenticateWithPassword", ANNA), [])
        self.world.clock.advance(30)
        self.assertEqual(self.ui.connection.take(), [failed(1, UNAVAILABLE, UNAVAILABLE)])

    def test_throttled(self) -> None:
        self.world.password.fail = OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
        self.assertEqual(self.ui.ask("authenticateWithPassword", ANNA)["error"]["code"], 4005)

    def test_no_such_service(self) -> None:
        ui = World(password=None).connect()
        self.assertEqual(ui.ask("authenticateWithPassword", ANNA)["error"]["code"], 4001)
        self.assertEqual(ui.ask("authenticateWithToken", {"token": "t"})["error"]["code"], 4001)

    def test_t007_before_metadata_is_initialized(self) -> None:
        self.world.metadata.initialized = False
        self.assertEqual(self.ui.ask("authenticateWithPassword", ANNA), failed(1, UNAVAILABLE, UNAVAILABLE))
        self.assertEqual(self.ui.ask("getEdges", {"page": 0})["error"]["code"], 1006)
        self.world.metadata.initialized = True
        self.assertIn("result", self.ui.ask("authenticateWithPassword", ANNA))

    def test_requests_sent_with_the_login_wait_for_it(self) -> None:
        self.world.password.wait = Deferred()
        self.ui.send("authenticateWithPassword", ANNA)
        self.ui.send("getEdge", {"edgeId": "edge0"}, INNER)
        self.assertEqual(self.ui.connection.messages(), [])
        self.world.password.wait.callback(None)
        self.assertEqual(
            {message["id"]: "result" in message for message in self.ui.connection.take()}, {ID: True, INNER: True}
        )

    def test_logout_after_login_wins_though_the_login_is_slow(self) -> None:
        self.world.password.wait = Deferred()
        self.ui.send("authenticateWithPassword", ANNA)
        self.ui.send("logout", {}, INNER)
        self.world.password.wait.callback(None)
        self.ui.connection.take()
        self.assertEqual(self.ui.ask("getEdges", {"page": 0}), NOBODY)

    def test_connection_lost_during_the_login(self) -> None:
        self.world.password.wait = Deferred()
        self.ui.send("authenticateWithPassword", ANNA)
        self.ui.connection.lose()
        self.assertIsNone(self.ui.session.user)
        self.assertEqual(self.world.server.sessions, {})

    def test_failed_second_login_changes_nothing(self) -> None:
        """auth.md S18"""
        self.ui.ask("authenticateWithPassword", ANNA)
        self.assertEqual(self.ui.ask("authenticateWithToken", {"token": "abc"}), REFUSED)
        self.assertEqual(self.ui.session.token, "token-1")
        self.assertIn("result", self.ui.ask("getEdges", {"page": 0}))


class TokenLoginTest(SynchronousTestCase):
    def test_t045_bad_tokens_then_a_password(self) -> None:
        ui = World().connect()
        for token in ("eyJhbGciOi.expired.x", "abc", "", "x" * 20_000, "x" * (MAX_TOKEN + 1)):
            self.assertEqual(ui.ask("authenticateWithToken", {"token": token}), REFUSED)
        self.assertEqual(
            ui.ask("authenticateWithPassword", ANNA), ok({"token": "token-1", "user": USER_JSON, "edges": []})
        )

    def test_good_token(self) -> None:
        ui = World().connect()
        self.assertEqual(
            ui.ask("authenticateWithToken", {"token": "token-1"}),
            ok({"token": "token-1", "user": USER_JSON, "edges": []}),
        )


class OAuthTest(SynchronousTestCase):
    """ui.md 5.5"""

    def setUp(self) -> None:
        self.world = World()
        self.ui = self.world.connect()

    def test_start(self) -> None:
        self.assertEqual(
            self.ui.ask("authenticateWithOAuth", oauth("initiateConnect", oem="openems")),
            ok({"identifier": "i1", "state": "i1", "loginUrl": "https://login.example.org/auth"}),
        )
        text = "Unable to initiate connection"
        self.assertEqual(self.ui.ask("authenticateWithOAuth", oauth("initiateConnect")), failed(1, text, text))

    def test_start_is_limited_for_an_address(self) -> None:
        codes = []
        for port in range(30):
            ui = self.world.connect(remote=f"198.51.100.1:{port}")
            codes.append(
                ui.ask("authenticateWithOAuth", oauth("initiateConnect", oem="o")).get("error", {}).get("code")
            )
        self.assertEqual(codes, [None] * 21 + [4005] * 9)
        self.assertIn("result", self.ui.ask("authenticateWithOAuth", oauth("initiateConnect", oem="o")))

    def test_t19_code(self) -> None:
        """ui.md 20 T19 with 19, 9: repeated for some seconds on the same connection, single use otherwise."""
        params = oauth("getTokenByCode", oem="openems", identifier="i1", code="c1")
        reply = ok({"accessToken": "access", "refreshToken": "refresh", "user": USER_JSON})
        self.assertEqual(self.ui.ask("authenticateWithOAuth", params), reply)
        self.assertEqual(self.ui.ask("authenticateWithOAuth", params), reply)
        other = oauth("getTokenByCode", oem="openems", identifier="i1", code="c2")
        self.assertEqual(self.ui.ask("authenticateWithOAuth", other), REFUSED)
        self.assertEqual(self.world.connect().ask("authenticateWithOAuth", params), REFUSED)
        self.world.clock.advance(5)
        self.assertEqual(self.ui.ask("authenticateWithOAuth", params), REFUSED)
        self.assertIn("result", self.ui.ask("getEdges", {"page": 0}))

    def test_code_is_not_repeated_after_logout(self) -> None:
        params = oauth("getTokenByCode", oem="openems", identifier="i1", code="c1")
        self.ui.ask("authenticateWithOAuth", params)
        self.ui.ask("logout")
        self.assertEqual(self.ui.ask("authenticateWithOAuth", params), REFUSED)

    def test_refresh_token(self) -> None:
        self.assertEqual(
            self.ui.ask("authenticateWithOAuth", oauth("getTokenByRefreshToken", oem="o", refreshToken="r")),
            ok({"accessToken": "access2", "refreshToken": "refresh2", "user": USER_JSON}),
        )
        self.assertEqual(self.ui.session.token, "access2")

    def test_failing_user_lookup_leaves_nobody(self) -> None:
        """ui.md 19, 10"""
        self.world.metadata.users.clear()
        params = oauth("getTokenByCode", oem="openems", identifier="i1", code="c1")
        self.assertEqual(self.ui.ask("authenticateWithOAuth", params), REFUSED)
        self.assertIsNone(self.ui.session.token)

    def test_bad_requests(self) -> None:
        code = {"oem": "o", "identifier": "i", "code": "secret"}
        for params, error in (
            ({}, 5003),
            ({"payload": {"method": "getTokenByCode", "params": code}}, 5033),
            ({"payload": {"params": code, "id": INNER}}, 5010),
            (oauth("getTokenByCode", oem="o", identifier="i"), 5010),
            (oauth("getTokenByRefreshToken", refreshToken="secret"), 5010),
            (oauth("fooBar"), 4001),
        ):
            reply = self.ui.ask("authenticateWithOAuth", params)
            self.assertEqual(reply["error"]["code"], error)
            self.assertNotIn("secret", str(reply))

    def test_unsupported(self) -> None:
        ui = World(code_flow=None).connect()
        text = "OAuth authentication is not supported by this OpenEMS instance"
        self.assertEqual(
            ui.ask("authenticateWithOAuth", oauth("initiateConnect", oem="o")),
            failed(4001, f"Unhandled JSON-RPC method [{text}]", text),
        )

    def test_password_login_needs_no_oauth_service(self) -> None:
        """ui.md 19, 1"""
        ui = World(code_flow=None).login()
        self.assertIn("result", ui.ask("getEdges", {"page": 0}))


class LogoutTest(SynchronousTestCase):
    """ui.md 5.4, 19, 2"""

    def test_t8_without_login(self) -> None:
        self.assertEqual(World().connect().ask("logout"), ok({}))

    def test_everything_ends(self) -> None:
        world = World()
        world.metadata.roles["edge0"] = Role.OWNER
        world.edges.connected.add("edge0")
        ui = world.login()
        self.assertEqual(ui.ask("subscribeEdges", {"edges": ["edge0"]}), ok({}))
        ui.subscribe("A/x")
        ui.edge_rpc("subscribeSystemLog", {"subscribe": True})
        self.assertEqual(len(world.edges.system_logs), 1)
        self.assertEqual(ui.ask("logout"), ok({}))
        self.assertEqual(world.password.logouts, ["token-1"])
        self.assertEqual(world.edges.system_logs, set())
        world.server.send_subscribed_channels("edge0")
        self.assertEqual(ui.connection.take(), [])
        self.assertEqual(ui.ask("getEdges", {"page": 0}), NOBODY)

    def test_failing_service_is_nobodys_problem(self) -> None:
        world = World()
        ui = world.login()
        world.password.fail = OSError("away")
        self.assertEqual(ui.ask("logout"), ok({}))

    def test_new_login_starts_without_subscriptions(self) -> None:
        """ui.md 19, 3"""
        world = World()
        world.metadata.roles["edge0"] = Role.GUEST
        world.edges.connected.add("edge0")
        ui = world.login()
        ui.ask("subscribeEdges", {"edges": ["edge0"]})
        ui.subscribe("A/x")
        world.metadata.users["sub-jan"] = User(id="jan", user_id="sub-jan", name="Jan")
        self.assertIn("result", ui.ask("authenticateWithPassword", {"username": "jan", "password": "s3cret"}))
        world.server.send_subscribed_channels("edge0")
        self.assertEqual(ui.connection.take(), [])


class RegisterTest(SynchronousTestCase):
    """ui.md 6, 19, 16"""

    def setUp(self) -> None:
        self.world = World()

    def register(self, ui: Ui | None = None, **changes: Any) -> dict[str, Any]:
        ui = ui or self.world.connect()
        return ui.ask("registerUser", {"user": {**USER, **changes}, "oem": "OpenEMS"})

    def test_registered(self) -> None:
        self.assertEqual(self.register(), ok({}))
        self.assertEqual(self.world.registration.records[0]["email"], "jan@example.org")

    def test_roles(self) -> None:
        for role in ("admin", "guest", "ADMIN", "foo"):
            self.assertEqual(self.register(role=role)["error"]["code"], 1)
        self.assertEqual(self.world.registration.records, [])
        self.assertEqual(self.register(role="OWNER"), ok({}))

    def test_missing_parameters(self) -> None:
        ui = self.world.connect()
        self.assertEqual(ui.ask("registerUser", {"oem": "o"})["error"]["code"], 5003)
        self.assertEqual(ui.ask("registerUser", {"user": USER})["error"]["code"], 5010)

    def test_limited_for_an_address(self) -> None:
        """auth.md S15"""
        codes = [self.register().get("error", {}).get("code") for _ in range(20)]
        self.assertEqual(codes, [None] * 6 + [4005] * 14)
        self.assertEqual(self.register(self.world.connect(remote="203.0.113.9:1")), ok({}))

    def test_no_such_service(self) -> None:
        self.world = World(registration=None)
        self.assertEqual(self.register()["error"]["code"], 1)


class SecretsTest(SynchronousTestCase):
    def test_t1_session_text(self) -> None:
        """ui.md 20 T1, without the token (auth.md S12)"""
        world = World()
        ui = world.connect()
        self.assertEqual(str(ui.session), "UiWebsocket.WsData [userId=UNKNOWN, token=UNKNOWN]")
        ui.ask("authenticateWithPassword", ANNA)
        self.assertEqual(str(ui.session), "UiWebsocket.WsData [userId=sub-anna, token=HIDDEN]")
        ui.ask("logout")
        self.assertEqual(str(ui.session), "UiWebsocket.WsData [userId=UNKNOWN, token=UNKNOWN]")

    def test_no_secret_gets_into_log_or_reply(self) -> None:
        """auth.md S12: each secret member of each login is a marker, each service fails with it in its text."""
        seen: list[str] = []
        observer = textFileLogObserver(_Lines(seen))
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        world = World()
        ui = world.connect()
        secret = "MARKER"

        async def fail(*_: Any) -> Any:
            raise RuntimeError(f"POST failed: {secret}")

        for service in (world.password, world.code_flow, world.registration):
            for name in [name for name in dir(service) if not name.startswith("_")]:
                if callable(getattr(service, name)):
                    setattr(service, name, fail)
        ui.session.token = secret
        user = {**USER, "password": secret}
        for method, params in (
            ("authenticateWithPassword", {"username": "u", "password": secret}),
            ("authenticateWithPassword", {"username": "u", "passwort": secret}),
            ("authenticateWithToken", {"token": secret}),
            ("authenticateWithToken", {"tokn": secret}),
            ("authenticateWithOAuth", oauth("getTokenByCode", oem="o", identifier="i", code=secret)),
            ("authenticateWithOAuth", oauth("getTokenByCode", oem="o", code=secret)),
            ("authenticateWithOAuth", oauth("getTokenByRefreshToken", oem="o", refreshToken=secret)),
            ("authenticateWithOAuth", {"payload": {"method": "x", "params": {"code": secret}, "id": 1}}),
            ("authenticateWithOAuth", {"payload": [secret]}),
            ("registerUser", {"user": user, "oem": "o"}),
            ("registerUser", {"user": user}),
            ("registerUser", {"user": {"password": secret}, "oem": "o"}),
            ("registerUser", {"user": [secret], "oem": "o"}),
            ("logout", {}),
        ):
            with self.subTest(method=method, params=params):
                self.assertNotIn(secret, str(ui.ask(method, params)))
        self.assertTrue(seen)
        self.assertNotIn(secret, "".join(seen))
