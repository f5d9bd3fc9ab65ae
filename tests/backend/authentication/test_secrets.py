"""No secret comes out (auth.md S12, S18, S23): every message of a login with marked secrets, every way it can fail, all
log levels; then logs, replies and metrics are searched for the marks."""

from __future__ import annotations

import itertools
import json
import traceback
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from openems.application.config import parse
from openems.backend.authentication.keycloak.client import TokenReply
from openems.backend.authentication.keycloak.pending import Pending
from openems.backend.edge.requests import EdgeRequests
from openems.backend.models import Authenticated, OAuthTokens
from openems.backend.oauthregistry.registry import OAuthRegistry, Provider
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Request, raw
from openems.common.redact import fingerprint, is_secret, redacted, redacted_text
from tests.backend.authentication.test_registration import record
from tests.backend.authentication.world import ACME, CALLBACK, OPENEMS, WithKeycloak
from tests.backend.ui.world import World

MARK = "m4rk3r"
ID = "00000000-0000-4000-8000-000000000001"


def marked(name: str) -> str:
    return f"{MARK}-{name}"


def repeated(asked: Any) -> bytes:
    """An error that repeats what was sent."""
    said = ", ".join(asked.form.get(name, "") for name in ("code", "password", "refresh_token", "client_secret"))
    return json.dumps({"error": "invalid_grant", "error_description": f"No good: {said}"}).encode()


