from typing import Any

import argon2
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from twisted.internet.defer import Deferred, execute
from zope.interface.verify import verifyObject

from openems.backend.interfaces import IAuthUserPasswordAuthenticationService
from openems.backend.metadata import password as module
from openems.backend.metadata.file.provider import FileMetadata
from openems.backend.metadata.gate import MAX_WAITING
from openems.backend.metadata.password import (
    DAY,
    MAX_SESSIONS,
    PasswordService,
    hash_password,
    token_key,
    verify_password,
)
from openems.backend.metadata.throttle import Throttle
from openems.backend.models import Authenticated
from tests.backend.metadata.file.test_model import EXAMPLE, HASH
from tests.backend.metadata.file.test_provider import NOW, ProviderTestCase, captured_logs

_CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
_WEAK = "$argon2id$v=19$m=19456,t=2,p=1$ZmVkY2JhOTg3NjU0MzIxMA$rEnLDsqEcjVkuykGk3jHYTLXhd2c4RfAlgHshB1YKJY"


class TestHash(ProviderTestCase):
    """metadata.md 23.6."""

    def test_vectors(self) -> None:
        self.assertTrue(verify_password(HASH, "correct horse"))
        self.assertFalse(verify_password(HASH, "correct horsf"))
        self.assertTrue(verify_password(_WEAK, "tea"))
        self.assertFalse(verify_password("nonsense", "tea"))
        Argon2id.verify_phc_encoded(b"correct horse", HASH)
        self.assertEqual(token_key("tok-1"), "65dcf16ea3dfa49069628089eb4a75483070f5584b2a21ee64912b5f621f12da")

    def test_hash_password(self) -> None:
        hashed = hash_password("Wörter")
        self.assertTrue(hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$"))
        self.assertTrue(verify_password(hashed, "Wörter"))


class PasswordTestCase(ProviderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(module, "_NOBODY", _CHEAP.hash("nobody"))
        self.body = self.example(
            lambda body: body["users"]["mia@example.org"].update(passwordHash=_CHEAP.hash("correct horse"))
        )
        self.write(self.body)
        self.begin()

    def begin(self, **options: Any) -> None:
        self.verified = 0
        self.metadata: FileMetadata = self.start(**options)

        def counted(f: Any) -> "Deferred[Any]":
            self.verified += 1
            return execute(f)

        self.service = PasswordService(
            self.metadata,
            reactor=self.clock,
            now=lambda: NOW + int(self.clock.seconds() * 1000),
            in_thread=counted,
        )

    def begin_again(self) -> None:
        self.kill(self.metadata)
        self.begin()

    def attempt(
        self, password: str = "correct horse", login: str = "mia@example.org", remote: str = "192.0.2.1:5"
    ) -> "Deferred[Authenticated]":
        return Deferred.fromCoroutine(self.service.authenticate_with_password(login, password, remote))

    def login(self, **options: str) -> Authenticated:
        return self.successResultOf(self.attempt(**options))

    def is_open(self, token: str | None) -> bool:
        result = Deferred.fromCoroutine(self.service.authenticate_with_token(token or ""))
        error: list[int] = []
        result.addErrback(lambda failure: error.append(failure.value.code))
        self.successResultOf(result)
        self.assertIn(error, ([], [1003]))
        return not error


class TestLogin(PasswordTestCase):
    def test_interface(self) -> None:
        verifyObject(IAuthUserPasswordAuthenticationService, self.service)

    def test_right(self) -> None:
        authenticated = self.login(login=" MIA@example.org")
        self.assertEqual((authenticated.user_id, authenticated.login), ("mia@example.org",) * 2)
        self.assertEqual(len(authenticated.token or ""), 43)
        self.assertTrue(self.is_open(authenticated.token))

    def test_t031_refused(self) -> None:
        for options in (
            {"password": "wrong"},
            {"password": ""},
            {"login": "nobody"},
            {"login": ""},
            {"login": "ops@example.org", "password": ""},  # a user without a hash
            {"password": "x" * 2000},
            {"login": "x" * 2000},
        ):
            self.assertEqual(self.failureResultOf(self.attempt(**options)).value.code, 1003)
        self.assertEqual(self.service.gate.refused, 7)

    def test_unknown_users_take_as_long(self) -> None:
        hashes = []

        def recorded(password_hash: str, password: str) -> bool:
            hashes.append(password_hash)
            return True  # even if it fits, there is no such user

        self.patch(module, "verify_password", recorded)
        self.failureResultOf(self.attempt(login="nobody"))
        self.failureResultOf(self.attempt(login="ops@example.org"))
        own = self.body["users"]["mia@example.org"]["passwordHash"]
        self.assertEqual(hashes, [own] * 2)
        # Nobody has one.
        hashes.clear()
        del self.body["users"]["mia@example.org"]["passwordHash"]
        self.write(self.body)
        self.look()
        self.failureResultOf(self.attempt(login="another"))
        self.assertEqual(hashes, [module._NOBODY])

    def test_s14_hashes_that_cost_differently(self) -> None:
        """Unknown names are spread over them as known ones are, each always to the same."""
        for number in range(3):
            self.body["users"][f"u{number}"] = {"passwordHash": _CHEAP.hash(f"{number}")}
        self.write(self.body)
        self.look()
        compared: dict[str, set[str]] = {}

        def recorded(password_hash: str, password: str) -> bool:
            compared.setdefault(password, set()).add(password_hash)
            return False

        self.patch(module, "verify_password", recorded)
        for number in range(60):
            for _ in range(2):
                self.service.gate._throttle = Throttle()
                self.failureResultOf(self.attempt(f"x{number}", login=f"nobody{number}"))
        self.assertEqual({len(hashes) for hashes in compared.values()}, {1})
        self.assertEqual(len(set.union(*compared.values())), 4)

    def test_t031_wrong_tries_get_slower(self) -> None:
        waited = []
        for n in range(8):
            attempt = self.attempt(f"wrong{n}")
            began = self.clock.seconds()
            while not attempt.called:
                self.clock.advance(0.5)
            waited.append(self.clock.seconds() - began)
            self.assertEqual(self.failureResultOf(attempt).value.code, 1003)
        self.assertEqual(waited, [0, 0, 0, 0.5, 1, 2, 4, 8])
        self.login(remote="198.51.100.7:1")  # the right one from elsewhere does not wait

    def test_repetition_of_the_ui_counts_once(self) -> None:
        for n in range(2):
            for _ in range(2):
                self.failureResultOf(self.attempt(f"wrong{n}"))
        self.assertEqual(self.verified, 2)
        self.login()  # it would wait if the repetitions were counted

    def test_waiting_is_bounded(self) -> None:
        attempts = [self.attempt(f"wrong{n}") for n in range(40)]
        self.assertEqual(self.service.gate.overloaded, 40 - 3 - 20)
        self.clock.advance(30)
        for attempt in attempts:
            self.failureResultOf(attempt)
        self.assertEqual(len(self.service.gate._waiting), 0)

    def test_attackers_keep_nobody_out(self) -> None:
        """From many addresses they take every place there is for attempts that are slowed down, whose name ever they
        try."""
        attackers = [
            self.attempt(f"wrong{n}", remote=f"198.51.100.{address}:1")
            for address in range(MAX_WAITING // 10)
            for n in range(23)
        ]
        self.assertGreater(self.service.gate.overloaded, 0)
        mine = self.attempt(remote="192.0.2.7:1")
        self.clock.advance(5)
        self.successResultOf(mine)
        self.clock.advance(60)
        for attack in attackers:
            self.failureResultOf(attack)
        self.assertEqual(len(self.service.gate._waiting), 0)

    def test_overloaded_is_no_wrong_password(self) -> None:
        """The UI forgets its token at 1003."""
        attempts = [self.attempt(f"wrong{n}") for n in range(40)]
        self.assertEqual(self.failureResultOf(self.attempt()).value.code, 4005)
        self.clock.advance(60)
        for attempt in attempts:
            self.failureResultOf(attempt)

    def test_weak_hash_is_mentioned(self) -> None:
        with captured_logs() as logs:
            self.login()
        text = "".join(log["log_format"] or "" for log in logs)
        self.assertIn("weaker", text)
        self.assertNotIn("correct horse", repr(logs))

    def test_rest_client_is_verified_once_a_minute_and_has_one_session(self) -> None:
        first = self.login()
        for _ in range(9):
            self.clock.advance(10)
            self.assertEqual(self.login(), first)
        self.assertEqual(self.verified, 2)
        self.assertEqual(len(self.metadata.state.tokens), 1)

    def test_not_before_metadata_is_there(self) -> None:
        self.kill(self.metadata)
        self.path += ".later"
        self.begin()
        self.assertEqual(self.failureResultOf(self.attempt()).value.code, 1006)


class TestSessions(PasswordTestCase):
    def test_survives_a_kill_and_is_not_readable_in_the_file(self) -> None:
        token = self.login().token
        self.clock.advance(1)
        self.begin_again()
        self.assertTrue(self.is_open(token))
        with open(self.state_path) as file:
            text = file.read()
        self.assertNotIn(token or "", text)
        self.assertNotIn(_CHEAP.hash("x")[:20], text)

    def test_t045_bad_tokens(self) -> None:
        for token in ("", "abc", "x" * 20_000, "eyJhbGciOi.eyJ.sig", "\ud800"):
            self.assertFalse(self.is_open(token))
        self.login()

    def test_logout(self) -> None:
        token = self.login().token or ""
        self.get(self.service.logout(token))
        self.assertFalse(self.is_open(token))
        self.begin_again()
        self.assertFalse(self.is_open(token))
        self.get(self.service.logout("unknown"))
        self.assertNotEqual(self.login().token, token)

    def test_sliding_life(self) -> None:
        token = self.login().token
        for _ in range(3):
            self.clock.advance(300 * DAY / 1000)
            self.assertTrue(self.is_open(token))
        self.clock.advance(366 * DAY / 1000)
        self.assertFalse(self.is_open(token))
        self.assertEqual(self.metadata.state.tokens, {})

    def test_bounded_for_each_user(self) -> None:
        tokens = []
        for n in range(MAX_SESSIONS + 5):
            tokens.append(self.login(remote=f"10.0.0.{n}:1").token)
            self.clock.advance(1)
        self.assertEqual([self.is_open(token) for token in tokens], [False] * 5 + [True] * MAX_SESSIONS)

    def test_new_password_ends_sessions(self) -> None:
        token = self.login().token
        mia = self.body["users"]["mia@example.org"]
        mia["passwordHash"] = _CHEAP.hash("new")
        self.write(self.body)
        self.look()
        self.assertFalse(self.is_open(token))
        self.failureResultOf(self.attempt())
        token = self.login(password="new").token
        self.clock.advance(1)
        mia["passwordHash"] = _CHEAP.hash("changed while the backend was down")
        self.write(self.body)
        self.begin_again()
        self.assertFalse(self.is_open(token))

    def test_disabled_user(self) -> None:
        token = self.login().token
        self.body["users"]["mia@example.org"]["enabled"] = False
        self.write(self.body)
        self.look()
        self.assertFalse(self.is_open(token))
        self.failureResultOf(self.attempt())


class TestWithoutUsers(PasswordTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.kill(self.metadata)
        self.write({"edges": EXAMPLE["edges"]})

    def test_refused(self) -> None:
        self.begin()
        self.failureResultOf(self.attempt())

    def test_development(self) -> None:
        self.begin(allow_any_login=True)
        authenticated = self.login(login="x", password="y")
        self.assertEqual(authenticated.user_id, "admin")
        self.assertTrue(self.is_open(authenticated.token))
        self.assertTrue(self.get(self.metadata.get_user_by_external_id(authenticated.user_id)).has_multiple_edges)
        # As soon as there are users this session is over.
        self.write({"edges": EXAMPLE["edges"], "users": {"admin": {"roles": {"*": "admin"}}}})
        self.look()
        self.assertFalse(self.is_open(authenticated.token))
