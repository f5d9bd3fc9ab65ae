"""Logins by password (auth.md 4.3, S13, S14, S17, S20, Q24)."""

from __future__ import annotations

import itertools
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from openems.backend.authentication.choice import choose
from openems.backend.interfaces import (
    IAuthUserAuthorizationCodeFlowService,
    IAuthUserPasswordAuthenticationService,
    IAuthUserRegistrationService,
    IDebugLoggable,
    ILoginSessions,
)
from openems.backend.metadata.dummy import DummyLogins
from openems.backend.models import Authenticated
from openems.common import errors
from openems.common.errors import OpenemsError
from tests.backend.authentication.world import ACME, PASSWORD, WithKeycloak

REMOTE = "192.0.2.1:4711"
ELSEWHERE = "198.51.100.7:4711"


class Logins(WithKeycloak):
    def log_in_as(self, name: str, password: str = PASSWORD, remote: str = REMOTE) -> Any:
        return self.keycloak.authenticate_with_password(name, password, remote)

    def test_interfaces(self) -> None:
        for interface in (
            IAuthUserPasswordAuthenticationService, IAuthUserAuthorizationCodeFlowService,
            IAuthUserRegistrationService, ILoginSessions, IDebugLoggable,
        ):  # fmt: skip
            verifyObject(interface, self.keycloak)

    def test_login(self) -> None:
        authenticated = self.get(self.log_in_as("Mia@Example.com"))
        self.assertEqual((authenticated.user_id, authenticated.login), (self.mia, "mia@example.com"))
        (post,) = self.fake.posts("password")
        self.assertEqual(post.form["password"], PASSWORD)
        self.assertEqual(post.form["username"], "Mia@Example.com")
        self.assertNotIn("scope", post.form)
        self.get(self.keycloak.authenticate_with_token(authenticated.token))

    def test_without_a_service_account(self) -> None:
        self.remake(oems=[ACME])
        error = self.refused(self.log_in_as("mia@example.com"), 1)
        self.assertEqual(error.message, "No OEM config found for service account")

    def test_s14_all_refusals_are_alike(self) -> None:
        self.fake.add_user("off@example.com", PASSWORD, enabled=False)
        told = set()
        for name, password in (("mia@example.com", "x"), ("nobody@example.com", "x"), ("off@example.com", PASSWORD)):
            error = self.refused(self.log_in_as(name, password), seconds=2)
            told.add((error.code, error.message, str(error.data)))
        self.assertEqual(told, {(1003, "Authentication failed", "[]")})

    def test_s13_the_uis_repetition_asks_nobody(self) -> None:
        """The stock UI sends a refused login again at once; two failures within a second would lock the user."""
        for _ in range(2):
            self.refused(self.log_in_as("mia@example.com", "wrong"))
        self.assertEqual(len(self.fake.posts("password")), 1)
        self.get(self.log_in_as("mia@example.com"), seconds=2)

    def test_s13_failures_of_a_user_are_kept_apart(self) -> None:
        asked: list[float] = []
        self.fake.answer = lambda heard: asked.append(self.clock.seconds()) if heard.form else None
        running = [
            self.begin(self.log_in_as("mia@example.com", f"wrong {number}", f"192.0.2.{number}:1"))
            for number in range(4)
        ]
        self.fake.advance(10, step=0.1)
        for outcome in running:
            self.failureResultOf(outcome, OpenemsError)
        self.assertEqual(len(asked), 4)
        for earlier, later in itertools.pairwise(asked):
            self.assertGreater(later - earlier, 1.0)

    def test_s13_fifty_wrong_passwords(self) -> None:
        codes = []
        for number in range(50):
            outcome = self.begin(self.log_in_as("mia@example.com", f"wrong {number}"))
            self.fake.advance(2)
            codes.append(self.failureResultOf(outcome, OpenemsError).value.code)
        self.assertGreaterEqual(codes.count(errors.JSONRPC_TOO_MANY_REQUESTS), 35)
        self.assertLessEqual(len(self.fake.posts("password")), 12)
        # The right one does not help from here now, but from elsewhere.
        self.refused(self.log_in_as("mia@example.com"), errors.JSONRPC_TOO_MANY_REQUESTS)
        self.get(self.log_in_as("mia@example.com", remote=ELSEWHERE), seconds=2)
        self.fake.advance(301, step=5)
        self.get(self.log_in_as("mia@example.com"), seconds=2)

    def test_s13_many_names_from_one_address(self) -> None:
        for number in range(40):
            outcome = self.begin(self.log_in_as(f"user{number}@example.com", "x", f"192.0.2.1:{5000 + number}"))
            self.failureResultOf(outcome, OpenemsError)
        self.assertEqual(len(self.fake.posts("password")), 30)
        self.get(self.log_in_as("mia@example.com", remote=ELSEWHERE))

    def test_s13_tries_that_nobody_could_judge_do_not_count(self) -> None:
        self.fake.answer = lambda asked: (503, {}, b"") if asked.form else None
        for number in range(20):
            self.refused(self.log_in_as("mia@example.com", f"x{number}"), errors.COMMON_SERVICE_NOT_AVAILABLE)
        self.fake.answer = lambda asked: None
        self.get(self.log_in_as("mia@example.com"))

    def test_q24_a_client_that_sends_its_password_each_time_has_one_session(self) -> None:
        tokens = set()
        for _ in range(10):
            tokens.add(self.get(self.log_in_as("mia@example.com")).token)
            self.fake.advance(5)
        self.assertEqual((len(tokens), len(self.fake.posts("password"))), (1, 1))
        self.fake.advance(30)
        self.get(self.log_in_as("mia@example.com"))
        self.assertEqual(len(self.fake.posts("password")), 2)

    def test_s17_logout(self) -> None:
        authenticated = self.get(self.log_in_as("mia@example.com"))
        self.get(self.keycloak.logout(authenticated.token))
        (asked,) = [asked for asked in self.fake.asked if asked.path.endswith("/logout")]
        self.assertEqual(asked.form["client_id"], "openems")
        self.assertEqual(self.fake.sessions, {})
        self.refused(self.keycloak.authenticate_with_token(authenticated.token))
        again = self.get(self.log_in_as("mia@example.com"))
        self.assertNotEqual(again.token, authenticated.token)

    def test_s17_logout_of_a_browsers_login(self) -> None:
        tokens = self.log_in()
        self.get(self.keycloak.logout(tokens.access_token))
        self.assertEqual(self.fake.sessions, {})
        self.refused(self.keycloak.token_by_refresh_token("openems", tokens.refresh_token))
        self.assertFalse(self.get(self.keycloak.still_valid(tokens.access_token, self.mia)))

    def test_s17_logout_without_the_refresh_token(self) -> None:
        """The connection that logged in is gone; another came with the access token."""
        tokens = self.log_in()
        self.keycloak.connection_closed(tokens.access_token)
        self.assertEqual(len(self.keycloak._users.table), 0)
        self.get(self.keycloak.logout(tokens.access_token))
        self.assertEqual(self.fake.asked[-1].method, "DELETE")
        self.assertEqual(self.fake.sessions, {})

    def test_s17_keycloak_does_not_hear_of_it(self) -> None:
        tokens = self.log_in()
        self.fake.delay = None
        self.get(self.keycloak.logout(tokens.access_token), seconds=6)
        self.fake.delay = 0.0
        self.refused(self.keycloak.authenticate_with_token(tokens.access_token))
        self.refused(self.keycloak.token_by_refresh_token("openems", tokens.refresh_token))
        # Nor does the session come back to life by that; by a new login it does.
        self.assertEqual(self.log_in().user_id, self.mia)

    def test_s17_tokens_of_others(self) -> None:
        for token in ("", "x", "a.b.c", self.fake.access_token(self.mia, azp="foreign", exp=1)):
            self.get(self.keycloak.logout(token))
        self.assertEqual([asked for asked in self.fake.asked if not asked.path.endswith("/certs")], [])

    def test_s16_users_that_are_disabled(self) -> None:
        tokens = self.log_in()
        self.assertTrue(self.get(self.keycloak.still_valid(tokens.access_token, self.mia)))
        self.fake.users[self.mia]["enabled"] = False
        self.assertFalse(self.get(self.keycloak.still_valid(tokens.access_token, self.mia)))
        del self.fake.users[self.mia]
        self.assertFalse(self.get(self.keycloak.still_valid(tokens.access_token, self.mia)))
        self.assertTrue(self.get(self.keycloak.still_valid("token of the file", "x")))
        self.fake.answer = lambda asked: (500, {}, b"")
        self.assertTrue(self.get(self.keycloak.still_valid(tokens.access_token, self.mia)))

    def test_s20_fifty_logins_at_a_slow_server(self) -> None:
        for number in range(50):
            self.fake.add_user(f"user{number}@example.com", PASSWORD)
        self.fake.delay = 1.0
        running = [self.begin(self.log_in_as(f"user{number}@example.com")) for number in range(50)]
        self.fake.advance(1.0)
        for outcome in running:
            self.assertTrue(self.successResultOf(outcome).token)

    def test_s20_more_than_can_wait(self) -> None:
        self.remake(max_concurrent=5, max_queue=20)
        self.fake.delay = 4.0
        for number in range(60):
            self.fake.add_user(f"user{number}@example.com", PASSWORD)
        running = [
            self.begin(self.log_in_as(f"user{number}@example.com", remote=f"192.0.2.{number}:1"))
            for number in range(60)
        ]
        done = [outcome for outcome in running if outcome.called]
        self.assertEqual(len(done), 35)
        for outcome in done:
            self.assertEqual(
                self.failureResultOf(outcome, OpenemsError).value.code, errors.COMMON_SERVICE_NOT_AVAILABLE
            )
        # Ten seconds for everything, waiting included: two rounds of four.
        self.fake.advance(11)
        results: list[Any] = []
        for outcome in running[:25]:
            outcome.addBoth(results.append)
        self.assertEqual(len(results), 25)
        self.assertEqual(sum(hasattr(result, "token") for result in results), 10)
        self.assertEqual(self.keycloak.debug_metrics()["auth0/Pending"], 0)

    def test_stop_ends_what_waits(self) -> None:
        self.fake.delay = None
        running = self.begin(self.log_in_as("mia@example.com"))
        self.remake()
        self.failureResultOf(running)