class Heard:
    """Every log event of the test, as it would be written, with its failure and its values."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        parts = [formatEvent(event), repr({k: v for k, v in event.items() if not k.startswith("log_")})]
        if "log_failure" in event:
            parts.append(event["log_failure"].getTraceback())
        self.texts.append("\n".join(parts))


class Messages(WithKeycloak):
    def setUp(self) -> None:
        self.heard = Heard()
        globalLogPublisher.addObserver(self.heard)
        self.addCleanup(globalLogPublisher.removeObserver, self.heard)
        super().setUp()
        self.fake.clients = {"openems": marked("secret"), "acme": marked("secret2")}
        self.fake.users[self.mia]["password"] = marked("right")
        secret = {"oem": "openems", "client_secret": marked("secret"), "service_account": True}
        self.metrics: list[tuple[str, str, float]] = []
        self.remake(
            oems=[type(OPENEMS)(**secret), type(ACME)(oem="acme", client_id="acme", client_secret=marked("secret2"))],
            debug=True,
            observe=lambda *values: self.metrics.append(values),
        )
        self.methods: list[str] = []
        self.world = World(
            password=self.keycloak,
            code_flow=self.keycloak,
            registration=self.keycloak,
            observe=lambda method, seconds: self.methods.append(method),
        )
        self.world.clock = self.clock
        self.patch(self.world.metadata, "get_user_by_external_id", self.metadata.get_user_by_external_id)
        self.replies: list[Any] = []

    def ask(self, ui: Any, method: str, params: dict[str, Any]) -> Any:
        ui.connection.take()
        ui.send(method, params)
        self.fake.advance(2)
        replies = ui.connection.take()
        self.replies += replies
        return replies[0] if replies else None

    def oauth(self, ui: Any, method: str, params: dict[str, Any]) -> Any:
        payload = {"jsonrpc": "2.0", "id": ID, "method": method, "params": params}
        return self.ask(ui, "authenticateWithOAuth", {"payload": payload})

    def everything(self, ui: Any) -> None:
        """Each message, right and wrong, whole and broken."""
        token = f"{self.fake.access_token(self.mia, jti=marked('jti'))}"
        self.tokens.append(token)
        code = {"identifier": "i", "oem": "openems", "code": marked("code")}
        refresh = {"oem": "openems", "refreshToken": marked("refresh")}
        user = {**record(password=marked("password"), email=f"e{len(self.replies)}@example.com")}
        user["confirmPassword"] = marked("confirm")
        self.ask(ui, "authenticateWithPassword", {"username": "mia@example.com", "password": marked("right")})
        self.ask(ui, "authenticateWithPassword", {"username": "mia@example.com", "password": marked("wrong")})
        self.ask(ui, "authenticateWithPassword", {"password": marked("nobody")})
        self.ask(ui, "authenticateWithPassword", {"username": 5, "password": marked("odd")})
        self.ask(ui, "authenticateWithPassword", {"username": "x", "password": [marked("odd")]})
        self.ask(ui, "authenticateWithToken", {"token": token})
        self.ask(ui, "authenticateWithToken", {"token": token[:-9] + "AAAAAAAAA"})
        self.ask(ui, "authenticateWithToken", {"token": marked("token")})
        self.ask(ui, "authenticateWithToken", {"token": {"x": marked("token")}})
        self.ask(ui, "authenticateWithToken", {"tocken": marked("token")})
        for changes in ({}, {"oem": "none"}, {"oem": None}, {"identifier": None}, {"code": None}):
            self.oauth(ui, "getTokenByCode", {k: v for k, v in {**code, **changes}.items() if v is not None})
        for changes in ({}, {"oem": "none"}, {"oem": None}, {"refreshToken": [marked("refresh")]}):
            self.oauth(ui, "getTokenByRefreshToken", {k: v for k, v in {**refresh, **changes}.items() if v is not None})
        started = self.oauth(ui, "initiateConnect", {"oem": "openems", "redirectUri": CALLBACK})
        if started and "result" in started:
            begun = started["result"]
            login = {"identifier": begun["identifier"], "oem": "openems"}
            login["code"] = self.fake.browser_login(begun["loginUrl"], self.mia)
            reply = self.oauth(ui, "getTokenByCode", login)
            if "result" in reply:
                self.succeeded += 1
                result = reply["result"]
                self.tokens += [result["accessToken"], result["refreshToken"], login["code"]]
                refresh = {"oem": "openems", "refreshToken": result["refreshToken"]}
                self.oauth(ui, "getTokenByRefreshToken", refresh)
        self.oauth(ui, "noSuchMethod", {"code": marked("code")})
        self.ask(ui, "authenticateWithOAuth", {"code": marked("code")})
        self.ask(ui, "authenticateWithOAuth", {"payload": {"method": "getTokenByCode", "params": code}})
        self.ask(ui, "authenticateWithOAuth", {"payload": {"id": ID, "params": code}})
        self.ask(ui, "registerUser", {"user": user, "oem": "openems"})
        self.ask(ui, "registerUser", {"user": {**user, "role": "admin"}, "oem": "openems"})
        self.ask(ui, "registerUser", {"user": {**user, "address": marked("address")}, "oem": "openems"})
        self.ask(ui, "registerUser", {"user": {k: v for k, v in user.items() if k != "lastname"}, "oem": "openems"})
        self.ask(ui, "registerUser", {"user": user})
        self.ask(ui, "registerUser", {"password": marked("p")})
        self.ask(ui, "logout", {})
        self.ask(ui, "getEdges", {"password": marked("p"), "token": marked("t")})

    def test_s12_no_mark_comes_out(self) -> None:
        self.tokens: list[str] = []
        self.succeeded = 0
        kinds: list[Any] = [
            lambda asked: None,
            lambda asked: (400, {"content-type": "application/json"}, repeated(asked)),
            lambda asked: (401, {"content-type": "application/json"}, b'{"error":"unauthorized_client"}'),
            lambda asked: (403, {"content-type": "text/html"}, marked("page").encode()),
            lambda asked: (500, {"content-type": "text/html"}, marked("page").encode()),
            lambda asked: (302, {"location": marked("location")}, b""),
            lambda asked: (200, {"content-type": "text/odd"}, marked("body").encode()),
            lambda asked: (200, {"content-type": "application/json"}, f'{{"x":"{marked("body")}"'.encode()),
            lambda asked: (200, {"content-type": "application/json"}, f'{{"access_token":"{marked("a")}"}}'.encode()),
        ]
        for number, kind in enumerate(kinds):
            self.fake.answer = lambda asked, kind=kind: kind(asked) if asked.form or "/admin" in asked.path else None
            self.everything(self.world.connect(remote=f"192.0.2.{number}:1"))
        self.assertGreater(len(self.replies), 250)
        self.assertEqual(self.succeeded, 1)
        text = "\n".join(self.heard.texts)
        self.search(text, "logs")
        # A reply may hold the tokens of the login that it is the reply to; errors may hold nothing.
        self.search("\n".join(str(reply) for reply in self.replies if "error" in reply), "errors")
        self.search(repr(self.metrics) + repr(self.methods) + repr(self.keycloak.debug_metrics()), "metrics")
        self.search(str(self.keycloak.debug_log()) + repr(self.keycloak.problems()), "health")
        self.assertIn("refused", text)
        self.assertTrue(any("token_password" in path for path, _, _ in self.metrics))

    def search(self, text: str, where: str) -> None:
        for line in text.splitlines():
            if MARK in line:
                self.fail(f"{where}: {line[:2000]}")
            for token in (*self.tokens, *self.fake.sessions):
                self.assertNotIn(token[-30:], line, where)

    def test_s18_a_second_login_that_fails(self) -> None:
        """Never one's user with another's token."""
        ui = self.world.connect()
        first = self.ask(ui, "authenticateWithToken", {"token": self.fake.access_token(self.mia)})
        self.assertIn("result", first)
        before = ui.session.user, ui.session.token
        stranger = self.fake.access_token(self.fake.add_user("stranger@example.com", "x"))
        self.assertIn("error", self.ask(ui, "authenticateWithToken", {"token": stranger}))
        self.assertIn((ui.session.user, ui.session.token), (before, (None, None)))

    def test_s13_tokens_of_one_address(self) -> None:
        """Over as many sockets as one likes; another address is served."""
        codes = []
        for number in range(60):
            ui = self.world.connect(remote=f"192.0.2.1:{5000 + number}")
            reply = self.ask(ui, "authenticateWithToken", {"token": f"x{number}"})
            codes.append(reply["error"]["code"])
        self.assertGreaterEqual(codes.count(4005), 15)
        ui = self.world.connect(remote="198.51.100.1:1")
        reply = self.ask(ui, "authenticateWithToken", {"token": "y"})
        self.assertEqual(reply["error"]["code"], 1003)

    def test_s15_registrations_of_one_address(self) -> None:
        codes = []
        for number in range(20):
            ui = self.world.connect(remote=f"192.0.2.1:{5000 + number}")
            user = record(email=f"n{number}@example.com")
            reply = self.ask(ui, "registerUser", {"user": user, "oem": "openems"})
            codes.append(reply.get("error", {}).get("code"))
        self.assertGreaterEqual(codes.count(4005), 10)
        self.assertIn(None, codes)


class Edges(WithKeycloak):
    def test_s12_what_edges_send(self) -> None:
        provider = Provider(
            identifier="p", authentication_url="http://localhost/a", token_url="http://localhost/realms/x/token",
            client_id="c", client_secret=marked("secret"), redirect_uri="http://localhost/",
        )  # fmt: skip
        registry = OAuthRegistry([provider], reactor=self.clock, agent=self.fake.agent)
        requests = EdgeRequests(None, None, registry)
        told = [repr(provider), repr(registry)]
        good = {"identifier": "p", "code": marked("code"), "refreshToken": marked("refresh"), "scopes": ["a"]}
        for method, name in itertools.product(
            ("getTokenByCode", "getTokenByRefreshToken", "nothing"),
            ("", "identifier", "code", "refreshToken", "scopes"),
        ):
            params = {key: value for key, value in good.items() if key != name}
            for inner in (
                {"jsonrpc": "2.0", "id": ID, "method": method, "params": params},
                {"id": ID, "method": method, "params": {**params, "scopes": [{"code": marked("x")}]}},
                {"method": method, "params": params},
                {"id": ID, "params": params},
                params,
            ):
                for outer in ({"payload": inner}, inner):
                    outcome = self.begin(requests.handle("edge0", Request("oauthRegistry", raw(outer), ID)))
                    error = self.failureResultOf(outcome, OpenemsError).value
                    told.append(f"{error} {error.message} {error.data}")
        for text in told:
            self.assertNotIn(MARK, text)


class Representations(SynchronousTestCase):
    def test_s23(self) -> None:
        secret = marked("secret")
        text = f"""
            [metadata.dummy]
            [authentication.oauth]
            [[authentication.oauth.clientconfig]]
            clientSecret = "{secret}"
            [[oauthregistry.client]]
            identifier = "a"
            authenticationUrl = "https://a"
            tokenUrl = "https://a/t"
            clientId = "c"
            clientSecret = "{secret}"
            redirectUri = "https://u/"
        """
        configuration = parse(text, "x.toml")
        self.assertEqual(configuration.authentication_oauth_clientconfig[0].client_secret, secret)
        for value in (
            configuration, *configuration.authentication_oauth_clientconfig, *configuration.oauthregistry_client,
            OPENEMS, type(OPENEMS)(client_secret=secret), TokenReply(secret, secret, secret),
            Authenticated("u", "l", secret), OAuthTokens(secret, secret, "u"),
            Pending("o", CALLBACK, secret, secret, "a", 1.0),
        ):  # fmt: skip
            self.assertNotIn(MARK, repr(value) + str(value))
        try:
            raise ValueError(configuration)
        except ValueError:
            self.assertNotIn(MARK, traceback.format_exc())

    def test_redaction(self) -> None:
        for name in (
            "password", "confirmPassword", "accessToken", "access_token", "refreshToken", "code", "codeVerifier",
            "client_secret", "clientSecret", "Authorization", "Cookie", "Set-Cookie", "setupPassword", "id_token",
            "apikey",
        ):  # fmt: skip
            self.assertTrue(is_secret(name), name)
            self.assertNotIn(MARK, str(redacted({"a": [{name: marked("x")}]})))
            self.assertNotIn(MARK, redacted_text(f"x={{{name}: {marked('x')}, y}}"), name)
            self.assertNotIn(MARK, redacted_text(f'{{"{name}":"{marked("x")} and more","y":1}}'), name)
            self.assertNotIn(MARK, redacted_text(f"a=b&{name}={marked('x')}&c=d"), name)
        for name in ("username", "passwordPolicy", "codec", "redirectUri", "identifier", "oem"):
            self.assertFalse(is_secret(name), name)
        self.assertEqual(redacted({"user": "mia", "n": 5}), {"user": "mia", "n": 5})
        deep: Any = marked("x")
        for _ in range(100):
            deep = {"a": deep}
        self.assertNotIn(MARK, str(redacted(deep)))
        self.assertEqual(len(fingerprint("x")), 8)

    @settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
    @given(st.text(max_size=200))
    def test_any_text(self, text: str) -> None:
        self.assertIsInstance(redacted_text(text), str)
        self.assertNotIn(MARK, redacted_text(f"password={MARK}&{text}"))
