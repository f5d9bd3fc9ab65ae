"""Sessions of logins by password that last (auth.md Q13, S16, S17)."""

from __future__ import annotations

import os
import random
import stat
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.authentication.keycloak.stored import DAY, MAX_OF_USER, StoredSessions
from openems.common.redact import redacted_text
from tests.backend.authentication.world import PASSWORD, WithKeycloak

REMOTE = "192.0.2.1:4711"


class Files(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        self.sessions = self.open()

    def open(self, path: str | None = None) -> StoredSessions:
        sessions = StoredSessions(path or self.path, life=14 * DAY, random_bytes=random.Random(7).randbytes)
        sessions.start()
        self.addCleanup(sessions.close)
        return sessions

    def test_kept_over_a_restart(self) -> None:
        token = self.sessions.open("sub", "sid", "mia@example.com", 1000.0)
        self.sessions.close()
        found = self.open().find(token, 2000.0)
        assert found is not None
        self.assertEqual((found.subject, found.session_id, found.email), ("sub", "sid", "mia@example.com"))

    def test_the_file_opens_no_session(self) -> None:
        token = self.sessions.open("sub", "sid", "mia@example.com", 1000.0)
        self.sessions.close()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        with open(self.path, "rb") as file:
            self.assertNotIn(token.split(".")[1].encode(), file.read())
        self.assertNotIn(token[4:], redacted_text(f"x {token} y"))

    def test_ends_when_unused(self) -> None:
        token = self.sessions.open("sub", "sid", "", 0.0)
        self.sessions.used(token, 13 * DAY, confirmed=False)
        self.assertIsNotNone(self.sessions.find(token, 20 * DAY))
        self.assertIsNone(self.sessions.find(token, 28 * DAY))

    def test_of_one_user_the_oldest_go(self) -> None:
        tokens = [self.sessions.open("sub", "sid", "", float(n)) for n in range(MAX_OF_USER + 5)]
        other = self.sessions.open("other", "sid", "", 0.0)
        self.assertEqual([self.sessions.find(t, 50.0) is None for t in tokens], [True] * 5 + [False] * MAX_OF_USER)
        self.sessions.end_all_of("sub")
        self.assertEqual(len(self.sessions), 1)
        self.assertIsNotNone(self.sessions.find(other, 50.0))

    def test_those_never_taken_up_go_first(self) -> None:
        """A client that logs in anew each minute must not end the sessions of the same user's UI."""
        kept = self.sessions.open("sub", "sid", "", 0.0)
        self.sessions.used(kept, 1.0, confirmed=False)
        for number in range(100):
            self.sessions.open("sub", "sid", "", 60.0 * number)
        self.assertIsNotNone(self.sessions.find(kept, 6000.0))
        self.assertEqual(len(self.sessions), MAX_OF_USER)

    def test_odd_tokens(self) -> None:
        for token in ("", "kc1.", "kc1.x.x", "\ud800", "x" * 10_000):
            self.assertIsNone(self.sessions.find(token, 0.0))
            self.sessions.end(token)


class Logins(WithKeycloak):
    def make(self, **options: Any) -> Any:
        self.stored = StoredSessions(self.path(), life=14 * DAY, random_bytes=os.urandom)
        return super().make(**{"stored": self.stored, **options})

    def path(self) -> str:
        if not hasattr(self, "_path"):
            self._path = os.path.abspath(self.mktemp())
            self.addCleanup(delattr, self, "_path")
        return self._path

    def log_in_by_password(self) -> Any:
        return self.get(self.keycloak.authenticate_with_password("mia@example.com", PASSWORD, REMOTE))

    def test_taken_up_long_after_keycloaks_token(self) -> None:
        authenticated = self.log_in_by_password()
        self.assertTrue(authenticated.token.startswith("kc1."))
        self.clock.advance(3 * DAY)
        self.fake.pump()
        again = self.get(self.keycloak.authenticate_with_token(authenticated.token))
        self.assertEqual((again.user_id, again.login, again.token), (self.mia, "mia@example.com", authenticated.token))

    def test_taken_up_after_a_restart(self) -> None:
        token = self.log_in_by_password().token
        self.remake()
        self.assertEqual(self.get(self.keycloak.authenticate_with_token(token)).user_id, self.mia)

    def test_a_client_that_sends_its_password_each_time_has_one(self) -> None:
        self.assertEqual(len({self.log_in_by_password().token for _ in range(10)}), 1)
        self.assertEqual(len(self.stored), 1)

    def test_s16_a_disabled_user(self) -> None:
        token = self.log_in_by_password().token
        self.assertTrue(self.get(self.keycloak.still_valid(token, "x")))
        self.fake.users[self.mia]["enabled"] = False
        self.clock.advance(61)
        self.refused(self.keycloak.authenticate_with_token(token))
        # Also when he is enabled again: his sessions are over.
        self.fake.users[self.mia]["enabled"] = True
        self.refused(self.keycloak.authenticate_with_token(token))
        self.assertFalse(self.get(self.keycloak.still_valid(token, "x")))

    def test_the_clock_is_set_back(self) -> None:
        """What was confirmed in what is now the future is asked again."""
        self.clock.advance(10 * DAY)
        self.fake.pump()
        token = self.log_in_by_password().token
        self.fake.users[self.mia]["enabled"] = False
        self.keycloak._users._now = lambda: self.keycloak._now() - 5 * DAY
        self.refused(self.keycloak.authenticate_with_token(token))

    def test_keycloak_is_away(self) -> None:
        token = self.log_in_by_password().token
        self.fake.answer = lambda asked: (503, {}, b"")
        self.clock.advance(DAY - 100)
        self.fake.pump()
        self.assertEqual(self.get(self.keycloak.authenticate_with_token(token)).user_id, self.mia)
        self.assertTrue(self.get(self.keycloak.still_valid(token, "x")))
        self.clock.advance(200)
        self.fake.pump()
        self.refused(self.keycloak.authenticate_with_token(token), 1006)

    def test_s17_logout(self) -> None:
        token = self.log_in_by_password().token
        self.get(self.keycloak.logout(token))
        self.assertEqual(self.fake.sessions, {})
        self.refused(self.keycloak.authenticate_with_token(token))
        self.assertNotEqual(self.log_in_by_password().token, token)

    def test_s17_logout_of_one_that_was_taken_up(self) -> None:
        token = self.log_in_by_password().token
        self.remake()
        self.get(self.keycloak.authenticate_with_token(token))
        self.get(self.keycloak.logout(token))
        self.assertEqual(self.fake.asked[-1].method, "DELETE")
        self.assertEqual(self.fake.sessions, {})
        self.refused(self.keycloak.authenticate_with_token(token))

    def test_a_file_that_does_not_do(self) -> None:
        """Logins go on with Keycloak's tokens, and the health page tells."""
        self._path = "/nowhere/sessions.sqlite"
        self.remake()
        self.assertTrue(self.log_in_by_password().token.startswith("eyJ"))
        self.assertIn("cannot be stored", self.keycloak.problems()[0])

    def test_a_file_that_breaks(self) -> None:
        token = self.log_in_by_password().token
        self.stored.close()
        self.refused(self.keycloak.authenticate_with_token(token), 1006)
        self.get(self.keycloak.logout(token))
        self.fake.advance(61)
        self.assertTrue(self.log_in_by_password().token.startswith("eyJ"))