class Choices(WithKeycloak):
    """The password service of metadata (of the dummy: whoever's name is his password) with Keycloak's."""

    def setUp(self) -> None:
        super().setUp()
        self.local = Local()

    def test_one_is_itself(self) -> None:
        self.assertIs(choose(["metadata", "oauth"], self.local, None), self.local)
        self.assertIs(choose(["oauth"], self.local, self.keycloak), self.keycloak)
        self.assertIsNone(choose([], self.local, None))
        self.assertIsNone(choose(["oauth"], self.local, None))
        self.assertIsNone(choose(["metadata", "oauth"], None, None))

    def test_no_passwords_at_all(self) -> None:
        """Tokens of browsers are good all the same."""
        for service in (
            choose([], self.local, self.keycloak),
            choose(["oauth"], self.local, self.keycloak, oauth_passwords=False),
        ):
            code = errors.JSONRPC_UNHANDLED_METHOD
            self.refused(service.authenticate_with_password("local", "secret", REMOTE), code)
            self.refused(service.authenticate_with_token("t"))
            self.get(service.logout("t"))
            token = self.fake.access_token(self.mia)
            self.assertEqual(self.get(service.authenticate_with_token(token)).user_id, self.mia)
        self.assertEqual(self.local.logouts, [])

    def test_both(self) -> None:
        both = choose(["metadata", "oauth"], self.local, self.keycloak)
        verifyObject(IAuthUserPasswordAuthenticationService, both)
        self.assertEqual(self.get(both.authenticate_with_password("local", "secret", REMOTE)).token, "t")
        self.assertEqual(self.fake.posts(), [])
        mia = self.get(both.authenticate_with_password("mia@example.com", PASSWORD, REMOTE))
        self.assertEqual(mia.user_id, self.mia)
        self.refused(both.authenticate_with_password("mia@example.com", "wrong", REMOTE))
        self.assertEqual(self.get(both.authenticate_with_token("t")).login, "local")
        self.assertEqual(self.get(both.authenticate_with_token(mia.token)).user_id, self.mia)
        self.get(both.logout(mia.token))
        self.refused(both.authenticate_with_token(mia.token))
        self.get(both.logout("t"))
        self.assertEqual(self.local.logouts, ["t"])

    def test_who_cannot_tell_is_named(self) -> None:
        both = choose(["metadata", "oauth"], self.local, self.keycloak)
        self.fake.answer = lambda asked: (500, {}, b"")
        code = errors.COMMON_SERVICE_NOT_AVAILABLE
        self.refused(both.authenticate_with_password("mia@example.com", PASSWORD, REMOTE), code)
        self.get(both.authenticate_with_password("local", "secret", REMOTE))

    def test_the_dummys_service_fits(self) -> None:
        self.assertTrue(IAuthUserPasswordAuthenticationService.implementedBy(DummyLogins))


class Local:
    """Passwords of metadata."""

    def __init__(self) -> None:
        self.logouts: list[str] = []

    async def authenticate_with_password(self, username: str, password: str, remote: str) -> Any:
        if (username, password) != ("local", "secret"):
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        return Authenticated("local", "local", "t")

    async def authenticate_with_token(self, token: str) -> Any:
        if token != "t":
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        return Authenticated("local", "local", "t")

    def logout(self, token: str) -> Deferred[None]:
        self.logouts.append(token)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done
