"""Tokens for edges (auth.md 10, S24, Part D)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from openems.backend.edge.requests import EdgeRequests
from openems.backend.interfaces import IDebugLoggable, IOAuthRegistry
from openems.backend.oauthregistry.registry import OAuthRegistry, Provider
from openems.common import errors
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Request, raw
from openems.testing.keycloak import FakeKeycloak

ID = "a0000000-0000-4000-8000-000000000001"
INNER = "a0000000-0000-4000-8000-000000000002"
JSON = {"content-type": "application/json"}
TOKENS = b'{"access_token":"eyJh.a","refresh_token":"eyJh.r","expires_in":300,"token_type":"Bearer"}'


def provider(**changes: Any) -> Provider:
    settings: dict[str, Any] = {
        "identifier": "luox_prod",
        "authentication_url": "https://auth.example.com/realms/luox/protocol/openid-connect/auth",
        "token_url": "https://auth.example.com/realms/luox/protocol/openid-connect/token",
        "client_id": "ems",
        "client_secret": "s",
        "redirect_uri": "https://ui.example.com/",
        **changes,
    }
    return Provider(**settings)


class Registry(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.fake = FakeKeycloak(self.clock)
        self.fake.answer = lambda asked: (200, JSON, TOKENS)
        self.make(provider())

    def make(self, *providers: Provider, **options: Any) -> None:
        self.registry = OAuthRegistry(providers, reactor=self.clock, agent=self.fake.agent, **options)
        self.requests = EdgeRequests(None, None, self.registry)

    def ask(self, method: str, edge_id: str = "edge7", **params: Any) -> Any:
        payload = {"jsonrpc": "2.0", "id": INNER, "method": method, "params": params}
        outcome = Deferred.fromCoroutine(
            self.requests.handle(edge_id, Request("oauthRegistry", raw({"payload": payload}), ID))
        )
        self.fake.pump()
        return outcome

    def by_code(self, edge_id: str = "edge7", **changes: Any) -> Any:
        params = {"identifier": "luox_prod", "code": "c", "scopes": ["openid", "profile"], **changes}
        return self.ask("getTokenByCode", edge_id, **{k: v for k, v in params.items() if v is not None})

    def by_refresh_token(self, edge_id: str = "edge7", **changes: Any) -> Any:
        params = {"identifier": "luox_prod", "refreshToken": "r", "scopes": ["openid"], **changes}
        return self.ask("getTokenByRefreshToken", edge_id, **{k: v for k, v in params.items() if v is not None})

    def refused(self, outcome: Any, message: str | None = None, code: int = 1) -> str:
        error = self.failureResultOf(outcome, OpenemsError).value
        self.assertEqual(error.code, code, error.message)
        if message is not None:
            self.assertEqual(error.message, message)
        return str(error.message)

    def test_interfaces(self) -> None:
        verifyObject(IOAuthRegistry, self.registry)
        verifyObject(IDebugLoggable, self.registry)

    def test_init_metadata(self) -> None:
        self.assertEqual(
            self.successResultOf(self.ask("getInitMetadata", identifier="luox_prod")),
            {
                "authenticationUrl": "https://auth.example.com/realms/luox/protocol/openid-connect/auth",
                "clientId": "ems",
                "redirectUrl": "https://ui.example.com/",
            },
        )

    def test_form(self) -> None:
        """Part D, registry form body."""
        self.assertEqual(self.successResultOf(self.by_code()), {"accessToken": "eyJh.a", "refreshToken": "eyJh.r"})
        (asked,) = self.fake.asked
        self.assertEqual(
            asked.form,
            {
                "client_id": "ems", "client_secret": "s", "redirect_uri": "https://ui.example.com/",
                "scope": "openid profile", "grant_type": "authorization_code", "code": "c",
            },
        )  # fmt: skip
        self.assertEqual(asked.headers["accept"], "application/json")

    def test_code_verifier(self) -> None:
        self.successResultOf(self.by_code(codeVerifier="AAECAwQF"))
        self.assertEqual(self.fake.asked[0].form["code_verifier"], "AAECAwQF")

    def test_refresh(self) -> None:
        self.successResultOf(self.by_refresh_token())
        form = self.fake.asked[0].form
        self.assertEqual((form["grant_type"], form["refresh_token"]), ("refresh_token", "r"))

    def test_errors(self) -> None:
        """auth.md 10.5."""
        unknown = "Unable to find OAuth client with identifier 'nope'"
        self.refused(self.ask("getInitMetadata", identifier="nope"), unknown)
        self.refused(self.by_code(identifier="nope"), unknown)
        self.refused(self.by_refresh_token(identifier="nope"), unknown)
        self.refused(self.ask("nothing", identifier="luox_prod"), code=errors.JSONRPC_UNHANDLED_METHOD)
        self.assertEqual(self.fake.asked, [])
        for status, text in ((400, "Http 400 Bad Request"), (401, "Http 401 Unauthorized"), (409, "Http 409 Conflict"),
                             (418, "Http 418 I'm a teapot"), (499, "Http 499 Unknown Status")):  # fmt: skip
            self.fake.answer = lambda asked, status=status: (status, JSON, b"{}")
            self.refused(self.by_code(), text)

    def test_s24_replies_without_a_refresh_token(self) -> None:
        self.fake.answer = lambda asked: (200, JSON, b'{"access_token":"secret-token"}')
        self.assertEqual(
            self.successResultOf(self.by_refresh_token()), {"accessToken": "secret-token", "refreshToken": "r"}
        )
        self.assertNotIn("secret-token", self.refused(self.by_code()))
        for body in (b"{}", b'{"access_token":5}', b"[]", b"x", b'{"access_token":""}'):
            self.fake.answer = lambda asked, body=body: (200, JSON, body)
            self.refused(self.by_refresh_token())

    def test_s24_edges_and_scopes(self) -> None:
        self.make(provider(edges=["edge7"], scopes=["openid", "profile"]))
        self.successResultOf(self.ask("getInitMetadata", identifier="luox_prod"))
        # As if it were not there.
        unknown = "Unable to find OAuth client with identifier 'luox_prod'"
        self.refused(self.ask("getInitMetadata", "edge8", identifier="luox_prod"), unknown)
        self.refused(self.by_code("edge8"), unknown)
        self.refused(self.by_refresh_token("edge8"), unknown)
        self.refused(self.by_code(scopes=["openid", "admin"]), "A scope is not allowed for this OAuth client")
        self.assertEqual(self.fake.asked, [])
        self.successResultOf(self.by_code(scopes=["profile"]))
        self.successResultOf(self.by_code(scopes=[]))

    def test_s24_limit_of_an_edge(self) -> None:
        codes = []
        for _ in range(15):
            outcome = self.by_code()
            if outcome.result.__class__ is dict:
                self.successResultOf(outcome)
            else:
                codes.append(self.failureResultOf(outcome, OpenemsError).value.code)
        self.assertEqual(codes, [errors.JSONRPC_TOO_MANY_REQUESTS] * 5)
        self.successResultOf(self.by_code("edge8"))
        self.clock.advance(6)
        self.successResultOf(self.by_code())
        self.refused(self.by_code(), code=errors.JSONRPC_TOO_MANY_REQUESTS)

    def test_q30_a_slow_provider_holds_up_no_other(self) -> None:
        self.make(
            provider(),
            provider(identifier="other", token_url="https://other.example.com/realms/x/protocol/openid-connect/token"),
        )
        self.fake.delay = None
        waiting = [self.by_code(f"edge{n}") for n in range(30)]
        self.fake.delay = 0.0
        self.successResultOf(self.by_code("edge99", identifier="other"))
        self.fake.delay = None
        self.fake.advance(10)
        for outcome in waiting:
            self.refused(outcome, "The OAuth provider gave no usable answer: timeout")

    def test_odd_inputs(self) -> None:
        for text in ("", "a\r\nb", "x" * 20_000, "ä", "a\0"):
            self.refused(self.by_code(code=text))
            self.refused(self.by_code(codeVerifier=text))
            self.refused(self.by_refresh_token(refreshToken=text))
            self.refused(self.by_code(scopes=[text]))
            self.assertLess(len(self.refused(self.by_code(identifier=text or None))), 300)
        self.refused(self.by_code(scopes=["x"] * 100))
        self.assertEqual(self.fake.asked, [])

    def test_debug_log(self) -> None:
        self.by_code().addErrback(lambda _: None)
        self.assertEqual(
            self.registry.debug_log(),
            "[OAuthRegistry] Sum-Tasks: getInitMetadata:0, fetchTokensFromCode:1, fetchTokensFromRefreshToken:0",
        )
        self.assertEqual(self.registry.debug_metrics()["OAuthRegistry/Calls"], 1)
