"""Passwords of other systems: checked, and no session stays at Keycloak (auth.md Q24, S16)."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from openems.backend.authentication.choice import check_password, choose
from openems.backend.authentication.keycloak.checks import MAX_ENDING
from openems.backend.b2b.credentials import TRUST, Credentials
from openems.backend.interfaces import IPasswordChecks
from openems.common import errors
from openems.common.errors import OpenemsError
from tests.backend.authentication.test_passwords import Local
from tests.backend.authentication.world import PASSWORD, WithKeycloak

REMOTE = "192.0.2.1:4711"
MIA = "mia@example.com"


class Checks(WithKeycloak):
    def check(self, name: str = MIA, password: str = PASSWORD, remote: str = REMOTE) -> Any:
        return self.keycloak.check_password(name, password, remote)

    def logouts(self) -> int:
        return sum(asked.path.endswith("/logout") for asked in self.fake.asked)

    def test_no_session_stays(self) -> None:
        verifyObject(IPasswordChecks, self.keycloak)
        for number in range(3):
            checked = self.get(self.check())
            self.assertEqual(checked.user_id, self.mia)
            self.assertEqual(self.fake.sessions, {})
            self.assertEqual((len(self.fake.posts("password")), self.logouts()), (number + 1, number + 1))
        self.assertEqual(self.keycloak.debug_metrics()["auth0/ChecksEnded"], 3)
        self.assertEqual(self.keycloak.debug_metrics()["auth0/Sessions"], 0)

    def test_the_same_users_session_of_the_ui_stays(self) -> None:
        login = self.get(self.keycloak.authenticate_with_password(MIA, PASSWORD, REMOTE))
        self.get(self.check())
        self.assertEqual(len(self.fake.sessions), 1)
        again = self.get(self.keycloak.authenticate_with_password(MIA, PASSWORD, REMOTE))
        self.assertEqual(again.token, login.token)
        self.get(self.keycloak.authenticate_with_token(login.token))

    def test_refused(self) -> None:
        for _ in range(2):
            self.refused(self.check(password="wrong"))
        self.assertEqual(len(self.fake.posts("password")), 1)
        self.refused(self.check(password="a\r\nb"))
        self.fake.answer = lambda asked: (503, {}, b"")
        self.fake.advance(10)
        self.refused(self.check(), errors.COMMON_SERVICE_NOT_AVAILABLE)

    def test_s13_counted_with_all_other_logins(self) -> None:
        codes = []
        for number in range(20):
            outcome = self.begin(self.check(password=f"wrong {number}"))
            self.fake.advance(2)
            codes.append(self.failureResultOf(outcome, OpenemsError).value.code)
        self.assertGreaterEqual(codes.count(errors.JSONRPC_TOO_MANY_REQUESTS), 10)
        self.refused(self.keycloak.authenticate_with_password(MIA, PASSWORD, REMOTE), errors.JSONRPC_TOO_MANY_REQUESTS)

    def test_whoever_asked_has_gone(self) -> None:
        self.fake.delay = 1.0
        running = self.begin(self.check())
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.fake.advance(3)
        self.assertEqual((len(self.fake.posts("password")), self.logouts()), (1, 1))
        self.assertEqual(self.fake.sessions, {})

    def test_nobody_waits_for_the_end(self) -> None:
        self.fake.answer = lambda asked: (500, {}, b"") if asked.path.endswith("/logout") else None
        self.assertEqual(self.get(self.check()).user_id, self.mia)
        self.assertEqual(self.keycloak.debug_metrics()["auth0/ChecksLeft"], 1)

    def test_a_client_without_refresh_tokens(self) -> None:
        """Its sessions are ended by their id."""
        by_password = self.keycloak._client.by_password

        async def without(*arguments: Any) -> Any:
            return msgspec.structs.replace(await by_password(*arguments), refresh_token="")

        self.patch(self.keycloak._client, "by_password", without)
        self.assertEqual(self.get(self.check()).user_id, self.mia)
        self.assertEqual((self.fake.asked[-1].method, self.fake.sessions), ("DELETE", {}))
        self.assertEqual(self.keycloak.debug_metrics()["auth0/ChecksEnded"], 1)

    def test_bounded(self) -> None:
        self.remake(max_concurrent=1000)
        for number in range(MAX_ENDING + 20):
            self.fake.add_user(f"user{number}@example.com", PASSWORD)

        waiting: list[Deferred[None]] = []

        async def logout(*_: Any) -> None:
            waiting.append(Deferred())
            await waiting[-1]

        self.patch(self.keycloak._client, "logout", logout)
        for number in range(MAX_ENDING + 20):
            self.get(self.check(f"user{number}@example.com", remote=f"192.0.2.{number}:1"))
        self.assertEqual((len(waiting), len(self.keycloak._checks._ending)), (MAX_ENDING, MAX_ENDING))
        self.assertEqual(self.keycloak.debug_metrics()["auth0/ChecksLeft"], 20)
        waiting[0].callback(None)
        self.assertEqual(len(self.keycloak._checks._ending), MAX_ENDING - 1)

    def test_s16_whether_the_user_is_still_there(self) -> None:
        checked = self.get(self.check())
        self.assertTrue(self.get(checked.still_valid()))
        self.fake.answer = lambda asked: (200, {"content-type": "text/html"}, b"<html>")
        self.assertTrue(self.get(checked.still_valid()))
        self.fake.answer = lambda asked: None
        self.fake.users[self.mia]["enabled"] = False
        self.assertFalse(self.get(checked.still_valid()))

    def test_with_passwords_of_metadata(self) -> None:
        local = Local()
        both = choose(["metadata", "oauth"], local, self.keycloak)
        verifyObject(IPasswordChecks, both)
        self.assertEqual(self.get(both.check_password(MIA, PASSWORD, REMOTE)).user_id, self.mia)
        self.assertEqual(self.fake.sessions, {})
        checked = self.get(both.check_password("local", "secret", REMOTE))
        self.assertEqual((checked.user_id, self.get(checked.still_valid())), ("local", True))
        self.refused(both.check_password(MIA, "wrong", REMOTE))
        self.assertEqual(self.get(check_password(local, "local", "secret", REMOTE)).user_id, "local")

    def test_credentials_of_rest(self) -> None:
        """One check a minute, as ever; each leaves nothing."""
        credentials = Credentials(self.keycloak, self.metadata, reactor=self.clock)  # type: ignore[arg-type]
        for _ in range(20):
            self.assertEqual(self.get(credentials.rest_user(MIA, PASSWORD, REMOTE)).user_id, self.mia)
        self.assertEqual((len(self.fake.posts("password")), self.fake.sessions), (1, {}))
        self.fake.advance(TRUST)
        self.get(credentials.rest_user(MIA, PASSWORD, REMOTE))
        self.assertEqual((len(self.fake.posts("password")), self.fake.sessions), (2, {}))
