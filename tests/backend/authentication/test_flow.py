"""Logins by browser against a Keycloak of the test kit (auth.md S1 to S6, S19)."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from twisted.internet.defer import Deferred

from openems.backend.authentication.keycloak.pending import MAX_OF_ADDRESS, MAX_PENDING
from openems.backend.authentication.keycloak.redirects import is_allowed
from openems.backend.authentication.keycloak.settings import Oem
from openems.common import errors
from tests.backend.authentication.world import CALLBACK, WithKeycloak


class Codes(WithKeycloak):
    def test_login(self) -> None:
        tokens = self.log_in()
        self.assertEqual(tokens.user_id, self.mia)
        (post,) = self.fake.posts("authorization_code")
        self.assertEqual(post.form["redirect_uri"], CALLBACK)
        self.assertEqual(post.headers["content-type"], "application/x-www-form-urlencoded")
        self.assertEqual(len(post.form["code_verifier"]), 43)

    def test_login_url(self) -> None:
        started = self.start_login(redirect_uri=None)
        parts = urlsplit(started.login_url)
        query = dict(parse_qsl(parts.query))
        self.assertEqual(parts.netloc + parts.path, "localhost:7900/realms/openems/protocol/openid-connect/auth")
        for name, value in {
            "client_id": "openems", "state": started.state, "code_challenge_method": "S256", "scope": "openid",
            "redirect_uri": "http://localhost:4200/", "response_type": "code",
        }.items():  # fmt: skip
            self.assertEqual(query.pop(name), value)
        self.assertEqual(sorted(query), ["code_challenge", "nonce"])

    def test_oems(self) -> None:
        for oem, code in (("openems", 0), ("acme", 0), ("OpenEMS", 1), ("", 1), ("  ", 1), (None, 1)):
            if not code:
                redirect = "http://localhost:4300/" if oem == "acme" else CALLBACK
                self.get(self.keycloak.initiate_connect(oem, redirect, "192.0.2.1:1"))
                continue
            error = self.refused(self.keycloak.initiate_connect(oem, None, "192.0.2.1:1"), code)
            self.assertEqual(error.message, "Unable to initiate connection")
        error = self.refused(self.keycloak.token_by_refresh_token("OpenEMS", "r"), 1)
        self.assertEqual(error.message, "No OEM config found for OpenEMS")
        for blank in ("", "  "):
            self.assertEqual(
                self.refused(self.keycloak.token_by_refresh_token(blank, "r"), 1).message, "No OEM provided"
            )
            self.refused(self.keycloak.token_by_code(blank, "i", "c"))
        self.refused(self.keycloak.token_by_code("OpenEMS", "i", "c"))
        self.assertEqual(self.fake.posts(), [])

    def test_s1_pending_logins_are_bounded(self) -> None:
        for number in range(MAX_PENDING + 1):
            address = f"192.0.{number // 250 % 250}.{number % 250}:1"
            Deferred.fromCoroutine(self.keycloak.initiate_connect("openems", CALLBACK, address))
        self.assertEqual(self.keycloak.debug_metrics()["auth0/PendingLogins"], MAX_PENDING)

    def test_s1_of_one_address_the_oldest_goes(self) -> None:
        started = [self.start_login(remote=f"192.0.2.1:{port}") for port in range(MAX_OF_ADDRESS + 1)]
        self.assertEqual(self.keycloak.debug_metrics()["auth0/PendingLogins"], MAX_OF_ADDRESS)
        self.refused(self.keycloak.token_by_code("openems", started[0].identifier, "c"))
        self.assertEqual(self.fake.posts(), [])

    def test_s1_pending_logins_end(self) -> None:
        started = self.start_login()
        code = self.fake.browser_login(started.login_url, self.mia)
        self.fake.advance(601, step=10)
        self.assertEqual(self.keycloak.debug_metrics()["auth0/PendingLogins"], 0)
        self.refused(self.keycloak.token_by_code("openems", started.identifier, code))
        self.assertEqual(self.fake.posts(), [])

    def test_s2_state_and_identifier(self) -> None:
        texts = set()
        for number in range(1000):
            started = self.start_login(remote=f"192.0.2.{number % 200}:1")
            texts |= {started.identifier, started.state}
            self.assertNotIn(started.identifier, started.login_url)
        self.assertEqual(len(texts), 2000)

    def test_s2_an_identifier_is_good_once(self) -> None:
        started = self.start_login()
        code = self.fake.browser_login(started.login_url, self.mia)
        self.get(self.keycloak.token_by_code("openems", started.identifier, code))
        self.refused(self.keycloak.token_by_code("openems", started.identifier, code))
        self.assertEqual(len(self.fake.posts()), 1)

    def test_s3_id_token(self) -> None:
        for claims in (
            {"nonce": "another"}, {"nonce": None}, {"sub": "another"}, {"aud": "acme"}, {"azp": "acme"},
            {"iss": "http://evil.example"}, {"exp": 1}, {"typ": "Bearer"},
        ):  # fmt: skip
            self.fake.id_claims = claims
            started = self.start_login()
            code = self.fake.browser_login(started.login_url, self.mia)
            self.refused(self.keycloak.token_by_code("openems", started.identifier, code))

    def test_s4_a_post_is_never_repeated(self) -> None:
        self.fake.answer = lambda asked: (200, {"Content-Length": "1000"}, b"{") if asked.form else None
        started = self.start_login()
        code = self.fake.browser_login(started.login_url, self.mia)
        running = self.begin(self.keycloak.token_by_code("openems", started.identifier, code))
        self.fake.advance(11)
        self.failureResultOf(running)
        self.assertEqual(len(self.fake.posts()), 1)

    def test_s5_another_oem(self) -> None:
        started = self.start_login("acme", "http://localhost:4300/")
        code = self.fake.browser_login(started.login_url, self.mia)
        self.refused(self.keycloak.token_by_code("openems", started.identifier, code))
        self.refused(self.keycloak.token_by_code("acme", started.identifier, code))
        self.assertEqual(self.fake.posts(), [])

    def test_s5_a_refresh_that_brings_another_clients_token(self) -> None:
        tokens = self.log_in()
        self.fake.claims = {"azp": "acme"}
        self.refused(self.keycloak.token_by_refresh_token("openems", tokens.refresh_token))

    def test_s6_redirects(self) -> None:
        for uri in (
            "https://evil.example/", "http://localhost:4200.evil.example/oauthcallback", "javascript:alert(1)",
            f"{CALLBACK}#x", f"{CALLBACK}/", f"{CALLBACK}?x=1", "http://localhost:4200@evil.example/", "", " ", "//x",
            "http://localhost:4300/", f"{CALLBACK}\n", "HTTP://LOCALHOST:4200/oauthcallback",
        ):  # fmt: skip
            error = self.refused(self.keycloak.initiate_connect("openems", uri, "192.0.2.1:1"), 1)
            self.assertEqual(error.message, "Unable to initiate connection")

    def test_s6_what_no_list_makes_right(self) -> None:
        for uri in (
            f"{CALLBACK}#x", "http://mia@localhost:4200/", "http:///x", "//localhost/", "localhost", "data:text/html,x",
            "file:///etc/passwd", f"{CALLBACK}\r\n", "http://localhost:4200/\\evil", "http://[x/", "a b:c",
        ):  # fmt: skip
            self.assertFalse(is_allowed(uri, [uri]), uri)
        self.assertTrue(is_allowed("com.example.app://oauthcallback", ["com.example.app://oauthcallback"]))

    def test_s6_an_app_that_is_listed(self) -> None:
        app = "com.example.app://oauthcallback"
        self.remake(oems=[Oem(client_secret="openems-secret", redirect_uris=[app, "javascript:alert(1)"])])
        self.assertEqual(self.log_in(redirect_uri=app).user_id, self.mia)
        self.refused(self.keycloak.initiate_connect("openems", "javascript:alert(1)", "192.0.2.1:1"), 1)

    def test_replies_without_what_is_needed(self) -> None:
        """auth.md D, token reply handling."""
        for status, kind, body in (
            (200, "application/json", b'{"access_token":"a"}'),
            (200, "application/json", b"{}"),
            (400, "application/json", b'{"error":"invalid_grant"}'),
            (401, "application/json", b'{"error":"invalid_grant"}'),
        ):
            reply: Any = status, {"content-type": kind}, body
            self.fake.answer = lambda asked, reply=reply: reply if asked.form else None
            started = self.start_login()
            self.refused(self.keycloak.token_by_code("openems", started.identifier, "c"))

    def test_broken_replies_are_no_refusals(self) -> None:
        """They say nothing about the code: no attempt is counted for them. UIs see 1003 (test_slow)."""
        for status, kind, body in (
            (500, "application/json", b'{"error":"unknown_error"}'),
            (200, "text/html", b"<html>"),
            (200, "application/json", b""),
            (200, "application/json", b"[" * 100_000),
            (401, "application/json", b'{"error":"unauthorized_client"}'),
        ):
            reply: Any = status, {"content-type": kind}, body
            self.fake.answer = lambda asked, reply=reply: reply if asked.form else None
            started = self.start_login()
            self.refused(
                self.keycloak.token_by_code("openems", started.identifier, "c"), errors.COMMON_SERVICE_NOT_AVAILABLE
            )


class Refreshes(WithKeycloak):
    def test_refresh(self) -> None:
        tokens = self.log_in()
        again = self.get(self.keycloak.token_by_refresh_token("openems", tokens.refresh_token))
        self.assertEqual(again.user_id, self.mia)
        self.assertNotEqual(again.refresh_token, tokens.refresh_token)

    def test_s19_two_at_once_are_one(self) -> None:
        self.fake.rotate = True
        tokens = self.log_in()
        self.fake.delay = 1.0
        both = [self.begin(self.keycloak.token_by_refresh_token("openems", tokens.refresh_token)) for _ in range(2)]
        self.fake.advance(1)
        one, other = (self.successResultOf(running) for running in both)
        self.assertEqual(one, other)
        self.fake.delay = 0.0
        late = self.get(self.keycloak.token_by_refresh_token("openems", tokens.refresh_token))
        self.assertEqual(late, one)
        self.assertEqual(len(self.fake.posts("refresh_token")), 1)
        # A good while later it is dead, and says so once; others go on.
        self.fake.advance(60)
        self.refused(self.keycloak.token_by_refresh_token("openems", tokens.refresh_token))
        self.get(self.keycloak.token_by_refresh_token("openems", one.refresh_token))

    def test_s19_who_gives_up_does_not_end_it_for_the_other(self) -> None:
        tokens = self.log_in()
        self.fake.delay = 1.0
        first = self.begin(self.keycloak.token_by_refresh_token("openems", tokens.refresh_token))
        second = self.begin(self.keycloak.token_by_refresh_token("openems", tokens.refresh_token))
        first.cancel()
        self.failureResultOf(first)
        self.fake.advance(1)
        self.assertEqual(self.successResultOf(second).user_id, self.mia)

    def test_s27_odd_inputs(self) -> None:
        """No request for what cannot be right."""
        for text in ("a\r\nb", "a\0b", "x" * 1_000_000, "", "a b", "ä", "\ud800"):
            self.refused(self.keycloak.token_by_refresh_token("openems", text))
            self.refused(self.keycloak.authenticate_with_token(text))
            self.refused(self.keycloak.token_by_code("openems", text, "c"))
            started = self.start_login()
            self.refused(self.keycloak.token_by_code("openems", started.identifier, text))
            if text not in ("a b", "ä"):
                self.refused(self.keycloak.authenticate_with_password("mia", text, "192.0.2.1:1"))
                self.refused(self.keycloak.authenticate_with_password(text, "x", "192.0.2.1:1"))
        self.refused(self.keycloak.token_by_refresh_token("x\r\ny" * 1000, "r"), 1)
        self.assertEqual(self.fake.posts(), [])
